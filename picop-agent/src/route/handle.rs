//! The table in effect, shared.
use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::table::RouteTable;

/// Shares the table in effect. A clone is the same handle.
#[derive(Debug, Clone, Default)]
pub struct RouteHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// For [`RouteHandle::load`], once per connection: no lock.
    current: ArcSwap<RouteTable>,
    /// For those who wait for a change.
    changes: watch::Sender<Arc<RouteTable>>,
    /// Locked while `current` and `changes` are replaced, so that the three agree.
    status: watch::Sender<SourceStatus>,
}

impl Default for Shared {
    fn default() -> Self {
        let empty = Arc::new(RouteTable::default());
        Self {
            current: ArcSwap::new(Arc::clone(&empty)),
            changes: watch::Sender::new(empty),
            status: watch::Sender::default(),
        }
    }
}

/// How the source of the table in effect is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceStatus {
    /// The version of the table in effect; 0 when none was loaded yet.
    pub version: u64,
    /// When the source was last read and found good.
    pub loaded_at: Option<SystemTime>,
    /// How many updates were refused since start.
    pub rejected: u64,
    /// Why the last update was refused; none when it was good.
    pub last_error: Option<String>,
}

impl RouteHandle {
    /// A handle on an empty table of version 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table in effect. Keep it for one connection, not longer.
    pub fn load(&self) -> Arc<RouteTable> {
        self.0.current.load_full()
    }

    /// Puts `table` in effect at once and returns its version.
    pub fn replace(&self, table: RouteTable) -> u64 {
        let mut version = 0;
        self.0.status.send_modify(|status| {
            version = status.version + 1;
            let table = Arc::new(table.with_version(version));
            self.0.current.store(Arc::clone(&table));
            self.0.changes.send_replace(table);
            *status = SourceStatus {
                version,
                loaded_at: Some(SystemTime::now()),
                rejected: status.rejected,
                last_error: None,
            };
        });
        version
    }

    /// The source was read, and says what is in effect already.
    pub fn confirm(&self) {
        self.0.status.send_modify(|status| {
            status.loaded_at = Some(SystemTime::now());
            status.last_error = None;
        });
    }

    /// An update was refused; the table in effect stays.
    pub fn reject(&self, error: String) {
        self.0.status.send_modify(|status| {
            status.rejected += 1;
            status.last_error = Some(error);
        });
    }

    /// How the source is doing.
    pub fn status(&self) -> SourceStatus {
        self.0.status.borrow().clone()
    }

    /// A receiver that wakes whenever the source was read: replaced, confirmed or refused.
    pub fn subscribe_status(&self) -> watch::Receiver<SourceStatus> {
        self.0.status.subscribe()
    }

    /// A receiver that wakes on every [`Self::replace`]. It shows the newest table: tables in between may be skipped.
    pub fn subscribe(&self) -> watch::Receiver<Arc<RouteTable>> {
        self.0.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Service;

    #[tokio::test]
    async fn replacing() {
        let handle = RouteHandle::new();
        let mut changes = handle.subscribe();
        let before = handle.load();
        assert_eq!((before.version(), before.services().len()), (0, 0));

        let service = Service::new("cart", vec!["10.96.0.10:80".parse().unwrap()]);
        assert_eq!(handle.replace(RouteTable::new(vec![service], vec![]).unwrap()), 1);
        changes.changed().await.unwrap();
        assert!(Arc::ptr_eq(&changes.borrow(), &handle.load()));
        assert_eq!(handle.load().version(), 1);
        assert_eq!(before.services().len(), 0, "who holds the old table keeps it");
        assert_eq!(handle.clone().replace(RouteTable::default()), 2);
        assert_eq!(handle.load().version(), 2);
    }

    #[test]
    fn status() {
        let handle = RouteHandle::new();
        assert_eq!(handle.status(), SourceStatus::default());
        handle.replace(RouteTable::default());
        handle.reject("bad".into());
        let status = handle.status();
        assert_eq!((status.version, status.rejected, status.last_error.as_deref()), (1, 1, Some("bad")));
        handle.confirm();
        let status = handle.status();
        assert_eq!((status.version, status.rejected, status.last_error), (1, 1, None));
    }
}
