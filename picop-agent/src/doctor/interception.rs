//! Interception, really: the agent's own canary in the doctor's scratch cgroup. Nothing else on the node meets the programs.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use aya::Ebpf;
use picop_common::{addr::Endpoint, maps::AgentConf};

use super::{
    check::{Check, Feature, Finding, Spec},
    scratch::Scratch,
};
use crate::{
    intercept::{
        canary::{self, Canary, Status},
        cgroup::CgroupMount,
        heartbeat,
        maps::Maps,
        netns::NetnsThread,
        programs,
    },
    telemetry::chain,
};

const INTERCEPTION: Spec = Spec {
    id: "interception",
    what: "interception works",
    features: &[Feature::Interception],
    required: true,
    consequence: "connections would not reach the agent: `picop run` refuses to start",
};

/// How long the canary may take: on a busy machine its process starts late.
const PATIENCE: Duration = Duration::from_secs(8);

/// What it takes.
pub struct Means<'a> {
    /// With the programs of interception loaded.
    pub ebpf: &'a mut Ebpf,
    /// The cgroup tree.
    pub mount: &'a CgroupMount,
    /// Where to attach.
    pub scratch: &'a Scratch,
    /// For the canary's listener.
    pub netns: &'a NetnsThread,
}

/// The check. Without means, `missing` says what they lack.
pub async fn check(means: Result<Means<'_>, &str>) -> Check {
    let finding = match means {
        Err(why) => Finding::unknown(format!("not tried: {why}")),
        Ok(means) => match try_it(means).await {
            Ok(proof) => verdict(&proof),
            Err(error) => Finding::missing(error),
        },
    };
    INTERCEPTION.found(finding)
}

/// What the canary said, and what the hooks counted meanwhile.
struct Proof {
    status: Status,
    counted: String,
}

fn verdict(proof: &Proof) -> Finding {
    let Proof { status, counted } = proof;
    match status {
        Status::Live => Finding::ok("a process connected through the hooks, IPv4 and v4-mapped"),
        Status::Dead(why) => Finding::missing(format!("{why} (the hooks counted: {counted})")),
        Status::Unknown => Finding::unknown("the canary gave no answer"),
    }
}

async fn try_it(means: Means<'_>) -> Result<Proof, String> {
    let Means { ebpf, mount, scratch, netns } = means;
    let own = mount.own().map_err(|e| chain(&e))?;
    let cgroup = mount.cgroup(scratch.dir()).map_err(|e| chain(&e))?;
    let maps = Arc::new(Maps::take(ebpf).map_err(|e| chain(&e))?);
    let attached = programs::attach(ebpf, &cgroup).map_err(|e| chain(&e))?;
    let mut canary =
        Canary::start(mount, &cgroup, &own, Arc::clone(&maps), netns).await.map_err(|e| chain(&e))?;
    let proof = match prepare(&maps, own.id, canary.level()) {
        Ok(()) => {
            let heartbeat = tokio::spawn(heartbeat::run(Arc::clone(&maps)));
            let status = insist(&mut canary).await;
            heartbeat.abort();
            Ok(Proof { status, counted: counted(&maps) })
        }
        Err(error) => Err(chain(&error)),
    };
    canary.stop().await;
    attached.detach().map_err(|e| format!("the programs cannot be detached: {}", chain(&e)))?;
    proof
}

/// Tells the hooks what the agent would.
fn prepare(maps: &Maps, own: u64, level: u32) -> Result<(), crate::intercept::maps::MapsError> {
    let mut conf = AgentConf { agent_cgroup: own, ..AgentConf::default() };
    conf.levels[0] = level;
    maps.set_agent(conf)?;
    maps.sync_services(HashMap::from([(
        Endpoint::from(canary::ADDRESS),
        picop_common::maps::Service::default(),
    )]))?;
    maps.beat(heartbeat::now_ns())
}

/// Attempts until one succeeds or patience ends.
async fn insist(canary: &mut Canary) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = canary.attempt().await;
        if status == Status::Live || Instant::now() >= deadline {
            return status;
        }
        // An attempt that fails at once must not spin.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn counted(maps: &Maps) -> String {
    match maps.counters() {
        Ok(counters) => {
            let seen: Vec<_> = counters
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| format!("{} {count}", reason.as_str()))
                .collect();
            if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") }
        }
        Err(error) => chain(&error),
    }
}

#[cfg(test)]
mod tests;
