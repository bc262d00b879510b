//! `cargo xtask bench delay`: the first experiment of PiCoP's talk. nginx with a payload of 1,000 bytes, 1,000 requests a second,
//! 1 to 64 clients: without anything in between, with picop, and with the HTTP proxies that users have instead.
//!
//! The rate does not depend on the answers, and a request's time counts from the moment it was meant to be sent.

mod page;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::machine::{self, Load, Ticks};
use super::paced::{Point, Series};
use super::progress::Progress;
use super::results::Extent;
use super::stats::Random;
use super::web::{self, Job, Plan, Stage, Variant};
use super::{Outcome, peer};
use crate::build::Programs;
use crate::setup::Purpose;
use crate::{exec, setup};

pub use page::section;

/// As in the report.
pub const SUITE: &str = "delay";

/// What is compared.
const VARIANTS: [Variant; 7] = [
    Variant::None,
    Variant::NoneAgain,
    Variant::Direct,
    Variant::Relay,
    Variant::Graft,
    Variant::Haproxy,
    Variant::Envoy,
];

/// Measure nginx's response time at a fixed rate: alone, with picop, with HAProxy and with Envoy.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// Two rounds, and half a second in each, of the fewest and the most clients.
    #[arg(long)]
    pub quick: bool,

    /// Only these variants (and `none`).
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,

    /// Requests a second, of all clients together.
    #[arg(long, value_name = "N", default_value_t = 1000.0)]
    rate: f64,

    /// Clients at once.
    #[arg(long, value_delimiter = ',', value_name = "N", default_values_t = CLIENTS)]
    clients: Vec<usize>,

    /// Clients send one after the other at even distances, rather than all at the same moment.
    #[arg(long)]
    even: bool,

    /// Rounds; in each, every variant has its turn.
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: usize,

    /// Seconds of a turn.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,

    /// Measure this build of picop, rather than building one.
    #[arg(long, value_name = "PATH")]
    pub picop: Option<PathBuf>,
}

const CLIENTS: [usize; 4] = [1, 4, 16, 64];
const ROUNDS: usize = 10;

impl Args {
    /// How much of the suite this is.
    pub fn extent(&self) -> Extent {
        let whole = self.only.is_empty()
            && self.clients == CLIENTS
            && self.rounds >= ROUNDS
            && self.seconds >= 1.0
            && (self.rate - 1000.0).abs() < 1e-9
            && !self.even;
        match (whole, self.quick) {
            (false, _) => Extent::Part,
            (true, true) => Extent::Quick,
            (true, false) => Extent::Whole,
        }
    }
}

/// What a client does with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connections {
    /// One for each request, as a shared service needs whose requests are of several environments.
    PerRequest,
    /// One for all.
    KeepAlive,
}

impl Connections {
    /// Both.
    pub const ALL: [Self; 2] = [Self::PerRequest, Self::KeepAlive];

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::PerRequest => "one connection for each request",
            Self::KeepAlive => "lasting connections",
        }
    }
}

/// Points of a variant: by what is done with connections, and by how many clients.
type Points = BTreeMap<Connections, BTreeMap<usize, Point>>;

/// The suite's result.
#[derive(Debug, Serialize, Deserialize)]
pub struct Delay {
    pub suite: String,
    pub commit: String,
    pub kernel: String,
    pub rate: f64,
    /// Whether all clients send at the same moment.
    pub at_once: bool,
    pub rounds: usize,
    /// Of a turn.
    pub seconds: f64,
    /// What else the machine did.
    pub load: String,
    pub points: BTreeMap<String, Points>,
    pub peers: Map<String, Value>,
}

impl Delay {
    /// As in every suite: with its variants' figures of the fewest clients, a connection for each request.
    pub fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        let mut variants = Map::new();
        for (name, points) in &self.points {
            let first = points.get(&Connections::PerRequest).and_then(|by| by.values().next());
            let first = first.with_context(|| format!("{name} was not measured"))?;
            variants.insert(
                name.clone(),
                json!({
                    "p50_us": first.p50_us,
                    "p99_us": first.p99_us,
                    "cpu_us_per_conn": first.cpu_us,
                    "per_second": first.per_second,
                    "ratio_p50": first.ratio_p50,
                }),
            );
        }
        json["variants"] = variants.into();
        Ok(json)
    }
}

/// Runs the suite.
pub fn run(args: &Args, programs: &Programs) -> Result<Outcome> {
    ensure!(
        args.rate > 0.0 && args.seconds > 0.0 && args.rounds >= 2,
        "a comparison takes requests, and two rounds"
    );
    ensure!(args.clients.iter().all(|n| (1..=1000).contains(n)), "from 1 to 1,000 clients");
    setup::ensure(&[Purpose::Demo])?;
    super::use_programs(programs)?;
    let variants = Variant::chosen(&VARIANTS, &args.only)?;
    let plan = Plan {
        programs: web::programs(&variants)?,
        variants,
        services: 1,
        descriptors: peer::raise_limits(peer::DESCRIPTORS)?,
    };
    let delay = measure(args, &plan)?;
    let json = delay.json()?;
    Ok(Outcome { json, text: section(&delay)?.plain() })
}

fn measure(args: &Args, plan: &Plan) -> Result<Delay> {
    let (rounds, seconds) = if args.quick { (2, args.seconds / 2.0) } else { (args.rounds, args.seconds) };
    let mut clients = args.clients.clone();
    clients.sort_unstable();
    clients.dedup();
    if args.quick && clients.len() > 2 {
        clients.drain(1..clients.len() - 1);
    }
    exec::announce("delay: making a cluster, and starting nginx, picop and its peers in it");
    let mut stage = Stage::build(plan)?;
    let kinds: Vec<_> =
        Connections::ALL.iter().flat_map(|how| clients.iter().map(move |n| (*how, *n))).collect();
    let mut order: Vec<_> =
        plan.variants.iter().flat_map(|v| kinds.iter().map(move |kind| (*v, *kind))).collect();
    let job = |(how, clients): (Connections, usize), seconds: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of requests")]
        let requests = (args.rate * seconds).round().max(1.0) as u64;
        Job {
            rate: args.rate,
            requests,
            clients,
            keep_alive: how == Connections::KeepAlive,
            at_once: !args.even,
        }
    };
    exec::announce(&format!(
        "delay: {rounds} rounds of {} variants, with {clients:?} clients, at {} requests a second for {seconds} s",
        plan.variants.len(),
        args.rate
    ));
    for variant in &plan.variants {
        stage.take(*variant, job((Connections::PerRequest, 1), 0.2))?;
    }
    let mut random = Random::new(1);
    let mut series: BTreeMap<_, Series> = BTreeMap::new();
    let mut progress = Progress::new(rounds * order.len());
    let before = Ticks::read()?;
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for (variant, kind) in &order {
            let turn = stage.take(*variant, job(*kind, seconds))?;
            series.entry((variant.name(), *kind)).or_default().push(turn);
            progress.step();
        }
    }
    let load = Load::new(before, Ticks::read()?, series.values().map(Series::cpu_ns).sum());
    let peers = stage.programs();
    stage.finish()?;
    let mut points: BTreeMap<String, Points> = BTreeMap::new();
    for ((name, (how, clients)), own) in &series {
        let yardstick = &series[&(Variant::None.name(), (*how, *clients))];
        let point = Point::of(own, yardstick).with_context(|| format!("{name}, {clients} clients"))?;
        points.entry((*name).to_owned()).or_default().entry(*how).or_default().insert(*clients, point);
    }
    Ok(Delay {
        suite: SUITE.to_owned(),
        commit: machine::commit(),
        kernel: machine::kernel()?,
        rate: args.rate,
        at_once: !args.even,
        rounds,
        seconds,
        load: load.sentence(),
        points,
        peers,
    })
}
