//! Who tells which proxy: one controller at a time.
use sqlx::{Any, Row as _, Transaction};

use super::{GRACE, LEASE, Store, StoreError, millis};

/// Someone to be told something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proxy(pub String);

impl Store {
    /// The proxies that are to be told something now, and that no other controller is telling.
    pub(in crate::controller) async fn due(&self, owner: &str) -> Result<Vec<Proxy>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let now = self.now(&mut tx).await?;
        let due = "SELECT proxy_id FROM proxies p WHERE activate = 1 \
             AND EXISTS (SELECT 1 FROM picop_pending d WHERE d.proxy_id = p.proxy_id AND d.due <= ?) \
             AND NOT EXISTS (SELECT 1 FROM picop_leases l WHERE l.proxy_id = p.proxy_id \
                 AND l.owner <> '' AND l.owner <> ? AND l.expires > ?)";
        let rows = sqlx::query(due).bind(now).bind(owner).bind(now).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        rows.iter().map(|row| Ok(Proxy(row.try_get(0)?))).collect()
    }

    /// Makes `owner` the one who tells the proxy, if nobody else is.
    pub(in crate::controller) async fn claim(
        &self,
        Proxy(proxy): &Proxy,
        owner: &str,
    ) -> Result<bool, StoreError> {
        self.retried(|| self.claim_once(proxy, owner)).await
    }

    async fn claim_once(&self, proxy: &str, owner: &str) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        let until = now + millis(LEASE);
        // `taken` first: MySQL assigns from left to right, and looks at what it has assigned.
        let take = "UPDATE picop_leases SET taken = CASE WHEN owner = '' OR owner = ? THEN taken ELSE 1 END, \
             owner = ?, expires = ? WHERE proxy_id = ? AND (owner = '' OR owner = ? OR expires <= ?)";
        let took = sqlx::query(take).bind(owner).bind(owner).bind(until).bind(proxy).bind(owner).bind(now);
        if took.execute(&mut *tx).await?.rows_affected() == 0 {
            let make = sqlx::query(&self.sql.make_lease).bind(proxy).bind(owner).bind(until);
            if make.execute(&mut *tx).await?.rows_affected() == 0 {
                return Ok(false);
            }
        }
        let taken = sqlx::query("SELECT taken FROM picop_leases WHERE proxy_id = ?").bind(proxy);
        let taken: i64 = taken.fetch_one(&mut *tx).await?.try_get(0)?;
        if taken != 0 {
            // Whatever the last owner was telling when it ended may arrive late.
            let doubt = sqlx::query("UPDATE picop_pending SET suspect = ? WHERE proxy_id = ?");
            doubt.bind(now + millis(GRACE)).bind(proxy).execute(&mut *tx).await?;
            let seen = sqlx::query("UPDATE picop_leases SET taken = 0 WHERE proxy_id = ?").bind(proxy);
            seen.execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// `owner` has nothing on its way to the proxy: another may tell it.
    pub(in crate::controller) async fn release(
        &self,
        Proxy(proxy): &Proxy,
        owner: &str,
    ) -> Result<(), StoreError> {
        let free = "UPDATE picop_leases SET owner = '', expires = 0 WHERE proxy_id = ? AND owner = ?";
        sqlx::query(free).bind(proxy).bind(owner).execute(&self.pool).await?;
        Ok(())
    }
}

/// Keeps a lease, however late: if nobody has taken it, nobody has told the proxy anything meanwhile.
pub(super) async fn renewed(
    tx: &mut Transaction<'static, Any>,
    proxy: &str,
    owner: &str,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let keep = "UPDATE picop_leases SET expires = ? WHERE proxy_id = ? AND owner = ?";
    let kept = sqlx::query(keep).bind(now + millis(LEASE)).bind(proxy).bind(owner);
    Ok(kept.execute(&mut **tx).await?.rows_affected() != 0)
}
