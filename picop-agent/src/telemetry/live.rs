//! Relayed connections that are open, for whoever asks.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    protocol::EnvId,
    route::{Decision, EnvSource, Reason, Service},
};

/// Locks that connections share: one that opens or ends should find its own free.
const SHARDS: usize = 16;

/// The connections that are open.
#[derive(Debug, Default)]
pub struct Live {
    next: AtomicU64,
    shards: [Mutex<HashMap<u64, Arc<Open>>>; SHARDS],
}

/// Bytes of payload carried so far by the agent, that is without those the kernel carried past it.
#[derive(Debug, Default)]
pub struct Carried {
    /// Client to server.
    pub up: AtomicU64,
    /// Server to client.
    pub down: AtomicU64,
}

/// A connection.
#[derive(Debug)]
pub struct Open {
    id: u64,
    /// The workload it is of.
    pub workload: Arc<str>,
    /// Its client's address.
    pub client: SocketAddr,
    /// When it was accepted.
    pub since: Instant,
    /// What it has carried.
    pub carried: Carried,
    progress: Mutex<Progress>,
}

/// What is known of it so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Where the client wanted to go.
    pub original: Option<SocketAddr>,
    /// The service there.
    pub service: Option<Arc<Service>>,
    /// Its environment.
    pub environment: Option<EnvId>,
    /// Where that came from.
    pub source: Option<EnvSource>,
    /// Why it goes where it goes.
    pub reason: Option<Reason>,
    /// Where that is, once it is connected.
    pub backend: Option<SocketAddr>,
}

/// Keeps a connection among the open ones until dropped.
#[derive(Debug)]
pub struct Entry {
    live: super::hub::Hub,
    open: Arc<Open>,
}

impl Live {
    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<Open>> {
        self.shards.iter().flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>()).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<Open>>> {
        &self.shards[usize::try_from(id % SHARDS as u64).expect("less than SHARDS")]
    }
}

impl Entry {
    /// A connection was accepted.
    pub fn new(hub: &super::hub::Hub, workload: Arc<str>, client: SocketAddr) -> Self {
        let live = hub.live();
        let id = live.next.fetch_add(1, Ordering::Relaxed);
        let open = Arc::new(Open {
            id,
            workload,
            client,
            since: Instant::now(),
            carried: Carried::default(),
            progress: Mutex::default(),
        });
        lock(live.shard(id)).insert(id, Arc::clone(&open));
        Self { live: hub.clone(), open }
    }

    /// The connection.
    pub fn open(&self) -> &Arc<Open> {
        &self.open
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(self.live.live().shard(self.open.id)).remove(&self.open.id);
    }
}

impl Open {
    /// What is known of it.
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(super) fn wanted(&self, original: SocketAddr) {
        lock(&self.progress).original = Some(original);
    }

    pub(super) fn decided(&self, decision: &Decision) {
        let mut progress = lock(&self.progress);
        progress.service.clone_from(&decision.service);
        progress.environment.clone_from(&decision.environment);
        progress.source = Some(decision.source);
        progress.reason = Some(decision.reason);
    }

    pub(super) fn connected(&self, backend: SocketAddr) {
        lock(&self.progress).backend = Some(backend);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::hub::Hub;

    #[test]
    fn a_connection_is_there_until_it_ends() {
        let hub = Hub::default();
        let client: SocketAddr = "10.0.0.1:4000".parse().unwrap();
        let entries: Vec<_> = (0..40).map(|_| Entry::new(&hub, "pod".into(), client)).collect();
        assert_eq!(hub.live().count(), 40);
        let last = Arc::clone(entries[39].open());
        last.connected("10.0.0.2:80".parse().unwrap());
        drop(entries);
        assert_eq!(hub.live().all().len(), 0);
        assert_eq!(last.progress().backend, Some("10.0.0.2:80".parse().unwrap()));
    }
}
