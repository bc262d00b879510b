//! What must be looked after while the agent runs: whether the kernel may write headers, whether there is room for more
//! enrolled sockets, whether somebody else rewrites connects too; and telling what went wrong in the kernel.

use std::{fs::File, io, os::fd::AsFd as _, sync::Arc, time::Duration};

use aya_obj::generated::bpf_attach_type::BPF_CGROUP_INET4_CONNECT;
use picop_common::{
    connect::{Event, Reason},
    maps::{AGENT_FULL, AGENT_INJECT, AGENT_REVERSE, AGENT_TELL, SOCKS_FULL},
};
use tokio::sync::watch;

use super::{
    canary::{Report, Status},
    cgroup::Cgroup,
    maps::Maps,
};
use crate::{sys, telemetry::chain};

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Events that mean a connection did not get what it should have.
const BAD: [Event; 4] = [Event::EnrolFailed, Event::InjectFailed, Event::HeaderMissed, Event::NoOriginal];

/// What the hooks may do whatever is found.
#[derive(Clone, Debug)]
pub struct Always {
    /// Bits `AGENT_*`.
    pub flags: u32,
    /// Whether the agent is to be told of each connection.
    pub tell: bool,
    /// Otherwise, of how many in 2^32.
    pub sampled: u32,
    /// How many others want to hear of them.
    pub listeners: watch::Receiver<usize>,
}

impl Always {
    /// Bits `AGENT_*`, and of how many connections to tell.
    fn wanted(&mut self) -> (u32, u32) {
        let all = self.tell || *self.listeners.borrow_and_update() > 0;
        let share = if all { u32::MAX } else { self.sampled };
        (self.flags | if share > 0 { AGENT_TELL } else { 0 }, share)
    }
}

/// Who is told of what is found.
#[derive(Debug)]
pub struct Tell {
    /// Whether the first canary report's consequences are in effect.
    pub settled: watch::Sender<bool>,
    /// Whether another program may rewrite connects before ours see them.
    pub translation: watch::Sender<bool>,
}

/// Looks after it all until dropped. `own` are the ids of the agent's own programs. It tells those
/// in `tell` what is found.
pub async fn run(
    maps: Arc<Maps>,
    root: Cgroup,
    own: Vec<u32>,
    mut always: Always,
    mut canary_rx: watch::Receiver<Report>,
    tell: Tell,
) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut events_seen, mut reasons_seen) = (vec![0; Event::COUNT], vec![0; Reason::COUNT]);
    let mut flags = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            Ok(()) = canary_rx.changed() => {}
            Ok(()) = always.listeners.changed() => {}
        }
        let report = canary_rx.borrow_and_update().clone();
        let (kept, share) = always.wanted();
        let now = kept | may_inject(&report.injection, maps.agent_flags()) | found(&maps, &root, &own);
        let told = maps.set_agent(|conf| {
            conf.flags = now;
            conf.tell_share = share;
        });
        let translated = now & AGENT_REVERSE != 0;
        tell.translation.send_if_modified(|said| std::mem::replace(said, translated) != translated);
        match told {
            Ok(()) => {
                let settled = report.injection != Status::Unknown;
                if settled {
                    say(flags.replace(now), now, &report);
                }
                tell.settled.send_replace(settled);
            }
            Err(error) => tracing::error!(error = chain(&error), "cannot tell the hooks what they may do"),
        }
        let lost = maps.grafts.sweep();
        if lost > 0 {
            tracing::warn!(lost, "connections that could have been grafted were never accepted");
        }
        if let Ok(events) = maps.events() {
            for (event, connections) in grown(events, &mut events_seen) {
                let name = event.as_str();
                if BAD.contains(&event) {
                    tracing::warn!(event = name, connections, "connections went wrong");
                } else {
                    tracing::debug!(event = name, connections, "counted");
                }
            }
        }
        if let Ok(reasons) = maps.counters() {
            for (reason, connections) in grown(reasons, &mut reasons_seen) {
                tracing::debug!(reason = reason.as_str(), connections, "counted");
            }
        }
    }
}

/// The counters that are higher than they were when last seen, and by how much.
fn grown<T>(counts: Vec<(T, u64)>, seen: &mut [u64]) -> Vec<(T, u64)> {
    let differences = counts.into_iter().zip(seen).map(|((name, count), seen)| {
        let before = std::mem::replace(seen, count);
        (name, count.saturating_sub(before))
    });
    differences.filter(|(_, more)| *more > 0).collect()
}

/// Whether the kernel may write headers. As long as nothing is known, what was in effect stays: nothing for programs just
/// loaded; for adopted ones what the last agent's canary found, about these programs in this kernel. (Relayed until then,
/// connections would depend on an agent that they have no need of, and end with it.) Three rounds of the canary at most: see `Steady`.
fn may_inject(found: &Status, before: u32) -> u32 {
    match found {
        Status::Live => AGENT_INJECT,
        Status::Unknown => before & AGENT_INJECT,
        Status::Dead(_) | Status::Slow(_) => 0,
    }
}

fn found(maps: &Maps, root: &Cgroup, own: &[u32]) -> u32 {
    let mut flags = 0;
    if maps.enrolled() >= SOCKS_FULL {
        flags |= AGENT_FULL;
    }
    if others(root, own).unwrap_or(false) {
        flags |= AGENT_REVERSE;
    }
    flags
}

/// Whether other programs on the same cgroup may have rewritten a connect before ours sees it. Those of its ancestors run
/// after ours.
fn others(root: &Cgroup, own: &[u32]) -> io::Result<bool> {
    let dir = File::open(&root.dir)?;
    Ok(sys::attached_programs(dir.as_fd(), BPF_CGROUP_INET4_CONNECT)?.iter().any(|id| !own.contains(id)))
}

/// Says what has changed; at first, what there is.
fn say(before: Option<u32>, now: u32, report: &Report) {
    let changed = before.map_or(now | AGENT_INJECT, |before| before ^ now);
    if changed & AGENT_INJECT != 0 {
        match &report.injection {
            Status::Dead(why) | Status::Slow(why) => tracing::warn!(
                why,
                "the kernel does not write headers; connections to services with `header: propagate` are relayed"
            ),
            Status::Live | Status::Unknown => {
                tracing::info!(
                    "the kernel writes headers: connections to services with `header: propagate` are direct"
                );
            }
        }
    }
    if changed & AGENT_FULL != 0 && now & AGENT_FULL != 0 {
        tracing::warn!("many sockets wait to send their header; further connections with one are relayed");
    }
    if changed & AGENT_REVERSE != 0 && now & AGENT_REVERSE != 0 {
        tracing::info!(
            "another program rewrites connects too; service addresses it has translated are recognised"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_by_what_is_known() {
        let others = AGENT_FULL | AGENT_REVERSE | AGENT_TELL;
        let why = || "it said so".to_owned();
        for (found, before, flags) in [
            (Status::Unknown, 0, 0),
            (Status::Unknown, others, 0),
            (Status::Unknown, AGENT_INJECT | others, AGENT_INJECT),
            (Status::Live, 0, AGENT_INJECT),
            (Status::Live, AGENT_INJECT | others, AGENT_INJECT),
            (Status::Dead(why()), AGENT_INJECT | others, 0),
            (Status::Slow(why()), AGENT_INJECT, 0),
        ] {
            assert_eq!(may_inject(&found, before), flags, "{found:?}, {before}");
        }
    }
}
