//! What would make a connection go another way: the same decision on changed facts.

use std::net::SocketAddr;

use picop_common::{
    connect::{Decision, HEARTBEAT_STALE_NS, Reason},
    maps::{AGENT_FULL, WORKLOAD_BYPASS, WORKLOAD_RELAY},
    route::{BASE, environment_key},
};

use super::{Otherwise, probe::Probe, reason_of};
use crate::route::RouteTable;

/// Other environments that are told of.
const ENVIRONMENTS: usize = 5;

/// Changes that would lead elsewhere.
pub fn changes(probe: &Probe<'_>, table: &RouteTable, now: &Decision) -> Vec<Otherwise> {
    let mut all = Vec::new();
    let mut consider = |change: String, probe: &Probe<'_>| {
        let (then, _) = probe.decide();
        if then != *now {
            all.push(Otherwise { change, then: outcome(&then) });
        }
    };
    let Some(workload) = probe.workload else {
        return all;
    };
    let of = |flags, environment| {
        let workload = picop_common::maps::Workload { flags, environment, ..workload };
        Probe { workload: Some(workload), ..probe.clone() }
    };
    if workload.flags & WORKLOAD_BYPASS != 0 {
        consider(
            "the workload were not bypassed".into(),
            &of(workload.flags & !WORKLOAD_BYPASS, workload.environment),
        );
    }
    if workload.flags & WORKLOAD_RELAY != 0 {
        consider(
            "the workload had no `path: relay`".into(),
            &of(workload.flags & !WORKLOAD_RELAY, workload.environment),
        );
    }
    if workload.environment != BASE {
        consider("the workload had no environment".into(), &of(workload.flags, BASE));
    }
    let service = table.service_at(&SocketAddr::from(probe.service_address()));
    let mut names: Vec<_> = service.iter().flat_map(|service| service.variants.keys()).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    let others = names.into_iter().map(|name| (name, environment_key(name.as_str().as_bytes())));
    for (name, key) in others.filter(|(_, key)| *key != workload.environment).take(ENVIRONMENTS) {
        consider(format!("the workload were of environment {name}"), &of(workload.flags, key));
    }
    consider(
        "the agent did not answer".into(),
        &Probe { heartbeat_age_ns: HEARTBEAT_STALE_NS + 1, ..probe.clone() },
    );
    consider("the socket used TCP Fast Open".into(), &Probe { fast_open: true, ..probe.clone() });
    consider(
        "the socket were bound to an interface".into(),
        &Probe { bound_to_device: true, ..probe.clone() },
    );
    let full = Probe { agent_flags: probe.agent_flags | AGENT_FULL, ..probe.clone() };
    consider("too many sockets waited to send their header".into(), &full);
    all
}

fn outcome(decision: &Decision) -> String {
    let why = reason_of(decision).as_str();
    match decision {
        Decision::Pass(_) => format!("left alone ({why})"),
        Decision::Refuse(_) => format!("refused ({why})"),
        Decision::Relay { reason: Reason::RelayWait, .. } => format!("waits at the agent ({why})"),
        Decision::Relay { .. } => format!("relayed ({why})"),
        Decision::Direct { to, watch: true, .. } => {
            format!("direct, to {} or another of its group ({why})", SocketAddr::from(*to))
        }
        Decision::Direct { to, .. } => format!("direct, to {} ({why})", SocketAddr::from(*to)),
    }
}
