//! What has to be told to proxies, and that it was.
//!
//! A note goes when the proxy has been told what it says, unless it was written anew meanwhile. Two things could leave a
//! proxy with an old value: a message that is still on its way when its sender has given up or has died, and a sender that
//! slept through its lease. For the first, whoever cannot know whether a message arrived has the note be worked off twice,
//! the second time when no such message can be left ([`GRACE`](super::GRACE)). For the second, a sender that finds its lease
//! taken writes its notes again.
use sqlx::Row as _;

use super::{
    GRACE, Store, StoreError,
    lease::{Proxy, renewed},
    millis,
};

/// What a proxy is to be told next, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Where the proxy is.
    pub endpoint: String,
    /// When this was read.
    pub read: i64,
    /// One for each environment.
    pub items: Vec<Item>,
}

/// What a proxy is to be told of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The environment.
    pub env: String,
    /// Where its connections go; none if it is gone.
    pub destination: Option<String>,
    /// The version of the change.
    version: i64,
}

impl Store {
    /// What the proxy is to be told next, at most `most`. None if `owner` is not the one to do it any more, or the proxy is
    /// not active.
    pub(in crate::controller) async fn work(
        &self,
        Proxy(proxy): &Proxy,
        owner: &str,
        most: i64,
    ) -> Result<Option<Work>, StoreError> {
        self.retried(|| self.work_once(proxy, owner, most)).await
    }

    async fn work_once(&self, proxy: &str, owner: &str, most: i64) -> Result<Option<Work>, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        if !renewed(&mut tx, proxy, owner, now).await? {
            return Ok(None);
        }
        let place =
            sqlx::query("SELECT endpoint FROM proxies WHERE proxy_id = ? AND activate = 1").bind(proxy);
        let Some(place) = place.fetch_optional(&mut *tx).await? else { return Ok(None) };
        // Versions and destinations in one statement: they are of the same moment.
        let notes = "SELECT d.env_id, r.destination, d.version FROM picop_pending d LEFT JOIN routes r \
             ON r.proxy_id = d.proxy_id AND r.env_id = d.env_id \
             WHERE d.proxy_id = ? AND d.due <= ? ORDER BY d.version, d.env_id LIMIT ?";
        let rows = sqlx::query(notes).bind(proxy).bind(now).bind(most).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        let item = |row: &sqlx::any::AnyRow| -> Result<Item, sqlx::Error> {
            Ok(Item { env: row.try_get(0)?, destination: row.try_get(1)?, version: row.try_get(2)? })
        };
        let items = rows.iter().map(item).collect::<Result<_, _>>()?;
        Ok(Some(Work { endpoint: place.try_get(0)?, read: now, items }))
    }

    /// The proxy has taken `items`, which were read at `read`. Says whether `owner` still is the one to tell it.
    pub(in crate::controller) async fn told(
        &self,
        Proxy(proxy): &Proxy,
        owner: &str,
        read: i64,
        items: &[Item],
    ) -> Result<bool, StoreError> {
        self.retried(|| self.told_once(proxy, owner, read, items)).await
    }

    async fn told_once(
        &self,
        proxy: &str,
        owner: &str,
        read: i64,
        items: &[Item],
    ) -> Result<bool, StoreError> {
        let (mut tx, version) = self.begin_change().await?;
        let now = self.now(&mut tx).await?;
        let ours = renewed(&mut tx, proxy, owner, now).await?;
        for item in items {
            if ours {
                let gone = "DELETE FROM picop_pending \
                     WHERE proxy_id = ? AND env_id = ? AND version = ? AND suspect <= ?";
                let gone = sqlx::query(gone).bind(proxy).bind(&item.env).bind(item.version).bind(read);
                if gone.execute(&mut *tx).await?.rows_affected() == 0 {
                    let later = "UPDATE picop_pending SET due = suspect \
                         WHERE proxy_id = ? AND env_id = ? AND version = ?";
                    let later = sqlx::query(later).bind(proxy).bind(&item.env).bind(item.version);
                    later.execute(&mut *tx).await?;
                }
            } else {
                // Somebody else may have told the proxy something newer before this.
                let anew = sqlx::query(&self.sql.note_any).bind(&item.env).bind(version).bind(proxy);
                anew.execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
        Ok(ours)
    }

    /// Whether the proxy has taken `items`, or will yet, is not known.
    pub(in crate::controller) async fn in_doubt(
        &self,
        Proxy(proxy): &Proxy,
        items: &[Item],
    ) -> Result<(), StoreError> {
        self.retried(|| self.in_doubt_once(proxy, items)).await
    }

    async fn in_doubt_once(&self, proxy: &str, items: &[Item]) -> Result<(), StoreError> {
        let (mut tx, version) = self.begin_change().await?;
        let until = self.now(&mut tx).await? + millis(GRACE);
        for item in items {
            let doubt = "UPDATE picop_pending SET suspect = ? WHERE proxy_id = ? AND env_id = ?";
            let doubt = sqlx::query(doubt).bind(until).bind(proxy).bind(&item.env);
            if doubt.execute(&mut *tx).await?.rows_affected() == 0 {
                // Somebody else has told the proxy meanwhile.
                let anew = sqlx::query(&self.sql.note_any).bind(&item.env).bind(version).bind(proxy);
                anew.execute(&mut *tx).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// The proxy refuses `item`: it is told again, but others need not wait for it.
    pub(in crate::controller) async fn put_off(
        &self,
        Proxy(proxy): &Proxy,
        item: &Item,
        pause: std::time::Duration,
    ) -> Result<(), StoreError> {
        self.retried(|| self.put_off_once(proxy, item, millis(pause))).await
    }

    async fn put_off_once(&self, proxy: &str, item: &Item, pause: i64) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let due = self.now(&mut tx).await? + pause;
        let later = "UPDATE picop_pending SET due = ? WHERE proxy_id = ? AND env_id = ? AND version = ?";
        let later = sqlx::query(later).bind(due).bind(proxy).bind(&item.env).bind(item.version);
        later.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }
}
