//! `cargo xtask bench connect`: what a connection costs. Connect, 1 kB there, 1 kB back, close; one after the other.
//!
//! One client process and one server process make all connections of all variants. A variant is the cgroup the client is in
//! while it makes them (what programs run, and what they find), the cgroup the server's socket was made in, and the address.

pub mod stage;
pub mod variant;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::Outcome;
use super::cpu::Usage;
use super::load::{Block, Times};
use super::machine::{self, Ticks};
use super::report::{Measured, Report, Round};
use super::results::Extent;
use super::stats::Random;
use crate::build::Programs;
use crate::setup::Purpose;
use crate::{exec, setup};
use stage::Stage;
use variant::{Variant, WATCHED};

/// Measure what a connection costs: connect, 1 kB there, 1 kB back, close; without picop and by each of its paths.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// A tenth of the rounds: shows whether it works, and little else.
    #[arg(long)]
    quick: bool,

    /// Also the direct path with 1, 1,000 and 100,000 variants loaded.
    #[arg(long)]
    flat: bool,

    /// Also the direct path and the relay while metrics are fetched and traces sent.
    #[arg(long)]
    watched: bool,

    /// Only these variants (and `none`).
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,

    /// Rounds; in each, every variant has its turn.
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: usize,

    /// Connections of a variant in a round.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS)]
    connections: usize,

    /// Client and server on one CPU: no waking of another one, which takes most of the time and varies.
    #[arg(long)]
    one_cpu: bool,

    /// Measure this build of picop, rather than building one.
    #[arg(long, value_name = "PATH")]
    pub picop: Option<PathBuf>,
}

const ROUNDS: usize = 100;
const CONNECTIONS: usize = 200;

impl Args {
    /// How much of the suite this is.
    pub fn extent(&self) -> Extent {
        let whole =
            self.only.is_empty() && self.rounds >= ROUNDS && self.connections >= CONNECTIONS && !self.one_cpu;
        match (whole, self.quick) {
            (false, _) => Extent::Part,
            (true, true) => Extent::Quick,
            (true, false) => Extent::Whole,
        }
    }
}

/// Connections ahead of each turn that are not timed: they find the caches as the last variant has left them.
const WARM_UP: usize = 20;
/// Turns of every variant before the first round.
const WARM_UP_ROUNDS: usize = 3;

/// Runs the suite.
pub fn run(args: &Args, programs: &Programs) -> Result<Outcome> {
    ensure!(args.rounds >= 2 && args.connections >= 1, "a comparison takes two rounds and a connection");
    setup::ensure(&[Purpose::Demo])?;
    super::use_programs(programs)?;
    let variants = variant::chosen(args.flat, args.watched, &args.only)?;
    exec::announce("making a cluster, and starting picop in it");
    let mut stage = Stage::build(&variants, args.one_cpu)?;
    let rounds = if args.quick { args.rounds.div_ceil(10).max(2) } else { args.rounds };
    let report = measure(args, rounds, &mut stage, &variants)?;
    let made = (WARM_UP_ROUNDS + rounds) * (WARM_UP + args.connections);
    stage.check(&variants, made as u64)?;
    stage.remove()?;
    Ok(Outcome { json: report.json(), text: report.text() })
}

fn measure(args: &Args, rounds: usize, stage: &mut Stage, variants: &[Variant]) -> Result<Report> {
    let mut random = Random::new(1);
    for _ in 0..WARM_UP_ROUNDS {
        for variant in variants {
            turn(stage, *variant, args.connections, &mut random)?;
        }
    }
    exec::announce(&format!(
        "measuring: {rounds} rounds of {} connections by each of {} variants",
        args.connections,
        variants.len()
    ));
    let mut measured: Vec<_> = variants.iter().map(|v| Measured::new(v.name())).collect();
    let mut order: Vec<_> = (0..variants.len()).collect();
    let (before, mut own_ns) = (Ticks::read()?, 0);
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for at in &order {
            let round = turn(stage, variants[*at], args.connections, &mut random)?;
            own_ns += round.cpu_ns;
            measured[*at].add(round);
        }
    }
    let after = Ticks::read()?;
    let placed = if args.one_cpu { "on one CPU" } else { "each on a CPU of its own" };
    let flat: Vec<_> = variants.iter().filter(|v| matches!(v, Variant::Flat(_))).map(|v| v.name()).collect();
    let floor = [Variant::DirectPropagate].into_iter().filter(|_| variants.contains(&Variant::Floor));
    let floor = floor.filter(|one| variants.contains(one));
    let watched = WATCHED.iter().filter(|(one, other)| variants.contains(one) && variants.contains(other));
    let besides: Vec<_> = flat
        .iter()
        .skip(1)
        .map(|name| (name.clone(), flat[0].clone()))
        .chain(floor.map(|one| (one.name(), Variant::Floor.name())))
        .chain(watched.map(|(one, other)| (one.name(), other.name())))
        .collect();
    Report::new("connect", &measured, &besides, machine::Load::new(before, after, own_ns), placed)
}

/// A block of a variant's connections.
fn turn(stage: &mut Stage, variant: Variant, connections: usize, random: &mut Random) -> Result<Round> {
    let to = stage.targets(variant, connections + WARM_UP, random)?;
    let header = if variant.sends_header() { Stage::header() } else { String::new() };
    let cgroup = stage.client_cgroup(variant);
    let processes = stage.processes(variant)?;
    // Joins the cgroup, which takes the kernel a while, outside of what is counted.
    stage.client().run(&Block {
        cgroup: &cgroup,
        to: to[..WARM_UP].to_vec(),
        header: &header,
        warm_up: WARM_UP,
        port: None,
    })?;
    let before = Usage::read(&processes)?;
    let block =
        Block { cgroup: &cgroup, to: to[WARM_UP..].to_vec(), header: &header, warm_up: 0, port: None };
    let times: Times = stage.client().run(&block).with_context(|| format!("variant {}", variant.name()))?;
    let cpu_ns = Usage::read(&processes)?.since(&before);
    Ok(Round { times, cpu_ns })
}
