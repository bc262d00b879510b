//! `cargo xtask bench gateway`: `picop gateway http`, which finds an environment in each request's host, beside nginx and Envoy,
//! which route by host.
//!
//! Each has one worker, on a CPU of its own; client and server share another. Clients ask again as soon as they are answered.

mod configuration;
mod page;
mod stage;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Outcome;
use super::load::Closed;
use super::machine::{self, Load, Ticks};
use super::peer::{self, Kind, Program};
use super::progress::Progress;
use super::report::{rounded, triple};
use super::results::Extent;
use super::stats::{Estimate, Random, median, percentile};
use crate::build::Programs;
use crate::setup::Purpose;
use crate::{exec, setup};
use stage::{Stage, Turn};

pub use page::section;

/// As in the report.
pub const SUITE: &str = "gateway";

/// Measure picop's gateway for HTTP beside nginx and Envoy: requests a second, and CPU time of a request.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// Four rounds, of half as many requests.
    #[arg(long)]
    pub quick: bool,

    /// Only these variants (and `nginx`).
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_enum)]
    only: Vec<Variant>,

    /// Only these uses of connections.
    #[arg(long, value_delimiter = ',', value_name = "HOW", value_enum)]
    how: Vec<How>,

    /// Rounds; in each, every variant has its turn.
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: usize,

    /// Let picop write its line for each request, as it does by default. The peers write none.
    #[arg(long)]
    access_lines: bool,

    /// Measure this build of picop, rather than building one.
    #[arg(long, value_name = "PATH")]
    pub picop: Option<PathBuf>,

    /// And another one beside it, of before a change, say.
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
}

const ROUNDS: usize = 20;
const QUICK_ROUNDS: usize = 4;
const WARM_UP_ROUNDS: usize = 1;

impl Args {
    /// How much of the suite this is.
    pub fn extent(&self) -> Extent {
        let whole = self.before.is_none()
            && self.only.is_empty()
            && self.how.is_empty()
            && self.rounds >= ROUNDS
            && !self.access_lines;
        match (whole, self.quick) {
            (false, _) => Extent::Part,
            (true, true) => Extent::Quick,
            (true, false) => Extent::Whole,
        }
    }
}

/// What is between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Variant {
    /// Nothing: what client and server could do together.
    None,
    /// The yardstick.
    Nginx,
    /// The same process again.
    NginxAgain,
    Envoy,
    Picop,
    /// Another build of picop.
    #[value(skip)]
    PicopBefore,
    /// A proxy that is hyper and nothing else: what picop's HTTP library costs.
    HyperFloor,
}

impl Variant {
    const ALL: [Self; 7] = [
        Self::None,
        Self::Nginx,
        Self::NginxAgain,
        Self::Envoy,
        Self::Picop,
        Self::PicopBefore,
        Self::HyperFloor,
    ];

    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Nginx => "nginx",
            Self::NginxAgain => "nginx-again",
            Self::Envoy => "envoy",
            Self::Picop => "picop",
            Self::PicopBefore => "picop-before",
            Self::HyperFloor => "hyper-floor",
        }
    }

    /// Whether it can do that. The server behind the gateways speaks HTTP/1.1. The floor is the least for a request; for a
    /// connection it is not.
    fn does(self, how: How) -> bool {
        match self {
            Self::None => how != How::Http2,
            Self::HyperFloor => how == How::KeepAlive,
            Self::Nginx | Self::NginxAgain | Self::Envoy | Self::Picop | Self::PicopBefore => true,
        }
    }
}

/// What clients do with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// One for each request.
    PerRequest,
    /// HTTP/1.1, kept.
    KeepAlive,
    /// HTTP/2.
    Http2,
}

impl How {
    /// All.
    pub const ALL: [Self; 3] = [Self::KeepAlive, Self::PerRequest, Self::Http2];

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::PerRequest => "HTTP/1.1, a connection for each request, 32 at once",
            Self::KeepAlive => "HTTP/1.1, 64 lasting connections",
            Self::Http2 => "HTTP/2, 4 connections with 16 requests at once",
        }
    }

    fn job(self) -> Job {
        let job = |connections, streams, requests| Job { how: self, connections, streams, requests };
        match self {
            Self::PerRequest => job(32, 1, 3000),
            Self::KeepAlive => job(64, 1, 6000),
            Self::Http2 => job(4, 16, 6000),
        }
    }
}

/// What to do in a turn.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub how: How,
    pub connections: usize,
    /// Requests at once on each.
    pub streams: usize,
    pub requests: usize,
}

/// What became of a variant's turns of one kind. Intervals as [low, median, high].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    pub p50_us: f64,
    pub p99_us: f64,
    /// Requests a second.
    pub per_second: [f64; 3],
    /// Requests for each second of CPU time of what is between; not of `none`.
    pub per_cpu_second: Option<[f64; 3]>,
    /// CPU time of a request: of what is between, of the server, of the client.
    pub gateway_cpu_us: f64,
    pub server_cpu_us: f64,
    pub client_cpu_us: f64,
    /// How busy what is between was: 1 is all of its CPU.
    pub gateway_busy: f64,
    /// `per_cpu_second` to the yardstick's, turn by turn.
    pub ratio_per_cpu: Option<[f64; 3]>,
    /// The same, to the better peer's.
    pub ratio_per_cpu_better: Option<[f64; 3]>,
    /// `per_second` to the yardstick's, turn by turn.
    pub ratio_per_second: [f64; 3],
    /// To the better peer's.
    pub ratio_per_second_better: Option<[f64; 3]>,
    /// The median time to the yardstick's, turn by turn.
    pub ratio_p50: [f64; 3],
}

/// The suite's result.
#[derive(Debug, Serialize, Deserialize)]
pub struct Gateway {
    pub suite: String,
    pub commit: String,
    pub kernel: String,
    pub rounds: usize,
    /// Environments, each with a host of its own.
    pub hosts: usize,
    pub access_lines: bool,
    /// What else the machine did.
    pub load: String,
    pub points: BTreeMap<String, BTreeMap<How, Point>>,
    pub peers: Map<String, Value>,
}

impl Gateway {
    /// As in every suite: with its variants' figures of one kind.
    fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        let mut variants = Map::new();
        for (name, points) in &self.points {
            let point = points.get(&How::KeepAlive).or_else(|| points.values().next());
            let point = point.with_context(|| format!("{name} was not measured"))?;
            variants.insert(
                name.clone(),
                json!({
                    "p50_us": point.p50_us,
                    "p99_us": point.p99_us,
                    "cpu_us_per_conn": point.gateway_cpu_us,
                    "per_second": point.per_second[1],
                    "per_cpu_second": point.per_cpu_second,
                    "ratio_p50": point.ratio_p50,
                }),
            );
        }
        json["variants"] = variants.into();
        Ok(json)
    }
}

/// Runs the suite.
pub fn run(args: &Args, programs: &Programs) -> Result<Outcome> {
    ensure!(args.rounds >= 2, "a comparison takes two rounds");
    setup::ensure(&[Purpose::Demo])?;
    super::use_programs(programs)?;
    let wanted = |variant: &Variant| match variant {
        Variant::Nginx => true,
        Variant::PicopBefore => args.before.is_some(),
        _ => args.only.is_empty() || args.only.contains(variant),
    };
    let variants: Vec<_> = Variant::ALL.into_iter().filter(wanted).collect();
    let envoy = variants.contains(&Variant::Envoy).then(|| Program::find(Kind::Envoy)).transpose()?;
    let peers = stage::Peers { nginx: Program::find(Kind::Nginx)?, envoy };
    let gateway = measure(args, &variants, &peers, peer::raise_limits(peer::DESCRIPTORS)?)?;
    Ok(Outcome { json: gateway.json()?, text: section(&gateway).plain() })
}

fn measure(args: &Args, variants: &[Variant], peers: &stage::Peers, descriptors: u64) -> Result<Gateway> {
    let rounds = if args.quick { args.rounds.min(QUICK_ROUNDS) } else { args.rounds };
    exec::announce("gateway: making a cluster, and starting a server and the gateways in it");
    let mut stage = Stage::build(variants, peers, args.before.as_deref(), descriptors, args.access_lines)?;
    let kinds: Vec<_> =
        How::ALL.into_iter().filter(|how| args.how.is_empty() || args.how.contains(how)).collect();
    let possible = |(variant, how): &(Variant, How)| variant.does(*how);
    let mut order: Vec<_> =
        variants.iter().flat_map(|v| kinds.iter().map(move |how| (*v, *how))).filter(possible).collect();
    exec::announce(&format!("gateway: {rounds} rounds of {} turns", order.len()));
    let mut random = Random::new(1);
    let mut turns: BTreeMap<(Variant, How), Vec<Turn>> = BTreeMap::new();
    let mut progress = Progress::new((WARM_UP_ROUNDS + rounds) * order.len());
    let mut before = Ticks::read()?;
    let all_rounds = rounds + WARM_UP_ROUNDS;
    for round in 0..all_rounds {
        if round == WARM_UP_ROUNDS {
            before = Ticks::read()?;
        }
        random.shuffle(&mut order);
        for (variant, how) in &order {
            let mut job = how.job();
            if args.quick {
                job.requests /= 2;
            }
            let turn = stage
                .take(*variant, job)
                .with_context(|| format!("{}, {}", variant.name(), how.describe()))?;
            if round >= WARM_UP_ROUNDS {
                turns.entry((*variant, *how)).or_default().push(turn);
            }
            progress.step();
        }
    }
    let measured =
        turns.values().flatten().map(|turn| turn.gateway_ns + turn.server_ns + turn.client_ns).sum();
    let load = Load::new(before, Ticks::read()?, measured);
    let (programs, hosts) = (stage.programs(), stage.hosts());
    stage.finish()?;
    let mut points: BTreeMap<String, BTreeMap<How, Point>> = BTreeMap::new();
    for (variant, how) in turns.keys() {
        let point = Point::of(&turns, *variant, *how)
            .with_context(|| format!("{}, {}: no figures", variant.name(), how.describe()))?;
        points.entry(variant.name().to_owned()).or_default().insert(*how, point);
    }
    Ok(Gateway {
        suite: SUITE.to_owned(),
        commit: machine::commit(),
        kernel: machine::kernel()?,
        rounds,
        hosts,
        access_lines: args.access_lines,
        load: load.sentence(),
        points,
        peers: programs,
    })
}

impl Turn {
    fn per_second(&self) -> f64 {
        self.count() / seconds(self.met.elapsed)
    }

    fn per_cpu_second(&self) -> Option<f64> {
        (self.gateway_ns > 0).then(|| self.count() / seconds(self.gateway_ns))
    }

    fn p50_us(&self) -> Option<f64> {
        percentile(&mut micros(&self.met), 50.0)
    }

    fn count(&self) -> f64 {
        f64::from(u32::try_from(self.met.whole.len()).unwrap_or(u32::MAX))
    }

    fn us_of(&self, ns: u64) -> f64 {
        seconds(ns) * 1e6 / self.count()
    }
}

impl Point {
    fn of(turns: &BTreeMap<(Variant, How), Vec<Turn>>, variant: Variant, how: How) -> Option<Self> {
        let own = turns.get(&(variant, how))?;
        let yardstick = turns.get(&(Variant::Nginx, how))?;
        let envoy = turns.get(&(Variant::Envoy, how));
        let each = |of: &dyn Fn(&Turn) -> f64| own.iter().map(of).collect::<Vec<_>>();
        let interval = |samples: &[f64]| Estimate::of(samples).map(triple);
        let mid = |of: &dyn Fn(&Turn) -> f64| median(&mut each(of)).map(rounded);
        let to_yardstick = |of: fn(&Turn) -> Option<f64>| -> Option<[f64; 3]> {
            let pairs = own.iter().zip(yardstick).map(|(own, other)| Some(of(own)? / of(other)?));
            interval(&pairs.collect::<Option<Vec<_>>>()?)
        };
        // Which peer is better is decided by all rounds, not by each: the better of two noisy ones is better than either.
        let to_better = |of: fn(&Turn) -> Option<f64>| -> Option<[f64; 3]> {
            let all = |turns: &[Turn]| turns.iter().map(of).collect::<Option<Vec<_>>>();
            let typical = |turns: &[Turn]| median(&mut all(turns)?);
            let better = if typical(envoy?)? > typical(yardstick)? { envoy? } else { yardstick };
            let pairs: Vec<_> = all(own)?.iter().zip(all(better)?).map(|(own, other)| own / other).collect();
            interval(&pairs)
        };
        let mut whole: Vec<_> = own.iter().flat_map(|turn| micros(&turn.met)).collect();
        Some(Self {
            p50_us: rounded(percentile(&mut whole, 50.0)?),
            p99_us: rounded(percentile(&mut whole, 99.0)?),
            per_second: interval(&each(&Turn::per_second))?,
            per_cpu_second: own
                .iter()
                .map(Turn::per_cpu_second)
                .collect::<Option<Vec<_>>>()
                .and_then(|each| interval(&each)),
            gateway_cpu_us: mid(&|turn| turn.us_of(turn.gateway_ns))?,
            server_cpu_us: mid(&|turn| turn.us_of(turn.server_ns))?,
            client_cpu_us: mid(&|turn| turn.us_of(turn.client_ns))?,
            gateway_busy: mid(&|turn| seconds(turn.gateway_ns) / seconds(turn.met.elapsed))?,
            ratio_per_cpu: to_yardstick(Turn::per_cpu_second),
            ratio_per_cpu_better: to_better(Turn::per_cpu_second),
            ratio_per_second: to_yardstick(|turn| Some(turn.per_second()))?,
            ratio_per_second_better: to_better(|turn| Some(turn.per_second())),
            ratio_p50: to_yardstick(Turn::p50_us)?,
        })
    }
}

fn micros(met: &Closed) -> Vec<f64> {
    met.whole.iter().map(|ns| f64::from(*ns) / 1000.0).collect()
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}
