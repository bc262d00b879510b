//! Opening a database: its tables made or adopted.
mod error;

use std::{fs::OpenOptions, time::Duration};

use rustix::fs::{FlockOperation, flock};
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _, any::AnyPoolOptions};

pub use self::error::OpenError;
use super::{
    super::segment::segment,
    Clock, Store,
    database::{Database, Dialect},
    mysql_number,
    schema::{self, Statements},
};

/// How long a connection to the database may be waited for.
const ACQUIRE: Duration = Duration::from_secs(5);

/// Connections to a MySQL at once.
const CONNECTIONS: u32 = 16;

/// For how many seconds a controller may hang in a transaction, which keeps all others from their changes.
const HANGING: u32 = 10;

/// For how long a connection to a MySQL is kept that is not used. It is looked at as rarely as that, so it ends before the
/// server gives up on it.
const IDLE: Duration = Duration::from_secs(HANGING as u64 / 2);

impl OpenError {
    /// Whether nobody answers where the database should be.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Database(sqlx::Error::PoolTimedOut))
    }
}

impl Store {
    /// Opens a database. Missing tables are made; those that a controller of the reference has made are used as they are.
    ///
    /// # Errors
    /// When the database is not to be had, is another controller's (SQLite), or is of a later version.
    pub async fn open(database: &Database) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let (dialect, clock, url, file) = match database {
            Database::Sqlite(path) => {
                let failed = |source| OpenError::File { path: path.clone(), source };
                let name = path.to_str().ok_or_else(|| OpenError::Path(path.clone()))?;
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create(true).truncate(false);
                let file = file.open(path).map_err(failed)?;
                // Of another kind than SQLite's own locks: its tools may read meanwhile. It ends with the process.
                flock(&file, FlockOperation::NonBlockingLockExclusive)
                    .map_err(|_| OpenError::InUse(path.clone()))?;
                let segments: Vec<_> = name.split('/').map(segment).collect();
                let url = format!("sqlite:{}", segments.join("/"));
                (Dialect::Sqlite, Clock::Machine, url, Some(file))
            }
            Database::MySql(url) => (Dialect::MySql, Clock::Database, url.clone(), None),
        };
        let store = Self {
            pool: pool(dialect, &url).await?,
            dialect,
            sql: Statements::new(dialect),
            clock,
            _file: file,
        };
        store.adopt().await?;
        Ok(store)
    }

    pub(super) async fn adopt(&self) -> Result<(), OpenError> {
        let mut tx = self.begin().await?;
        if let Some(found) = schema::migrate(&mut tx, self.dialect).await? {
            return Err(OpenError::Later { found });
        }
        tx.commit().await?;
        let (mut tx, version) = self.begin_change().await?;
        sqlx::query(&self.sql.note_strangers).bind(version).execute(&mut *tx).await?;
        sqlx::query(&self.sql.make_leases).execute(&mut *tx).await?;
        if self.dialect == Dialect::Sqlite {
            // Whoever held them has ended: the file is ours.
            sqlx::query("UPDATE picop_leases SET expires = 0").execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

async fn pool(dialect: Dialect, url: &str) -> Result<AnyPool, sqlx::Error> {
    // A pool tries for a while whatever fails, and then says that it has waited. This says what fails.
    let mut first = AnyConnection::connect(url).await?;
    set(&mut first, dialect).await?;
    if let Err(error) = first.close().await {
        // A server that was told goodbye by TLS is gone before it has heard TLS's own: to write that may fail.
        tracing::debug!(%error, "the first connection to the database ended without a goodbye");
    }
    let options = AnyPoolOptions::new().acquire_timeout(ACQUIRE).min_connections(1);
    let options = match dialect {
        // Its transactions come one after another anyway, and in turn by this.
        Dialect::Sqlite => options.max_connections(1).idle_timeout(None).max_lifetime(None),
        Dialect::MySql => options.max_connections(CONNECTIONS).idle_timeout(IDLE),
    };
    options.after_connect(move |connection, _| Box::pin(set(connection, dialect))).connect(url).await
}

/// `ER_UNKNOWN_SYSTEM_VARIABLE`.
const UNKNOWN_VARIABLE: u16 = 1193;

/// How a connection is to behave.
async fn set(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), sqlx::Error> {
    match dialect {
        Dialect::Sqlite => {
            // FULL: what was answered is kept also when the machine fails.
            let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                            PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000";
            connection.execute(settings).await?;
        }
        Dialect::MySql => {
            // Changes come one after another by the lock on their version; a snapshot would only add conflicts to that.
            let settings = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                            SET SESSION innodb_lock_wait_timeout = 5";
            connection.execute(settings).await?;
            // A controller that hangs in a transaction, or whose machine is gone, must not keep others from their changes.
            // MariaDB has a limit for just that. MySQL does not know it, but closes any connection that is silent for long,
            // which for one with a transaction is the same; the pool is done with the others before.
            let limit = |variable| format!("SET SESSION {variable} = {HANGING}");
            if let Err(error) = connection.execute(&*limit("idle_transaction_timeout")).await {
                if mysql_number(&error) != Some(UNKNOWN_VARIABLE) {
                    return Err(error);
                }
                connection.execute(&*limit("wait_timeout")).await?;
            }
        }
    }
    Ok(())
}
