//! Telling proxies: a task for each that has to be told something, until it has been.
mod backoff;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::backoff::Backoff;
use self::worker::Worker;
use super::store::{Proxy, Store};
use crate::telemetry::chain;

/// How often it is looked whether something has come due: what another controller has left undone, what is to be told twice.
const LOOK: Duration = Duration::from_millis(500);

/// The shortest pause that may be asked for: without one, a proxy that refuses something would be asked without end.
const SHORTEST: Duration = Duration::from_millis(10);

/// Proxies that are being told something at once.
const AT_ONCE: usize = 256;

/// How long messages that are under way may take at the end: as long as an answer may take.
const LAST: Duration = Duration::from_secs(5);

/// Tells all proxies.
#[derive(Debug)]
pub struct Pusher {
    store: Arc<Store>,
    changed: Arc<Notify>,
    retry_interval: Duration,
    owner: Arc<str>,
    /// Those that are being told something.
    busy: HashSet<Proxy>,
    /// Those that did not answer, and when they are tried again.
    failing: HashMap<Proxy, (Backoff, Instant)>,
}

/// How telling a proxy ended, and whether it has been told everything.
type Ended = (Proxy, bool);

impl Pusher {
    /// One that looks at once when it is told that something has changed. Between tries to reach a proxy there are longer and
    /// longer pauses, up to `retry_interval`.
    pub fn new(store: Arc<Store>, changed: Arc<Notify>, retry_interval: Duration) -> Self {
        let owner = format!("{}-{:016x}", std::process::id(), RandomState::new().hash_one(0));
        Self {
            store,
            changed,
            retry_interval: retry_interval.max(SHORTEST),
            owner: owner.into(),
            busy: HashSet::new(),
            failing: HashMap::new(),
        }
    }

    /// Goes on until it is told to stop. Messages that are under way then are finished, and others are left for the next
    /// controller.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut database_fails = false;
        loop {
            match self.look(&mut tasks, &stop).await {
                Ok(()) => database_fails = false,
                Err(error) => {
                    if !database_fails {
                        tracing::error!(
                            error = chain(&error),
                            "the database fails; proxies are not told of changes"
                        );
                    }
                    database_fails = true;
                }
            }
            tokio::select! {
                Some(ended) = tasks.join_next() => self.ended(ended),
                () = self.changed.notified() => {}
                () = sleep(LOOK) => {}
                () = self.next_try() => {}
                () = stop.cancelled() => break,
            }
            while let Some(ended) = tasks.try_join_next() {
                self.ended(ended);
            }
        }
        if timeout(LAST, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(proxies = tasks.len(), "what proxies are being told is broken off");
        }
    }

    async fn look(
        &mut self,
        tasks: &mut JoinSet<Ended>,
        stop: &CancellationToken,
    ) -> Result<(), super::store::StoreError> {
        let due = self.store.due(&self.owner).await?;
        self.failing.retain(|proxy, _| due.contains(proxy) || self.busy.contains(proxy));
        let now = Instant::now();
        for proxy in due {
            let waits = self.failing.get(&proxy).is_some_and(|(_, at)| *at > now);
            if waits || tasks.len() >= AT_ONCE || !self.busy.insert(proxy.clone()) {
                continue;
            }
            let worker = Worker {
                store: Arc::clone(&self.store),
                owner: Arc::clone(&self.owner),
                proxy: proxy.clone(),
                retry_interval: self.retry_interval,
                says: !self.failing.contains_key(&proxy),
                stop: stop.clone(),
            };
            tasks.spawn(async move { (proxy, worker.run().await) });
        }
        Ok(())
    }

    /// When the first of those that did not answer is tried again.
    async fn next_try(&self) {
        let idle = self.failing.iter().filter(|(proxy, _)| !self.busy.contains(*proxy));
        match idle.map(|(_, (_, at))| *at).filter(|at| *at > Instant::now()).min() {
            Some(at) => sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let (proxy, told) = match ended {
            Ok(ended) => ended,
            // Nothing is left in a state that could be gone on from.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        self.busy.remove(&proxy);
        if told {
            self.failing.remove(&proxy);
            return;
        }
        let most = self.retry_interval;
        let (backoff, at) =
            self.failing.entry(proxy).or_insert_with(|| (Backoff::up_to(most), Instant::now()));
        *at = Instant::now() + backoff.next();
    }
}

#[cfg(test)]
mod tests;
