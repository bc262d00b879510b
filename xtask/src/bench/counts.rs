//! `cargo xtask bench counts`: what does not depend on how busy the machine is, or less: how long the kernel's programs ran for
//! a connection, and how many instructions the header codec takes.

mod codec;
mod page;
mod programs;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::connect::stage::Stage;
use super::connect::variant::{self, Variant};
use super::load::Block;
use super::paced::fine;
use super::results::Extent;
use super::stats::Random;
use super::{Outcome, machine};
use crate::build::Programs;
use crate::exec;
use programs::{Runs, Watch};

pub use page::section;

/// As in the report.
pub const SUITE: &str = "counts";

/// Count: how long each eBPF program ran for a connection, and the header codec's instructions.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// A tenth of the connections.
    #[arg(long)]
    pub quick: bool,

    /// Connections of each path.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS)]
    connections: usize,

    /// Measure this build of picop, rather than building one.
    #[arg(long, value_name = "PATH")]
    pub picop: Option<PathBuf>,
}

const CONNECTIONS: usize = 20_000;
/// Of a block; between blocks the paths alternate.
const BLOCK: usize = 500;

impl Args {
    /// How much of the suite this is.
    pub fn extent(&self) -> Extent {
        match (self.connections >= CONNECTIONS, self.quick) {
            (false, _) => Extent::Part,
            (true, true) => Extent::Quick,
            (true, false) => Extent::Whole,
        }
    }
}

/// A program's part in a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub runs: f64,
    pub ns: f64,
}

/// The suite's result.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counts {
    pub suite: String,
    pub commit: String,
    pub kernel: String,
    pub connections: usize,
    /// By path, and by program: for a connection.
    pub programs: BTreeMap<String, BTreeMap<String, Part>>,
    /// Instructions of the header codec, each time. Empty where they cannot be counted.
    pub codec: BTreeMap<String, f64>,
    /// Why not.
    pub codec_missing: Option<String>,
    /// Whether this machine's CPU counts instructions itself.
    pub hardware_counters: bool,
}

impl Counts {
    fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        let variants: serde_json::Map<_, _> = self
            .programs
            .iter()
            .map(|(path, programs)| {
                let ns: f64 = programs.values().map(|part| part.ns).sum();
                (
                    path.clone(),
                    json!({ "program_ns_per_conn": fine(ns), "cpu_us_per_conn": fine(ns / 1000.0) }),
                )
            })
            .collect();
        json["variants"] = variants.into();
        Ok(json)
    }
}

/// Runs the suite.
pub fn run(args: &Args, programs: &Programs) -> Result<Outcome> {
    ensure!(args.connections >= 1, "a count takes a connection");
    super::use_programs(programs)?;
    let connections = if args.quick { args.connections.div_ceil(10) } else { args.connections };
    let by_path = count_programs(connections)?;
    exec::announce("counts: instructions of the header codec, under valgrind");
    let (codec, codec_missing) = match codec::count(&programs.hop, args.quick) {
        Ok(codec) => (codec, None),
        Err(error) => (BTreeMap::new(), Some(format!("{error:#}"))),
    };
    let counts = Counts {
        suite: SUITE.to_owned(),
        commit: machine::commit(),
        kernel: machine::kernel()?,
        connections,
        programs: by_path,
        codec,
        codec_missing,
        hardware_counters: codec::hardware_counters(),
    };
    Ok(Outcome { json: counts.json()?, text: section(&counts).plain() })
}

/// What each path's connections make the programs do.
fn count_programs(connections: usize) -> Result<BTreeMap<String, BTreeMap<String, Part>>> {
    let variants: Vec<_> = variant::chosen(false, false, &[])?
        .into_iter()
        .filter(|variant| *variant != Variant::NoneAgain)
        .collect();
    exec::announce(&format!("counts: {connections} connections by each of {} paths", variants.len()));
    let mut stage = Stage::build(&variants, false)?;
    let watch = Watch::start(stage.agent_pid()?)?;
    let mut random = Random::new(1);
    let mut sums: BTreeMap<String, BTreeMap<String, Runs>> = BTreeMap::new();
    let blocks = connections.div_ceil(BLOCK);
    for number in 0..blocks {
        let count = BLOCK.min(connections - number * BLOCK);
        for variant in &variants {
            let before = watch.read()?;
            let to = stage.targets(*variant, count, &mut random)?;
            let header = if variant.sends_header() { Stage::header() } else { String::new() };
            let cgroup = stage.client_cgroup(*variant);
            let block = Block { cgroup: &cgroup, to, header: &header, warm_up: 0, port: None };
            stage.client().run(&block).with_context(|| format!("path {}", variant.name()))?;
            let after = watch.read()?;
            let sums = sums.entry(variant.name()).or_default();
            for (program, runs) in after {
                let earlier = before.get(&program).copied().unwrap_or_default();
                *sums.entry(program).or_default() += runs - earlier;
            }
        }
    }
    stage.check(&variants, connections as u64)?;
    drop(watch);
    stage.remove()?;
    let per = |runs: &Runs| {
        #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of seconds")]
        let each = |n: u64| n as f64 / connections as f64;
        Part { runs: fine(each(runs.count)), ns: fine(each(runs.ns)) }
    };
    let path = |(path, programs): (String, BTreeMap<String, Runs>)| {
        // What ran now and then is the canary's.
        let own = programs.iter().map(|(program, runs)| (program.clone(), per(runs)));
        (path, own.filter(|(_, part)| part.runs >= 0.05).collect())
    };
    Ok(sums.into_iter().map(path).collect())
}
