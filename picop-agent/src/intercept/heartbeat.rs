//! Tells the hooks, five times before they would give up, that the agent lives.

use std::{sync::Arc, time::Duration};

use picop_common::connect::HEARTBEAT_STALE_NS;

use super::maps::Maps;

/// Nanoseconds of `CLOCK_MONOTONIC`: what `bpf_ktime_get_ns` reads.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Beats until dropped. Runs on the data plane's runtime: when that hangs, connections are no longer sent to it.
pub async fn run(maps: Arc<Maps>) {
    let mut tick = tokio::time::interval(Duration::from_nanos(HEARTBEAT_STALE_NS / 5));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = maps.beat(now_ns()) {
            tracing::error!(%error, "cannot write the heartbeat; connections will go to their base");
        }
    }
}
