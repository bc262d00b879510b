//! A double of the Kubernetes API server, to the API's contract: lists in pages, watches from a version, bookmarks, versions
//! that are forgotten, conflicts, selectors; and, when told to, every way in which a server fails its clients.
//!
//! It knows the kinds that picop reads and writes, and keeps them in memory. It listens on loopback, on a port of its own.

mod discovery;
mod http;
mod kinds;
mod layout;
pub mod objects;
mod path;
mod store;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch as watched};

pub use self::discovery::Definition;
pub use self::kinds::Kind;
pub use self::layout::Layout;
use self::store::Store;

/// What a client must show.
const TOKEN: &str = "the-double's-token";

/// How a server fails its clients.
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every request is answered 401.
    pub unauthorized: bool,
    /// Nobody has to show a token. kubectl shows none to a server without TLS.
    pub anonymous: bool,
    /// Every request is answered 403.
    pub forbidden: bool,
    /// Answers, and each line of a watch, are put off by as much.
    pub slow: Option<Duration>,
    /// Watches are cut, in the middle of a line, after as many events.
    pub cut_after: Option<usize>,
    /// Watches of forgotten versions are answered 410 at once, and not within the stream.
    pub gone_at_once: bool,
}

/// A running API server. It ends when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    /// The newest version, for those who watch.
    newest: watched::Sender<u64>,
    /// Whether the server is there. When not, it takes no connection and cuts those it has.
    there: watched::Sender<bool>,
    /// Whether custom kinds are installed.
    definitions: AtomicBool,
    /// Further kinds, of which there is no object.
    more: Mutex<Vec<Definition>>,
    requests: Mutex<Vec<String>>,
    bookmark_every: Duration,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells those who watch.
    fn tell(&self, version: u64) {
        self.newest.send_replace(version);
    }
}

impl ApiServer {
    /// Starts one, with picop's kinds installed and no objects.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            faults: Mutex::default(),
            newest: watched::Sender::new(0),
            there: watched::Sender::new(true),
            definitions: AtomicBool::new(true),
            more: Mutex::default(),
            requests: Mutex::default(),
            bookmark_every: Duration::from_millis(500),
        });
        let stop = Arc::new(Notify::new());
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("binding on loopback")?;
        let addr = listener.local_addr().context("a bound socket has an address")?;
        let thread = std::thread::Builder::new()
            .name("api-server".into())
            .spawn({
                let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
                move || http::serve(listener, &shared, &stop)
            })
            .context("starting a thread")?;
        Ok(Self { shared, addr, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Writes a kubeconfig for it into a directory.
    pub fn kubeconfig(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join(format!("kubeconfig-{}.yaml", self.addr.port()));
        // YAML, as JSON is.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "clusters": [{"name": "double", "cluster": {"server": format!("http://{}", self.addr)}}],
            "users": [{"name": "agent", "user": {"token": TOKEN}}],
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "agent"}}],
        });
        std::fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Creates an object, or replaces it.
    pub fn apply(&self, object: Value) -> Result<()> {
        let version = self.shared.store().apply(object)?;
        self.shared.tell(version);
        Ok(())
    }

    /// Creates or replaces many at once: clients see them in one burst.
    pub fn apply_all(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let mut store = self.shared.store();
        let mut version = store.version();
        for object in objects {
            version = store.apply(object)?;
        }
        drop(store);
        self.shared.tell(version);
        Ok(())
    }

    /// Changes an object.
    pub fn edit(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<()> {
        let mut store = self.shared.store();
        let mut object =
            store.get(kind, namespace, name).with_context(|| format!("no {kind:?} {namespace}/{name}"))?;
        change(&mut object);
        let version = store.apply(object)?;
        drop(store);
        self.shared.tell(version);
        Ok(())
    }

    /// Deletes an object.
    pub fn delete(&self, kind: Kind, namespace: &str, name: &str) -> Result<()> {
        let version = self.shared.store().delete(kind, namespace, name)?;
        self.shared.tell(version);
        Ok(())
    }

    /// An object as it is.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        self.shared.store().get(kind, namespace, name)
    }

    /// All objects of a kind.
    pub fn all(&self, kind: Kind) -> Vec<Value> {
        self.shared.store().all(kind)
    }

    /// Forgets all versions before the newest one, as etcd does when it is compacted.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    /// Changes how it fails. What runs already fails so too.
    pub fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether it is there. When not, connections are cut and refused.
    pub fn set_there(&self, there: bool) {
        self.shared.there.send_replace(there);
    }

    /// Whether picop's kinds are installed.
    pub fn set_definitions(&self, installed: bool) {
        self.shared.definitions.store(installed, Ordering::Relaxed);
    }

    /// Whether it has objects of a kind, or could have.
    pub fn knows(api_version: &str, kind: &str) -> bool {
        let named = json!({"apiVersion": api_version, "kind": kind});
        Kind::of(&named).is_some()
    }

    /// Says that there are these kinds too. They have no objects, and take none.
    pub fn define(&self, more: impl IntoIterator<Item = Definition>) {
        self.shared.more.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
    }

    /// The requests so far: method and path with query.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many watches are running.
    pub fn watches(&self) -> usize {
        // Each holds a receiver; the one that tells is none.
        self.shared.newest.receiver_count()
    }

    /// Cuts all connections; clients come back at once.
    pub fn cut(&self) {
        self.shared.there.send_replace(false);
        self.shared.there.send_replace(true);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests;
