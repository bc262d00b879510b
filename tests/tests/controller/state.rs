//! What is in the database, read past the controller.

use std::time::{Duration, Instant};

use anyhow::ensure;
use sqlx::{Any, AnyPool, Row as _, Transaction};

use crate::Result;
use crate::double::{Double, Table};

/// How long everything may take to be told, once all is quiet.
const PATIENCE: Duration = Duration::from_secs(90);

/// A database, to be read.
pub struct State(AnyPool);

impl State {
    pub async fn read(database: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        Ok(Self(AnyPool::connect(database).await?))
    }

    /// The routes of a proxy.
    pub async fn routes(&self, proxy: &str) -> Result<Table> {
        let rows = sqlx::query("SELECT env_id, destination FROM routes WHERE proxy_id = ?").bind(proxy);
        let rows = rows.fetch_all(&self.0).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Does something to it.
    pub async fn execute(&self, statement: &str) -> Result {
        sqlx::query(statement).execute(&self.0).await?;
        Ok(())
    }

    /// Has, until its end, the lock that every change begins with.
    pub async fn lock(&self) -> Result<Transaction<'static, Any>> {
        let mut tx = self.0.begin().await?;
        sqlx::query("UPDATE picop_state SET version = version + 1").execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Whether somebody has that lock. (MySQL, MariaDB)
    pub async fn is_locked(&self) -> Result<bool> {
        let mut tx = self.0.begin().await?;
        let locked =
            sqlx::query("SELECT version FROM picop_state FOR UPDATE NOWAIT").fetch_one(&mut *tx).await;
        tx.rollback().await?;
        match locked {
            Ok(_) => Ok(false),
            // Each of both has a number of its own for it.
            Err(sqlx::Error::Database(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until somebody waits for a lock. (MySQL, MariaDB)
    pub async fn somebody_waits(&self) -> Result {
        /// The server looks again only if nobody has asked for 100 ms.
        const PAUSE: Duration = Duration::from_millis(250);
        let waiting = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
        let end = Instant::now() + PATIENCE;
        loop {
            let waiting: i64 = sqlx::query(waiting).fetch_one(&self.0).await?.try_get(0)?;
            if waiting > 0 {
                return Ok(());
            }
            ensure!(Instant::now() < end, "nobody waits");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until there is nothing left to be told. Then each proxy has what is stored, and what was `wanted`.
    pub async fn settled(&self, proxies: &[(&str, &Double, Table)]) -> Result {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = sqlx::query("SELECT COUNT(*) FROM picop_pending").fetch_one(&self.0).await?;
            let left: i64 = left.try_get(0)?;
            if left == 0 {
                break;
            }
            ensure!(Instant::now() < end, "{left} environments are still to be told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for (name, double, wanted) in proxies {
            let stored = self.routes(name).await?;
            assert_eq!(&stored, wanted, "stored for {name}, and answered 200");
            assert_eq!(double.table(), stored, "{name}, and what is stored for it");
        }
        Ok(())
    }
}
