//! Tells the hooks, five times before they would give up, that the agent lives.
//!
//! A thread of its own says it, so that a busy machine does not send connections to their base: it does nothing else, and
//! asks for a better place in the scheduler's queue. But it vouches for the data threads, each of which must have
//! shown a sign of life within [`STUCK`]: connections sent to a thread that hangs would hang too.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use picop_common::connect::HEARTBEAT_STALE_NS;

use super::maps::Maps;

/// How long a data thread may show no sign of life: longer than the worst queue for a CPU, shorter than a user's patience.
const STUCK: Duration = Duration::from_secs(3);
/// How often it beats.
pub const INTERVAL: Duration = Duration::from_nanos(HEARTBEAT_STALE_NS / 5);

/// Nanoseconds of `CLOCK_MONOTONIC`: what `bpf_ktime_get_ns` reads.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// The beating heart. Stops when dropped.
#[derive(Debug)]
pub struct Heartbeat {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts beating, as long as these threads live: each says when it last showed that, at least every [`INTERVAL`].
    pub fn start(maps: Arc<Maps>, seen: Vec<Arc<AtomicU64>>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("picop-heartbeat".into()).spawn({
            let stop = Arc::clone(&stop);
            move || beat(&maps, &seen, &stop)
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Heartbeat {
    /// No beat comes after this: what is written next stays.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does not panic, and if it did, it beats no more.
            drop(thread.join());
        }
    }
}

fn beat(maps: &Maps, seen: &[Arc<AtomicU64>], stop: &AtomicBool) {
    // Takes CAP_SYS_NICE; without it the thread queues like any other.
    if let Err(error) = rustix::process::nice(-10) {
        tracing::debug!(%error, "the heartbeat has no better place in the queue");
    }
    let stuck = u64::try_from(STUCK.as_nanos()).unwrap_or(u64::MAX);
    let mut was_stuck = false;
    while !stop.load(Ordering::Relaxed) {
        let now = now_ns();
        let is_stuck = seen.iter().any(|seen| now.saturating_sub(seen.load(Ordering::Relaxed)) > stuck);
        if is_stuck != was_stuck {
            tracing::error!(
                is_stuck,
                "a data thread does not answer; connections go to their base meanwhile"
            );
            was_stuck = is_stuck;
        }
        if !is_stuck && let Err(error) = maps.beat(now) {
            tracing::error!(%error, "cannot write the heartbeat; connections will go to their base");
        }
        thread::park_timeout(INTERVAL);
    }
}
