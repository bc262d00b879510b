//! What is wanted, and what has to be told to whom: the database.
//!
//! Two tables are the reference's, `proxies` and `routes`. Beside them are ours: `picop_pending` has a row for each
//! environment of a proxy that the proxy may know wrongly, written in the same transaction as the change of the route;
//! `picop_leases` says which controller tells which proxy; `picop_state` holds the version that numbers changes. Every
//! transaction that changes something begins with that one row, so changes have one order, whoever makes them, and none
//! waits for another in a circle.
mod change;
mod database;
mod dsn;
mod lease;
mod open;
mod schema;
mod work;

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{Any, AnyPool, Row as _, Transaction, mysql::MySqlDatabaseError};

pub use change::{Route, RouteKey};
pub use database::{BadDatabase, Database};
pub use lease::Proxy;
pub use open::OpenError;
pub use work::{Item, Work};

use self::{database::Dialect, schema::Statements};

/// For how long a controller may be silent before another takes its place at a proxy.
const LEASE: Duration = Duration::from_secs(15);

/// For how long a message may still be on its way after whoever sent it has given up or has ended. What was in doubt is told
/// once more after it.
pub const GRACE: Duration = Duration::from_secs(6);

/// For how long it is known what a proxy that was removed had been told.
const MEMORY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often a transaction is tried that the database has picked out to end a deadlock.
const TRIES: usize = 10;

/// What a controller knows.
#[derive(Debug)]
pub struct Store {
    pool: AnyPool,
    dialect: Dialect,
    sql: Statements,
    clock: Clock,
    /// Locked: there is no second controller on an SQLite file.
    _file: Option<File>,
}

/// What the time is.
#[derive(Debug, Clone)]
enum Clock {
    /// That of the database: controllers on several machines agree on it.
    Database,
    /// This machine's.
    Machine,
    /// As a test says.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests make it"))]
    Test(Arc<AtomicI64>),
}

/// Something cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The proxy is not known.
    #[error("proxy {0:?} is not registered; register it first (PUT /proxy/{0}/register)")]
    UnknownProxy(String),
    /// The database fails. Whether a change was stored is not known if it failed at its very end.
    #[error("the database fails")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether the database has undone the transaction for reasons of its own: it will do when tried again.
    fn is_passing(&self) -> bool {
        /// `ER_LOCK_DEADLOCK`, `ER_LOCK_WAIT_TIMEOUT`, and MariaDB's "record has changed since last read".
        const PASSING: [u16; 3] = [1213, 1205, 1020];
        let Self::Database(error) = self else { return false };
        mysql_number(error).is_some_and(|number| PASSING.contains(&number))
    }
}

/// The number of an error that a MySQL or MariaDB has answered.
fn mysql_number(error: &sqlx::Error) -> Option<u16> {
    let sqlx::Error::Database(error) = error else { return None };
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

impl Store {
    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT version FROM picop_state").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Lets go of the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool.begin_with(self.dialect.begin()).await
    }

    /// Begins a change, and numbers it.
    async fn begin_change(&self) -> Result<(Transaction<'static, Any>, i64), sqlx::Error> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE picop_state SET version = version + 1 WHERE id = 1").execute(&mut *tx).await?;
        let version = sqlx::query("SELECT version FROM picop_state WHERE id = 1").fetch_one(&mut *tx).await?;
        let version = version.try_get(0)?;
        Ok((tx, version))
    }

    /// Milliseconds since 1970.
    async fn now(&self, tx: &mut Transaction<'static, Any>) -> Result<i64, sqlx::Error> {
        match &self.clock {
            Clock::Database => {
                let now = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";
                sqlx::query(now).fetch_one(&mut **tx).await?.try_get(0)
            }
            Clock::Machine => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Ok(millis(now))
            }
            Clock::Test(now) => Ok(now.load(Ordering::Relaxed)),
        }
    }

    /// Tries again what the database has undone.
    async fn retried<T, F>(&self, mut once: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        for _ in 1..TRIES {
            match once().await {
                Err(error) if error.is_passing() => tracing::debug!(%error, "tried again"),
                result => return result,
            }
        }
        once().await
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
