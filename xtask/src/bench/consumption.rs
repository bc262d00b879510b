//! `cargo xtask bench consumption`: what the data plane takes of a node. One node agent, against one proxy for each service.

mod page;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::delay::Connections;
use super::machine::{self, Load, Ticks};
use super::paced::{Point, Series, fine};
use super::progress::Progress;
use super::results::Extent;
use super::stats::Random;
use super::web::{self, Job, Plan, Stage, Variant};
use super::{Outcome, peer};
use crate::build::Programs;
use crate::setup::Purpose;
use crate::{exec, setup};

pub use page::section;
#[cfg(test)]
pub use page::tests;

/// As in the report.
pub const SUITE: &str = "consumption";

/// What is compared.
const VARIANTS: [Variant; 5] =
    [Variant::None, Variant::NoneAgain, Variant::Direct, Variant::Relay, Variant::Sidecars];
const SERVICES: [u16; 3] = [1, 10, 50];
const RATES: [u32; 5] = [100, 500, 1000, 2000, 5000];
const ROUNDS: usize = 4;
/// Each asks one service, and has one request under way.
const CLIENTS: usize = 100;
/// How long nobody asks for anything, to see what that takes.
const IDLE: Duration = Duration::from_secs(3);

/// Measure CPU time and memory of picop's agent, and of one Envoy for each service, at fixed rates.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// Two rounds of half a second, with 1 and 10 services, at 500 and 2,000 requests a second.
    #[arg(long)]
    pub quick: bool,

    /// Only these variants (and `none`).
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,

    /// Services on the node.
    #[arg(long, value_delimiter = ',', value_name = "N", default_values_t = SERVICES)]
    services: Vec<u16>,

    /// Requests a second, of all services together.
    #[arg(long, value_delimiter = ',', value_name = "N", default_values_t = RATES)]
    rates: Vec<u32>,

    /// Rounds; in each, every variant has its turn at each rate.
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: usize,

    /// Seconds of a turn.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,

    /// Measure this build of picop, rather than building one.
    #[arg(long, value_name = "PATH")]
    pub picop: Option<PathBuf>,
}

impl Args {
    /// How much of the suite this is.
    pub fn extent(&self) -> Extent {
        let whole = self.only.is_empty()
            && self.services == SERVICES
            && self.rates == RATES
            && self.rounds >= ROUNDS
            && self.seconds >= 1.0;
        match (whole, self.quick) {
            (false, _) => Extent::Part,
            (true, true) => Extent::Quick,
            (true, false) => Extent::Whole,
        }
    }
}

/// What a data plane holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub rss: u64,
    pub pss: u64,
    /// Kernel memory of picop's maps.
    pub maps: u64,
}

/// One variant with so many services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plane {
    /// Before the first request, and after the last.
    pub before: Held,
    pub after: Held,
    /// CPU seconds a second while nobody asks for anything.
    pub idle_cpu_s_per_s: f64,
    /// By what is done with connections, and by rate.
    pub points: BTreeMap<Connections, BTreeMap<u32, Point>>,
}

/// The suite's result.
#[derive(Debug, Serialize, Deserialize)]
pub struct Consumption {
    pub suite: String,
    pub commit: String,
    pub kernel: String,
    pub rounds: usize,
    /// Of a turn.
    pub seconds: f64,
    /// What else the machine did.
    pub load: String,
    /// By variant, and by number of services.
    pub planes: BTreeMap<String, BTreeMap<u16, Plane>>,
    pub peers: Map<String, Value>,
}

impl Consumption {
    /// As in every suite: with its variants' figures of the fewest services at 1,000 requests a second (or the rate nearest
    /// below, or the lowest), a connection for each.
    pub fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        let mut variants = Map::new();
        for (name, planes) in &self.planes {
            let plane = planes.values().next().with_context(|| format!("{name} was not measured"))?;
            let points =
                plane.points.get(&Connections::PerRequest).context("no connections for each request")?;
            let at = points.range(..=1000).next_back().or_else(|| points.iter().next());
            let (rate, point) = at.with_context(|| format!("{name} was not measured"))?;
            variants.insert(
                name.clone(),
                json!({
                    "rate": rate,
                    "p50_us": point.p50_us,
                    "p99_us": point.p99_us,
                    "cpu_us_per_conn": point.cpu_us,
                    "per_second": point.per_second,
                    "ratio_p50": point.ratio_p50,
                    "proxy_cpu_us_per_conn": point.proxy_cpu_us,
                    "rss": plane.after.rss,
                }),
            );
        }
        json["variants"] = variants.into();
        Ok(json)
    }

    /// Requests of a turn at a rate.
    pub fn requests(&self, rate: u32) -> u64 {
        requests(rate, self.seconds)
    }
}

fn requests(rate: u32, seconds: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of requests")]
    let requests = (f64::from(rate) * seconds).round().max(1.0) as u64;
    requests
}

/// Runs the suite.
pub fn run(args: &Args, programs: &Programs) -> Result<Outcome> {
    ensure!(args.seconds > 0.0 && args.rounds >= 2, "a comparison takes some time, and two rounds");
    ensure!(args.services.iter().all(|n| (1..=50).contains(n)), "from 1 to 50 services");
    ensure!(args.rates.iter().all(|n| (1..=50_000).contains(n)), "from 1 to 50,000 requests a second");
    setup::ensure(&[Purpose::Demo])?;
    super::use_programs(programs)?;
    let consumption = measure(args)?;
    let json = consumption.json()?;
    Ok(Outcome { json, text: section(&consumption)?.plain() })
}

/// What a run consists of.
struct Size {
    services: Vec<u16>,
    rates: Vec<u32>,
    rounds: usize,
    seconds: f64,
}

impl Size {
    fn of(args: &Args) -> Self {
        if args.quick {
            return Self {
                services: vec![1, 10],
                rates: vec![500, 2000],
                rounds: 2,
                seconds: args.seconds / 2.0,
            };
        }
        let (mut services, mut rates) = (args.services.clone(), args.rates.clone());
        services.sort_unstable();
        rates.sort_unstable();
        Self { services, rates, rounds: args.rounds, seconds: args.seconds }
    }
}

fn measure(args: &Args) -> Result<Consumption> {
    let size = Size::of(args);
    let variants = Variant::chosen(&VARIANTS, &args.only)?;
    let programs = web::programs(&variants)?;
    let descriptors = peer::raise_limits(peer::DESCRIPTORS)?;
    let mut planes: BTreeMap<String, BTreeMap<u16, Plane>> = BTreeMap::new();
    let mut peers = Map::new();
    let turns =
        size.rounds * variants.len() * size.rates.len() * Connections::ALL.len() * size.services.len();
    let mut progress = Progress::new(turns);
    let (before, mut own_ns) = (Ticks::read()?, 0);
    for services in &size.services {
        exec::announce(&format!(
            "consumption: {services} services, {:?} requests a second, {} rounds of {} s",
            size.rates, size.rounds, size.seconds
        ));
        let plan =
            Plan { variants: variants.clone(), services: *services, programs: programs.clone(), descriptors };
        let (of_services, programs, ns) = with_services(&plan, &size, &mut progress)?;
        own_ns += ns;
        peers = programs;
        for (variant, plane) in of_services {
            planes.entry(variant.name().to_owned()).or_default().insert(*services, plane);
        }
    }
    let load = Load::new(before, Ticks::read()?, own_ns);
    Ok(Consumption {
        suite: SUITE.to_owned(),
        commit: machine::commit(),
        kernel: machine::kernel()?,
        rounds: size.rounds,
        seconds: size.seconds,
        load: load.sentence(),
        planes,
        peers,
    })
}

type Planes = Vec<(Variant, Plane)>;

fn with_services(
    plan: &Plan,
    size: &Size,
    progress: &mut Progress,
) -> Result<(Planes, Map<String, Value>, u64)> {
    let mut stage = Stage::build(plan)?;
    let held = |stage: &Stage, variant| -> Result<Held> {
        let (sizes, maps) = stage.memory(variant)?;
        Ok(Held { rss: sizes.rss, pss: sizes.pss, maps })
    };
    let mut planes: Planes = Vec::new();
    for variant in &plan.variants {
        let mut plane = Plane { before: held(&stage, *variant)?, ..Plane::default() };
        if variant.is_picop() || variant.proxy().is_some() {
            let ns = stage.idle(*variant, IDLE)?;
            plane.idle_cpu_s_per_s = fine(Duration::from_nanos(ns).as_secs_f64() / IDLE.as_secs_f64());
        }
        planes.push((*variant, plane));
    }
    let mut order = Vec::new();
    for variant in &plan.variants {
        for how in Connections::ALL {
            order.extend(size.rates.iter().map(|rate| (*variant, how, *rate)));
        }
    }
    let mut random = Random::new(u64::from(plan.services));
    let mut series: BTreeMap<_, Series> = BTreeMap::new();
    for _ in 0..size.rounds {
        random.shuffle(&mut order);
        for (variant, how, rate) in &order {
            let job = Job {
                rate: f64::from(*rate),
                requests: requests(*rate, size.seconds),
                clients: CLIENTS,
                keep_alive: *how == Connections::KeepAlive,
                at_once: false,
            };
            let turn = stage.take(*variant, job).with_context(|| format!("{rate} requests a second"))?;
            series.entry((variant.name(), *how, *rate)).or_default().push(turn);
            progress.step();
        }
    }
    for (variant, plane) in &mut planes {
        plane.after = held(&stage, *variant)?;
        for how in Connections::ALL {
            for rate in &size.rates {
                let (own, none) =
                    (&series[&(variant.name(), how, *rate)], &series[&(Variant::None.name(), how, *rate)]);
                let point = Point::of(own, none).with_context(|| format!("{} at {rate}", variant.name()))?;
                plane.points.entry(how).or_default().insert(*rate, point);
            }
        }
    }
    let programs = stage.programs();
    stage.finish()?;
    Ok((planes, programs, series.values().map(Series::cpu_ns).sum()))
}
