//! The threads that carry connections: one per CPU, each with an event loop of its own.
//!
//! A connection stays on the thread it began on. Threads that steal work from each other wake each other to do so, which a
//! short connection pays for several times over.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::event_loop::{EventLoop, Mailbox, sleep};
use crate::intercept::heartbeat::{self, now_ns};

/// How many more connections than the least busy thread one may have before others take some of its. Above what a client
/// that makes one connection after the other ever has, so that no other CPU is woken for it.
const SLACK: usize = 3;

/// The threads. They end, with whatever they still do, when this is dropped.
#[derive(Debug)]
pub struct DataThreads {
    threads: Vec<Arc<DataThread>>,
    running: Vec<thread::JoinHandle<()>>,
}

/// One of them.
#[derive(Debug)]
pub struct DataThread {
    mailbox: Arc<Mailbox>,
    connections: AtomicUsize,
    /// When it last showed that it works, in nanoseconds of `CLOCK_MONOTONIC`.
    alive: Arc<AtomicU64>,
}

/// A connection that counts as its thread's; no more when dropped.
#[derive(Debug)]
pub struct Place(Arc<DataThread>);

impl DataThreads {
    /// As many as this process may use CPUs.
    pub fn start() -> io::Result<Self> {
        let mut threads = Self { threads: Vec::new(), running: Vec::new() };
        for _ in 0..thread::available_parallelism()?.get() {
            let data = Arc::new(DataThread::new()?);
            let (started_tx, started) = mpsc::channel();
            let run = {
                let data = Arc::clone(&data);
                move || data.run(&started_tx)
            };
            threads.running.push(thread::Builder::new().name("picop-data".into()).spawn(run)?);
            threads.threads.push(data);
            started.recv().map_err(io::Error::other)??;
        }
        Ok(threads)
    }

    /// When each of them last showed that it works.
    pub fn alive(&self) -> Vec<Arc<AtomicU64>> {
        self.threads.iter().map(|thread| Arc::clone(&thread.alive)).collect()
    }

    /// All of them, for whoever gives connections to them.
    pub fn all(&self) -> Vec<Arc<DataThread>> {
        self.threads.clone()
    }
}

impl Drop for DataThreads {
    fn drop(&mut self) {
        self.threads.iter().for_each(|thread| thread.mailbox.stop());
        for thread in self.running.drain(..) {
            // One that panicked has said so itself.
            drop(thread.join());
        }
    }
}

impl DataThread {
    fn new() -> io::Result<Self> {
        Ok(Self {
            mailbox: Arc::new(Mailbox::new()?),
            connections: AtomicUsize::new(0),
            alive: Arc::new(AtomicU64::new(now_ns())),
        })
    }

    fn run(&self, started: &mpsc::Sender<io::Result<()>>) {
        let event_loop = match EventLoop::new(Arc::clone(&self.mailbox)) {
            Ok(event_loop) => event_loop,
            // Nobody is there to be told if the threads are given up already.
            Err(error) => return drop(started.send(Err(error))),
        };
        let alive = Arc::clone(&self.alive);
        self.mailbox.spawn(move || {
            Box::pin(async move {
                loop {
                    alive.store(now_ns(), Ordering::Relaxed);
                    sleep(heartbeat::INTERVAL).await;
                }
            })
        });
        drop(started.send(Ok(())));
        if let Err(error) = event_loop.run() {
            // Its sign of life does not come any more: new connections go to their base.
            tracing::error!(%error, "a data thread cannot go on");
        }
    }

    /// The way in.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
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
    pub fn thread(&self) -> &Arc<DataThread> {
        &self.0
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

    fn threads(count: usize) -> Vec<Arc<DataThread>> {
        (0..count).map(|_| Arc::new(DataThread::new().expect("an eventfd"))).collect()
    }

    #[test]
    fn one_connection_after_the_other_stays_where_it_is_accepted() {
        let threads = threads(2);
        let mut last = None;
        for _ in 0..100 {
            // The one before has yet to end.
            last.replace(Place::find(&threads, &threads[0]));
            assert!(Arc::ptr_eq(&last.as_ref().expect("just put there").0, &threads[0]));
        }
    }

    #[test]
    fn many_at_once_are_spread_evenly() {
        let threads = threads(4);
        let places: Vec<_> = (0..400).map(|_| Place::find(&threads, &threads[1])).collect();
        let loads = || threads.iter().map(|t| t.connections.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert!(loads().iter().all(|load| load.abs_diff(100) <= SLACK), "{:?}", loads());
        drop(places);
        assert_eq!(loads(), [0; 4]);
    }

    #[test]
    fn they_run_what_they_are_given_and_end() {
        let threads = DataThreads::start().expect("threads");
        let (tx, rx) = mpsc::channel();
        for data in threads.all() {
            let tx = tx.clone();
            data.mailbox().spawn(move || {
                Box::pin(async move { tx.send(thread::current().id()).expect("somebody waits") })
            });
        }
        drop(tx);
        let mut ids: Vec<_> = rx.iter().collect();
        ids.dedup();
        assert_eq!(ids.len(), threads.threads.len());
    }
}
