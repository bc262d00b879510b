//! Interception, really: the agent's own canary in the doctor's scratch cgroup. Nothing else on the node meets the programs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aya::Ebpf;

use super::{
    check::{Check, Feature, Finding, Spec},
    scratch::Scratch,
};
use crate::{
    intercept::{
        canary::{Canary, Report, Status},
        cgroup::CgroupMount,
        heartbeat::{self, Heartbeat},
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

const INJECTION: Spec = Spec {
    id: "injection",
    what: "the kernel writes headers",
    features: &[Feature::DirectPath],
    required: false,
    consequence: "connections to services with `header: propagate` are relayed instead",
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

/// The checks. Without means, the error says what they lack.
pub async fn checks(means: Result<Means<'_>, &str>) -> [Check; 2] {
    let (interception, injection) = match means {
        Err(why) => {
            let unknown = || Finding::unknown(format!("not tried: {why}"));
            (unknown(), unknown())
        }
        Ok(means) => match try_it(means).await {
            Ok(proof) => (verdict(&proof), injected(&proof)),
            Err(error) => (Finding::missing(error), Finding::unknown("not tried: nothing is intercepted")),
        },
    };
    [INTERCEPTION.found(interception), INJECTION.found(injection)]
}

/// What the canary said, and what the hooks counted meanwhile.
struct Proof {
    report: Report,
    counted: String,
}

fn verdict(proof: &Proof) -> Finding {
    let Proof { report, counted } = proof;
    match &report.interception {
        Status::Live => Finding::ok("a process connected through the hooks, IPv4 and v4-mapped"),
        Status::Dead(why) => Finding::missing(format!("{why} (the hooks counted: {counted})")),
        Status::Unknown => Finding::unknown("the canary gave no answer"),
        Status::Slow(why) => Finding::unknown(why.clone()),
    }
}

fn injected(proof: &Proof) -> Finding {
    let Proof { report, counted } = proof;
    match &report.injection {
        Status::Live => Finding::ok("in front of the first bytes, once, and the socket is plain afterwards"),
        Status::Dead(why) => Finding::missing(format!("{why} (the hooks counted: {counted})")),
        Status::Unknown => Finding::unknown("the canary gave no answer"),
        Status::Slow(why) => Finding::unknown(why.clone()),
    }
}

async fn try_it(means: Means<'_>) -> Result<Proof, String> {
    let Means { ebpf, mount, scratch, netns } = means;
    let own = mount.own().map_err(|e| chain(&e))?;
    let cgroup = mount.cgroup(scratch.dir()).map_err(|e| chain(&e))?;
    programs::attach_to_socks(ebpf).map_err(|e| chain(&e))?;
    let maps = Arc::new(Maps::take(ebpf).map_err(|e| chain(&e))?);
    let attached = programs::attach(ebpf, &cgroup).map_err(|e| chain(&e))?;
    let mut canary =
        Canary::start(mount, &cgroup, &own, Arc::clone(&maps), netns).await.map_err(|e| chain(&e))?;
    let proof = match (prepare(&maps, own.id, &canary), Heartbeat::start(Arc::clone(&maps), Vec::new())) {
        (Ok(()), Ok(_beating)) => {
            let report = insist(&mut canary).await;
            Ok(Proof { report, counted: counted(&maps) })
        }
        (Err(error), _) => Err(chain(&error)),
        (_, Err(error)) => Err(format!("the heartbeat does not start: {error}")),
    };
    canary.stop().await;
    attached.detach();
    proof
}

/// Tells the hooks what the agent would.
fn prepare(maps: &Maps, own: u64, canary: &Canary) -> Result<(), crate::intercept::maps::MapsError> {
    let (_, level) = canary.place();
    maps.set_agent(|conf| {
        conf.agent_cgroup = own;
        conf.levels[0] = level;
    })?;
    maps.switch_routes(&canary.routes())?;
    maps.beat(heartbeat::now_ns())
}

/// Attempts until one succeeds or patience ends.
async fn insist(canary: &mut Canary) -> Report {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = canary.attempt().await;
        let live = report.interception == Status::Live && report.injection == Status::Live;
        if live || Instant::now() >= deadline {
            return report;
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
