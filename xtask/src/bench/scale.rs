//! `cargo xtask bench scale`: whether it stays as it is when there is much of it: routes, environments, connections.

mod held;
mod loaded;
mod page;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::connect::variant::Size;
use super::load::{Block, Client, Way};
use super::machine::{self, Load, Ticks};
use super::report::{Measured, Round, Row};
use super::results::Extent;
use super::{Outcome, cpu};
use crate::build::Programs;
use crate::exec;

pub use page::section;

/// As in the report.
pub const SUITE: &str = "scale";

/// Services of the tables that grow by environments.
const SERVICES: u16 = 10;
/// The tables that grow by routes: one for each service and environment.
const ROUTES: [Size; 6] = [
    Size { services: 1, environments: 1 },
    Size { services: 10, environments: 1 },
    Size { services: 100, environments: 1 },
    Size { services: 1000, environments: 1 },
    Size { services: 1000, environments: 10 },
    Size { services: 10_000, environments: 10 },
];
const ENVIRONMENTS: [u16; 4] = [1, 10, 100, 1000];
const CONNECTIONS: [usize; 5] = [1, 100, 1000, 10_000, 50_000];

/// Measure latency, memory and the time of an update with many routes, environments and connections.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// A fifth of the rounds; up to 10,000 routes, 100 environments, 5,000 connections.
    #[arg(long)]
    pub quick: bool,

    /// Only these.
    #[arg(long, value_delimiter = ',', value_name = "WHAT", value_enum)]
    measure: Vec<Measure>,

    /// Rounds; in each, every size has its turn of 100 connections.
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: usize,

    /// Updates of the route file with each size.
    #[arg(long, value_name = "N", default_value_t = UPDATES)]
    updates: usize,

    /// Most connections held.
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    connections: usize,

    /// Measure this build of picop, rather than building one.
    #[arg(long, value_name = "PATH")]
    pub picop: Option<PathBuf>,
}

/// What can be much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    Routes,
    Environments,
    Connections,
}

const ROUNDS: usize = 50;
const UPDATES: usize = 5;

impl Args {
    /// How much of the suite this is.
    pub fn extent(&self) -> Extent {
        let whole = self.measure.is_empty()
            && self.rounds >= ROUNDS
            && self.updates >= UPDATES
            && self.connections >= 50_000;
        match (whole, self.quick) {
            (false, _) => Extent::Part,
            (true, true) => Extent::Quick,
            (true, false) => Extent::Whole,
        }
    }

    fn wants(&self, what: Measure) -> bool {
        self.measure.is_empty() || self.measure.contains(&what)
    }
}

/// Connections, one after the other, at one size. Ratios are to the same path at the smallest size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    pub p50_us: f64,
    pub p99_us: f64,
    pub per_second: f64,
    pub cpu_us_per_conn: f64,
    pub ratio_p50: [f64; 3],
}

impl Timing {
    fn of(measured: &Measured, first: &Measured) -> Result<Self> {
        let row = Row::new(measured, first).context("nothing was measured")?;
        Ok(serde_json::from_value(row.json())?)
    }
}

/// A path through picop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    None,
    Direct,
    Relay,
}

impl Path {
    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Direct => "direct",
            Self::Relay => "relay",
        }
    }
}

/// A table of some size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loaded {
    pub services: u16,
    pub environments: u16,
    pub timings: BTreeMap<Path, Timing>,
    /// The agent's memory and that of its maps, in kB.
    pub agent_rss_kb: u64,
    pub maps_kb: u64,
    /// The route file's size.
    pub file_bytes: u64,
    /// From the file's change to the begin of the first connection that was routed by it, in milliseconds, each.
    pub updates_ms: Vec<f64>,
}

/// So many connections that do nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    pub path: Path,
    pub connections: usize,
    /// Of connections beside them.
    pub timing: Timing,
    /// The agent's memory, that of its maps, and the kernel's slab caches (of the whole machine), in kB.
    pub agent_rss_kb: u64,
    pub maps_kb: u64,
    pub slab_kb: u64,
    /// How long it took to open them, for each, in microseconds.
    pub opening_us: f64,
}

/// The suite's result.
#[derive(Debug, Serialize, Deserialize)]
pub struct Scale {
    pub suite: String,
    pub commit: String,
    pub kernel: String,
    pub load: String,
    pub routes: Vec<Loaded>,
    pub environments: Vec<Loaded>,
    pub connections: Vec<Held>,
    /// The smallest number again, after the largest.
    pub again: Vec<Held>,
}

impl Scale {
    /// As in every suite: each size is a variant.
    pub fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        let mut variants = serde_json::Map::new();
        for (what, tables) in [("routes", &self.routes), ("environments", &self.environments)] {
            for table in tables {
                let size = if what == "routes" {
                    u32::from(table.services) * u32::from(table.environments)
                } else {
                    u32::from(table.environments)
                };
                for (path, timing) in &table.timings {
                    variants.insert(format!("{what}-{size}-{}", path.name()), serde_json::to_value(timing)?);
                }
            }
        }
        for held in &self.connections {
            let name = format!("connections-{}-{}", held.connections, held.path.name());
            variants.insert(name, serde_json::to_value(&held.timing)?);
        }
        json["variants"] = variants.into();
        json["memory_unit"] = json!("kB");
        Ok(json)
    }
}

/// Runs the suite.
pub fn run(args: &Args, programs: &Programs) -> Result<Outcome> {
    anyhow::ensure!(args.rounds >= 2 && args.updates >= 1, "a comparison takes two rounds, and an update");
    anyhow::ensure!((1..=50_000).contains(&args.connections), "from 1 to 50,000 connections");
    super::use_programs(programs)?;
    let rounds = if args.quick { args.rounds.div_ceil(5).max(2) } else { args.rounds };
    let updates = if args.quick { args.updates.min(2) } else { args.updates };
    let (before, mut own_ns) = (Ticks::read()?, 0);
    let mut tables = [Vec::new(), Vec::new()];
    let by_environments: Vec<_> = ENVIRONMENTS
        .iter()
        .map(|environments| Size { services: SERVICES, environments: *environments })
        .collect();
    for (into, (what, sizes)) in tables.iter_mut().zip([
        (Measure::Routes, if args.quick { vec![ROUTES[0], ROUTES[4]] } else { ROUTES.to_vec() }),
        (
            Measure::Environments,
            if args.quick { vec![by_environments[0], by_environments[2]] } else { by_environments },
        ),
    ]) {
        if args.wants(what) {
            exec::announce(&format!(
                "scale, {what:?}: {} sizes, an agent for each; {rounds} rounds, {updates} updates",
                sizes.len()
            ));
            let (loaded, ns) = loaded::measure(&sizes, rounds, updates)?;
            *into = loaded;
            own_ns += ns;
        }
    }
    let (mut connections, mut again) = (Vec::new(), Vec::new());
    if args.wants(Measure::Connections) {
        let most = if args.quick { args.connections.min(5000) } else { args.connections };
        let mut numbers: Vec<_> = CONNECTIONS.iter().copied().filter(|n| *n < most).collect();
        if args.quick {
            numbers.truncate(1);
        }
        numbers.push(most);
        exec::announce(&format!("scale, connections: {numbers:?} held by each path"));
        let (held, second, ns) = held::measure(&numbers, rounds)?;
        (connections, again) = (held, second);
        own_ns += ns;
    }
    let [routes, environments] = tables;
    let scale = Scale {
        suite: SUITE.to_owned(),
        commit: machine::commit(),
        kernel: machine::kernel()?,
        load: Load::new(before, Ticks::read()?, own_ns).sentence(),
        routes,
        environments,
        connections,
        again,
    };
    Ok(Outcome { json: scale.json()?, text: section(&scale).plain() })
}

/// Connections of a turn, and those ahead of them that do not count.
const TURN: usize = 100;
const WARM_UP: usize = 10;

/// A turn of connections to one address after the other.
fn turn(client: &mut Client, way: &Way, to: &[std::net::SocketAddr], processes: &[u32]) -> Result<Round> {
    let block = |to: &[std::net::SocketAddr]| Block {
        cgroup: &way.cgroup,
        to: to.to_vec(),
        header: &way.header,
        warm_up: 0,
        port: Some(way.port),
    };
    client.run(&block(&to[..WARM_UP]))?;
    let before = cpu::Usage::read(processes)?;
    let times = client.run(&block(&to[WARM_UP..]))?;
    let cpu_ns = cpu::Usage::read(processes)?.since(&before);
    Ok(Round { times, cpu_ns })
}
