//! Changes of what is wanted. Each is one transaction, with the notes of what has to be told.
use sqlx::Row as _;

use super::{MEMORY, Store, StoreError, millis};
use crate::controller::names::{Destination, Endpoint, EnvName, ProxyId};

/// Where a proxy sends an environment's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which route.
    pub key: RouteKey,
    /// Where to.
    pub destination: Destination,
}

/// What a route is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteKey {
    /// The proxy.
    pub proxy: ProxyId,
    /// The environment.
    pub env: EnvName,
}

impl Store {
    /// Makes a proxy known, or its new place. At a new place it has to be activated first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register(&self, proxy: &ProxyId, endpoint: &Endpoint) -> Result<(), StoreError> {
        self.retried(|| self.register_once(proxy, endpoint)).await
    }

    async fn register_once(&self, proxy: &ProxyId, endpoint: &Endpoint) -> Result<(), StoreError> {
        let (mut tx, _) = self.begin_change().await?;
        let known = sqlx::query("SELECT endpoint FROM proxies WHERE proxy_id = ?").bind(proxy.as_str());
        let known: Option<String> =
            known.fetch_optional(&mut *tx).await?.map(|row| row.try_get(0)).transpose()?;
        match known {
            None => {
                let new = "INSERT INTO proxies (proxy_id, endpoint, activate) VALUES (?, ?, 0)";
                sqlx::query(new).bind(proxy.as_str()).bind(endpoint.as_str()).execute(&mut *tx).await?;
            }
            Some(known) if known != endpoint.as_str() => {
                let moved = "UPDATE proxies SET endpoint = ?, activate = 0 WHERE proxy_id = ?";
                sqlx::query(moved).bind(endpoint.as_str()).bind(proxy.as_str()).execute(&mut *tx).await?;
            }
            // It has been restarted, perhaps. It is told everything once it says that it is active.
            Some(_) => {}
        }
        tx.commit().await?;
        Ok(())
    }

    /// Has a proxy be told all its routes now, and each change from now on.
    ///
    /// # Errors
    /// When the proxy is not registered, or the database fails.
    pub async fn activate(&self, proxy: &ProxyId) -> Result<(), StoreError> {
        self.retried(|| self.activate_once(proxy)).await
    }

    async fn activate_once(&self, proxy: &ProxyId) -> Result<(), StoreError> {
        let (mut tx, version) = self.begin_change().await?;
        let active = "UPDATE proxies SET activate = 1 WHERE proxy_id = ?";
        let found = sqlx::query(active).bind(proxy.as_str()).execute(&mut *tx).await?;
        if found.rows_affected() == 0 {
            return Err(StoreError::UnknownProxy(proxy.to_string()));
        }
        sqlx::query(&self.sql.note_all).bind(version).bind(proxy.as_str()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Forgets a proxy and its routes. It is not told, but should it come back soon, it is told first that they are gone. One that is
    /// not known is forgotten already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove(&self, proxy: &ProxyId) -> Result<(), StoreError> {
        self.retried(|| self.remove_once(proxy)).await
    }

    async fn remove_once(&self, proxy: &ProxyId) -> Result<(), StoreError> {
        let (mut tx, version) = self.begin_change().await?;
        let now = self.now(&mut tx).await?;
        sqlx::query(&self.sql.note_all).bind(version).bind(proxy.as_str()).execute(&mut *tx).await?;
        let since = "UPDATE picop_pending SET due = ? WHERE proxy_id = ?";
        sqlx::query(since).bind(now).bind(proxy.as_str()).execute(&mut *tx).await?;
        for forget in [
            "DELETE FROM routes WHERE proxy_id = ?",
            "DELETE FROM proxies WHERE proxy_id = ?",
            // One that is held stays: whoever holds it is about to tell the proxy something.
            "DELETE FROM picop_leases WHERE proxy_id = ? AND owner = ''",
        ] {
            sqlx::query(forget).bind(proxy.as_str()).execute(&mut *tx).await?;
        }
        // One that has not come back until now has been another process since.
        let never = "DELETE FROM picop_pending WHERE due < ? \
             AND NOT EXISTS (SELECT 1 FROM proxies WHERE proxies.proxy_id = picop_pending.proxy_id)";
        sqlx::query(never).bind(now - millis(MEMORY)).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Sets routes, all or none. Of two for the same environment of a proxy, the later counts.
    ///
    /// # Errors
    /// When a proxy is not registered, or the database fails.
    pub async fn put_routes(&self, routes: &[Route]) -> Result<(), StoreError> {
        self.retried(|| self.put_routes_once(routes)).await
    }

    async fn put_routes_once(&self, routes: &[Route]) -> Result<(), StoreError> {
        let (mut tx, version) = self.begin_change().await?;
        for Route { key: RouteKey { proxy, env }, destination } in routes {
            let known = sqlx::query("SELECT 1 FROM proxies WHERE proxy_id = ?").bind(proxy.as_str());
            if known.fetch_optional(&mut *tx).await?.is_none() {
                return Err(StoreError::UnknownProxy(proxy.to_string()));
            }
            let put = sqlx::query(&self.sql.put_route).bind(proxy.as_str()).bind(env.as_str());
            put.bind(destination.as_str()).execute(&mut *tx).await?;
            let note = sqlx::query(&self.sql.note_route).bind(version).bind(proxy.as_str());
            note.bind(env.as_str()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Removes routes, all or none. One that is not there is removed already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_routes(&self, keys: &[RouteKey]) -> Result<(), StoreError> {
        self.retried(|| self.delete_routes_once(keys)).await
    }

    async fn delete_routes_once(&self, keys: &[RouteKey]) -> Result<(), StoreError> {
        let (mut tx, version) = self.begin_change().await?;
        for RouteKey { proxy, env } in keys {
            // Before it is gone, by the name it is stored under: an adopted table may ignore case.
            let note = sqlx::query(&self.sql.note_route).bind(version).bind(proxy.as_str());
            note.bind(env.as_str()).execute(&mut *tx).await?;
            let delete = sqlx::query("DELETE FROM routes WHERE proxy_id = ? AND env_id = ?");
            delete.bind(proxy.as_str()).bind(env.as_str()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}
