//! `cargo xtask bench relay`: what it costs that a program between client and server carries the bytes, and what the proxies
//! cost that users have instead.
//!
//! One client process and one server process make all connections. A variant is what is between the two.

mod idle;
mod peer;
mod report;
mod stage;
mod turn;
mod variant;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::Outcome;
use super::load::Direction;
use super::machine::{Load, Ticks};
use super::results::Extent;
use super::stats::Random;
use crate::build::Programs;
use crate::setup::Purpose;
use crate::{exec, setup};
use peer::Program;
use report::{Report, Results};
use stage::{Plan, Stage};
use turn::{Kind, Series};
use variant::Variant;

/// Measure picop's relay beside no proxy, nginx, HAProxy and Envoy: connections, requests, streams, and memory.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// A tenth of the rounds, and less in them: shows whether it works, and whether something is much slower.
    #[arg(long)]
    quick: bool,

    /// Only these variants (and `none`).
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,

    /// Only these measurements.
    #[arg(long, value_delimiter = ',', value_name = "WHAT", value_enum)]
    measure: Vec<Measure>,

    /// Only so many clients at once, of those that connections and requests are measured with.
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = clients())]
    clients: Vec<usize>,

    /// Rounds; in each, every variant has its turn. (Streams have a sixth of that.)
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: usize,

    /// Bytes of a stream, in GB (10^9).
    #[arg(long, value_name = "GB", default_value_t = 1.0)]
    stream_gb: f64,

    /// Connections that are held open to see what they take.
    #[arg(long, value_name = "N", default_value_t = IDLE)]
    idle: usize,

    /// Let picop write its line for each connection, as it does by default. The peers write none by default.
    #[arg(long)]
    access_lines: bool,

    /// Also the relay while metrics are fetched and traces sent.
    #[arg(long)]
    watched: bool,

    /// Measure this build of picop, rather than building one.
    #[arg(long, value_name = "PATH")]
    pub picop: Option<PathBuf>,
}

const ROUNDS: usize = 60;
const IDLE: usize = 10_000;

impl Args {
    /// How much of the suite this is.
    pub fn extent(&self) -> Extent {
        let whole = self.only.is_empty()
            && self.measure.is_empty()
            && self.clients.is_empty()
            && self.rounds >= ROUNDS
            && self.stream_gb >= 1.0
            && self.idle >= IDLE
            && !self.access_lines;
        match (whole, self.quick) {
            (false, _) => Extent::Part,
            (true, true) => Extent::Quick,
            (true, false) => Extent::Whole,
        }
    }
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Measure {
    /// Connections with one request each, of 1, 8 and 64 clients.
    Conn,
    /// Requests over 1 and 64 lasting connections.
    Keepalive,
    /// A stream each way.
    Bulk,
    /// Memory of idle connections.
    Idle,
    /// What a connection costs by the bytes it carries: from which size on a graft pays. Only if asked for.
    Sizes,
}

/// Clients at once, and connections of a turn.
const CONNECTIONS: [(usize, usize); 3] = [(1, 200), (8, 600), (64, 1200)];
/// The same, and requests of a turn.
const REQUESTS: [(usize, usize); 2] = [(1, 500), (64, 3000)];
/// Bytes of a connection, and connections of a turn.
const SIZES: [(u64, usize); 7] = [
    (4 << 10, 200),
    (16 << 10, 200),
    (64 << 10, 200),
    (256 << 10, 100),
    (1 << 20, 60),
    (4 << 20, 30),
    (16 << 20, 10),
];
/// As an argument: one of the numbers above.
fn clients() -> impl TypedValueParser<Value = usize> {
    PossibleValuesParser::new(["1", "8", "64"]).map(|text| text.parse().expect("one of these numbers"))
}

/// Turns of every variant before the first round.
const WARM_UP_ROUNDS: usize = 2;
/// Rounds for each round of streams.
const ROUNDS_PER_STREAM: usize = 6;

/// Runs the suite.
pub fn run(args: &Args, programs: &Programs) -> Result<Outcome> {
    ensure!(args.rounds >= 2 && args.idle >= 1, "a comparison takes two rounds and a connection");
    ensure!(args.stream_gb > 0.0 && args.stream_gb < 1000.0, "a stream takes some bytes, and not too many");
    setup::ensure(&[Purpose::Demo])?;
    let plan = plan(args, &programs.picop)?;
    super::use_programs(programs)?;
    let report = measure(args, &plan)?;
    Ok(Outcome { json: report.json(), text: report.text() })
}

/// The variants that can be had here. One that was asked for by name must be.
fn plan(args: &Args, picop: &std::path::Path) -> Result<Plan> {
    let knows_graft = knows_graft(picop)?;
    let mut plan = Plan {
        variants: Vec::new(),
        peers: Vec::new(),
        knows_graft,
        access_lines: args.access_lines,
        descriptors: super::peer::raise_limits(super::peer::DESCRIPTORS)?,
    };
    for variant in variant::chosen(args.watched, &args.only)? {
        let found = if variant.is_peer() {
            Program::find(variant).map(Some)
        } else if variant == Variant::Graft && !knows_graft {
            Err(anyhow::anyhow!("this picop's route files have no key `graft`"))
        } else {
            Ok(None)
        };
        match found {
            Ok(program) => {
                plan.variants.push(variant);
                plan.peers.extend(program);
            }
            Err(error) if args.only.is_empty() => peer::left_out(variant, &error),
            Err(error) => return Err(error.context(format!("{} cannot be measured", variant.name()))),
        }
    }
    Ok(plan)
}

/// Whether services of a route file may say whether to graft.
fn knows_graft(picop: &std::path::Path) -> Result<bool> {
    let schema = exec::capture(Command::new(picop).arg("schema"))?;
    let schema: serde_json::Value = serde_json::from_str(&schema).context("reading picop's schema")?;
    let service = schema.pointer("/$defs/Service/properties").context("picop's schema has no services")?;
    Ok(service.get("graft").is_some())
}

fn measure(args: &Args, plan: &Plan) -> Result<Report> {
    let wanted = |what| {
        if args.measure.is_empty() { what != Measure::Sizes } else { args.measure.contains(&what) }
    };
    let rounds = if args.quick { args.rounds.div_ceil(10).max(2) } else { args.rounds };
    exec::announce("making a cluster, and starting picop and its peers in it");
    let mut stage = Stage::build(plan)?;
    let mut results = Results::new(&plan.variants);
    let (before, began) = (Ticks::read()?, results.cpu_ns());
    for (what, kinds) in kinds(args).into_iter().filter(|(what, of)| wanted(*what) && !of.is_empty()) {
        let rounds = if what == Measure::Bulk { (rounds / ROUNDS_PER_STREAM).max(2) } else { rounds };
        let names: Vec<_> = kinds.iter().map(Kind::describe).collect();
        exec::announce(&format!("{rounds} rounds of {}", names.join(", ")));
        let warm_up = if what == Measure::Bulk { 0 } else { WARM_UP_ROUNDS };
        alternate(&mut stage, &plan.variants, &kinds, warm_up, rounds, &mut results)?;
    }
    let load = Load::new(before, Ticks::read()?, results.cpu_ns() - began);
    stage.check()?;
    if wanted(Measure::Bulk) {
        stage.peers().iter().try_for_each(peer::Peer::check_splicing)?;
    }
    results.peers(stage.peers());
    stage.remove()?;
    if wanted(Measure::Idle) {
        let connections = held(args, plan.descriptors)?;
        exec::announce(&format!(
            "{connections} idle connections by each variant, through programs started anew"
        ));
        let all = plan.variants.iter().copied().filter(|v| v.is_picop() || v.is_peer());
        // One agent does both of picop's: what the first needs the second finds there.
        let (grafted, others): (Vec<_>, Vec<_>) = all.partition(|variant| *variant == Variant::Graft);
        for variants in [others, grafted].into_iter().filter(|variants| !variants.is_empty()) {
            let mut stage = Stage::build(plan)?;
            for variant in variants {
                results.idle(variant, idle::measure(&mut stage, variant, connections)?);
            }
            stage.check()?;
            results.peers(stage.peers());
            stage.remove()?;
        }
    }
    Report::new(results, load)
}

/// How many connections to hold: not more than a program between client and server may have descriptors for.
fn held(args: &Args, descriptors: u64) -> Result<usize> {
    let wanted = if args.quick { args.idle.div_ceil(5) } else { args.idle };
    let possible = usize::try_from(super::peer::connections(descriptors))?;
    if wanted > possible {
        exec::announce(&format!(
            "not {wanted} idle connections but {possible}: a process may have no more than {descriptors} descriptors here"
        ));
    }
    Ok(wanted.min(possible))
}

/// What a round consists of.
fn kinds(args: &Args) -> [(Measure, Vec<Kind>); 4] {
    let share = |count: usize, clients: usize| {
        if args.quick { count.div_ceil(2).max(clients) } else { count }
    };
    let measured = |(clients, _): &(usize, usize)| args.clients.is_empty() || args.clients.contains(clients);
    let gb = if args.quick { args.stream_gb / 2.0 } else { args.stream_gb };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be some bytes")]
    let bytes = (gb * 1e9) as u64;
    [
        (
            Measure::Conn,
            CONNECTIONS
                .into_iter()
                .filter(measured)
                .map(|(clients, count)| Kind::Connections { clients, count: share(count, clients) })
                .collect(),
        ),
        (
            Measure::Keepalive,
            REQUESTS
                .into_iter()
                .filter(measured)
                .map(|(clients, count)| Kind::Requests { clients, count: share(count, clients) })
                .collect(),
        ),
        (Measure::Bulk, Direction::ALL.map(|direction| Kind::Stream { direction, bytes }).to_vec()),
        (
            Measure::Sizes,
            SIZES
                .iter()
                .flat_map(|(bytes, count)| {
                    let count = share(*count, 1);
                    Direction::ALL.map(|direction| Kind::Transfers { direction, bytes: *bytes, count })
                })
                .collect(),
        ),
    ]
}

/// Rounds in which every variant has a turn of each kind, in any order.
fn alternate(
    stage: &mut Stage,
    variants: &[Variant],
    kinds: &[Kind],
    warm_up: usize,
    rounds: usize,
    results: &mut Results,
) -> Result<()> {
    let mut random = Random::new(1);
    let mut order: Vec<_> =
        variants.iter().copied().flat_map(|v| kinds.iter().map(move |k| (v, *k))).collect();
    order.retain(|(variant, kind)| variant.does(*kind));
    let mut series: Vec<_> =
        order.iter().map(|(variant, kind)| (*variant, *kind, Series::default())).collect();
    for round in 0..warm_up + rounds {
        random.shuffle(&mut order);
        for (variant, kind) in &order {
            let turn = turn::take(stage, *variant, *kind)
                .with_context(|| format!("{}: {}", variant.name(), kind.describe()))?;
            let own = series.iter_mut().find(|(v, k, _)| v == variant && k == kind);
            if let (Some((_, _, series)), true) = (own, round >= warm_up) {
                series.push(turn);
            }
        }
    }
    results.add(series);
    Ok(())
}
