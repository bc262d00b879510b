//! What is in the database, read past the controller.

use std::time::{Duration, Instant};

use anyhow::ensure;
use sqlx::{AnyPool, Row as _};

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
