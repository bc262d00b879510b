//! The threads that carry connections: one per CPU, each with a runtime of its own.
//!
//! A connection stays on the thread it began on. Runtimes that steal work from each other wake each other to do so, which a
//! short connection pays for several times over.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// How many more connections than the least busy thread one may have before others take some of its. Above what a client
/// that makes one connection after the other ever has, so that no other CPU is woken for it.
const SLACK: usize = 3;

/// The threads. They end, with whatever they still do, when this is dropped.
#[derive(Debug)]
pub struct DataThreads {
    threads: Vec<Arc<DataThread>>,
    running: Vec<thread::JoinHandle<()>>,
    stop: CancellationToken,
}

/// One of them.
#[derive(Debug)]
pub struct DataThread {
    runtime: Handle,
    connections: AtomicUsize,
}

/// A connection that counts as its thread's; no more when dropped.
#[derive(Debug)]
pub struct Place(Arc<DataThread>);

impl DataThreads {
    /// As many as this process may use CPUs.
    pub fn start() -> io::Result<Self> {
        let mut threads = Self { threads: Vec::new(), running: Vec::new(), stop: CancellationToken::new() };
        for _ in 0..thread::available_parallelism()?.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            threads.threads.push(Arc::new(DataThread {
                runtime: runtime.handle().clone(),
                connections: AtomicUsize::new(0),
            }));
            let stop = threads.stop.clone();
            let run = move || runtime.block_on(stop.cancelled_owned());
            threads.running.push(thread::Builder::new().name("picop-data".into()).spawn(run)?);
        }
        Ok(threads)
    }

    /// Their runtimes.
    pub fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.threads.iter().map(|thread| &thread.runtime)
    }

    /// All of them, for whoever gives connections to them.
    pub fn all(&self) -> Vec<Arc<DataThread>> {
        self.threads.clone()
    }
}

impl Drop for DataThreads {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.running.drain(..) {
            // One that panicked has said so itself.
            drop(thread.join());
        }
    }
}

impl DataThread {
    /// Its runtime.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Place {
    /// For a connection that was accepted on `home`.
    pub fn find(threads: &[Arc<DataThread>], home: &Arc<DataThread>) -> Self {
        let load = |thread: &Arc<DataThread>| thread.connections.load(Ordering::Relaxed);
        let here = load(home);
        let least = if here <= SLACK { None } else { threads.iter().min_by_key(|thread| load(thread)) };
        let place = least.filter(|thread| load(thread) + SLACK < here).unwrap_or(home);
        place.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(place))
    }

    /// Where it is.
    pub fn runtime(&self) -> Handle {
        self.0.runtime.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(runtime: &Handle, count: usize) -> Vec<Arc<DataThread>> {
        let new = || DataThread { runtime: runtime.clone(), connections: AtomicUsize::new(0) };
        (0..count).map(|_| Arc::new(new())).collect()
    }

    #[test]
    fn one_connection_after_the_other_stays_where_it_is_accepted() {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let threads = threads(runtime.handle(), 2);
        let mut last = None;
        for _ in 0..100 {
            // The one before has yet to end.
            last.replace(Place::find(&threads, &threads[0]));
            assert!(Arc::ptr_eq(&last.as_ref().expect("just put there").0, &threads[0]));
        }
    }

    #[test]
    fn many_at_once_are_spread_evenly() {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let threads = threads(runtime.handle(), 4);
        let places: Vec<_> = (0..400).map(|_| Place::find(&threads, &threads[1])).collect();
        let loads = || threads.iter().map(|t| t.connections.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert!(loads().iter().all(|load| load.abs_diff(100) <= SLACK), "{:?}", loads());
        drop(places);
        assert_eq!(loads(), [0; 4]);
    }

    #[test]
    fn they_run_what_they_are_given_and_end() {
        let threads = DataThreads::start().expect("threads");
        let (tx, rx) = std::sync::mpsc::channel();
        for runtime in threads.runtimes() {
            let tx = tx.clone();
            runtime.spawn(async move { tx.send(thread::current().id()).expect("somebody waits") });
        }
        drop(tx);
        let mut ids: Vec<_> = rx.iter().collect();
        ids.dedup();
        assert_eq!(ids.len(), threads.threads.len());
    }
}
