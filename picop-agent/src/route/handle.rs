//! The table in effect, shared.
use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

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
    /// Held by whoever puts a table in effect: the installer and `current` take the same ones, in the same order.
    turn: Mutex<()>,
    installer: OnceLock<Installer>,
}

/// Puts a table in effect elsewhere, and returns how many entries it has there.
struct Installer(Box<Install>);

type Install = dyn Fn(&RouteTable) -> Result<usize, Reason> + Send + Sync;

/// Why a table is not taken.
type Reason = Box<dyn Error + Send + Sync>;

impl fmt::Debug for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Installer")
    }
}

/// A table was not taken, and is in effect nowhere.
#[derive(Debug, thiserror::Error)]
#[error("the routes cannot be put in effect on this node (SIGHUP tries the same file again)")]
pub struct NotInstalled(#[source] Reason);

/// A table that was put in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InEffect {
    /// Its version.
    pub version: u64,
    /// How many entries it has where it is installed; none where it is not.
    pub entries: Option<usize>,
}

impl Default for Shared {
    fn default() -> Self {
        let empty = Arc::new(RouteTable::default());
        Self {
            current: ArcSwap::new(Arc::clone(&empty)),
            changes: watch::Sender::new(empty),
            status: watch::Sender::default(),
            turn: Mutex::default(),
            installer: OnceLock::new(),
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

    /// From here on a table is in effect only when `install` has taken it, which says how many entries it has there.
    ///
    /// # Panics
    /// If there is an installer already.
    pub fn install_by<E>(&self, install: impl Fn(&RouteTable) -> Result<usize, E> + Send + Sync + 'static)
    where
        E: Into<Reason>,
    {
        let installer = Installer(Box::new(move |table| install(table).map_err(Into::into)));
        assert!(self.0.installer.set(installer).is_ok(), "tables are installed in one place");
    }

    /// Puts `table` in effect: installed first, if there is an installer, and then here. What it does not take is in
    /// effect nowhere, and the last table stays. May take as long as installing does.
    pub fn replace(&self, table: RouteTable) -> Result<InEffect, NotInstalled> {
        let _turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.0.status.borrow().version + 1;
        let table = table.with_version(version);
        let install = |Installer(install): &Installer| install(&table).map_err(NotInstalled);
        let entries = self.0.installer.get().map(install).transpose()?;
        let table = Arc::new(table);
        self.0.status.send_modify(|status| {
            self.0.current.store(Arc::clone(&table));
            self.0.changes.send_replace(table);
            *status = SourceStatus {
                version,
                loaded_at: Some(SystemTime::now()),
                rejected: status.rejected,
                last_error: None,
            };
        });
        Ok(InEffect { version, entries })
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
        let put = handle.replace(RouteTable::new(vec![service], vec![]).unwrap());
        assert_eq!(put.unwrap(), InEffect { version: 1, entries: None });
        changes.changed().await.unwrap();
        assert!(Arc::ptr_eq(&changes.borrow(), &handle.load()));
        assert_eq!(handle.load().version(), 1);
        assert_eq!(before.services().len(), 0, "who holds the old table keeps it");
        assert_eq!(handle.clone().replace(RouteTable::default()).unwrap().version, 2);
        assert_eq!(handle.load().version(), 2);
    }

    fn named(name: &str) -> RouteTable {
        let service = Service::new(name, vec!["10.96.0.10:80".parse().unwrap()]);
        RouteTable::new(vec![service], vec![]).unwrap()
    }

    /// What one side refuses, neither has; and when both have it, the installer had it first.
    #[test]
    fn installed_or_not_at_all() {
        #[derive(Debug, thiserror::Error)]
        #[error("no room")]
        struct NoRoom;

        let handle = RouteHandle::new();
        let installed = Arc::new(Mutex::new(Vec::new()));
        handle.install_by({
            let (handle, installed) = (handle.clone(), Arc::clone(&installed));
            move |table| {
                if table.services()[0].name == "big" {
                    return Err(NoRoom);
                }
                let in_effect = handle.load().version();
                installed.lock().unwrap().push((table.version(), in_effect));
                Ok(7)
            }
        });
        let mut changes = handle.subscribe();
        assert_eq!(handle.replace(named("one")).unwrap(), InEffect { version: 1, entries: Some(7) });
        assert!(changes.has_changed().unwrap());
        let one = Arc::clone(&changes.borrow_and_update());

        let refused = handle.replace(named("big")).unwrap_err();
        assert_eq!(refused.source().unwrap().to_string(), "no room");
        assert!(!changes.has_changed().unwrap());
        assert!(Arc::ptr_eq(&handle.load(), &one));
        assert_eq!(handle.status().version, 1);

        // The next one has the next number, as if nothing had been refused.
        assert_eq!(handle.replace(named("two")).unwrap().version, 2);
        assert!(changes.has_changed().unwrap());
        assert_eq!(*installed.lock().unwrap(), [(1, 0), (2, 1)]);
    }

    #[test]
    fn status() {
        let handle = RouteHandle::new();
        assert_eq!(handle.status(), SourceStatus::default());
        handle.replace(RouteTable::default()).unwrap();
        handle.reject("bad".into());
        let status = handle.status();
        assert_eq!((status.version, status.rejected, status.last_error.as_deref()), (1, 1, Some("bad")));
        handle.confirm();
        let status = handle.status();
        assert_eq!((status.version, status.rejected, status.last_error), (1, 1, None));
    }
}
