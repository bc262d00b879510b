//! `cargo xtask bench reduction`: the second experiment of PiCoP's talk. How many containers many environments take, with and
//! without sharing: a model, fed with what the suite `consumption` has measured.

mod model;
mod page;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::consumption::{self, Consumption};
use super::delay::Connections;
use super::paced::Point;
use super::results::{Extent, Results};
use super::web::Variant;
use super::{Outcome, machine};
use model::{Costs, Count, Scheme, Shape};

pub use page::section;

/// As in the report.
pub const SUITE: &str = "reduction";

const ENVIRONMENTS: [u32; 7] = [1, 2, 5, 10, 20, 50, 100];
const RATES: [u32; 2] = [100, 1000];

/// Compute how many containers environments take with and without sharing, from the last result of `consumption`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End with one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,

    /// From the last quick result of `consumption`.
    #[arg(long)]
    pub quick: bool,

    /// Services of the application; a request passes each.
    #[arg(long, value_name = "N", default_value_t = 10)]
    services: u32,

    /// Services that an environment changes, and brings of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    changed: u32,

    /// CPU time of a service for a request, in microseconds. [default: nginx's, as measured]
    #[arg(long, value_name = "US")]
    service_us: Option<f64>,

    /// Containers of services on a node.
    #[arg(long, value_name = "N", default_value_t = 110)]
    per_node: u32,
}

impl Args {
    /// How much of the suite this is.
    pub fn extent(&self) -> Extent {
        let whole =
            self.services == 10 && self.changed == 1 && self.service_us.is_none() && self.per_node == 110;
        match (whole, self.quick) {
            (false, _) => Extent::Part,
            (true, true) => Extent::Quick,
            (true, false) => Extent::Whole,
        }
    }
}

/// Containers of all schemes, for so many environments at such a rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub rate: u32,
    pub environments: u32,
    pub counts: Vec<(Scheme, Count)>,
}

/// The suite's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reduction {
    pub suite: String,
    pub commit: String,
    pub kernel: String,
    /// The commit of the measurement that it is fed with.
    pub measured: String,
    pub costs: Costs,
    pub shape: Shape,
    pub lines: Vec<Line>,
}

impl Reduction {
    fn json(&self) -> Result<Value> {
        let mut json = serde_json::to_value(self)?;
        let last = self.lines.iter().max_by_key(|line| (line.rate, line.environments)).context("no lines")?;
        let variants: serde_json::Map<_, _> = last
            .counts
            .iter()
            .map(|(scheme, count)| (scheme.name().to_owned(), json!({ "containers": count.all() })))
            .collect();
        json["variants"] = variants.into();
        Ok(json)
    }
}

/// Runs the suite.
pub fn run(args: &Args) -> Result<Outcome> {
    ensure!(
        args.services > 0 && args.changed <= args.services,
        "an environment changes some of its services"
    );
    ensure!(args.per_node > 0, "a node holds some containers");
    let extent = if args.quick { Extent::Quick } else { Extent::Whole };
    let stored = Results::here().last(consumption::SUITE, extent)?.with_context(|| {
        let quick = if args.quick { " --quick" } else { "" };
        format!("nothing measured to feed the model with: run `cargo xtask bench consumption{quick}` first")
    })?;
    let consumption: Consumption = serde_json::from_value(stored)
        .context("the last result of `consumption` is of another version; measure again")?;
    let reduction = compute(args, &consumption)?;
    Ok(Outcome { json: reduction.json()?, text: section(&reduction).plain() })
}

fn compute(args: &Args, consumption: &Consumption) -> Result<Reduction> {
    let mut costs = costs(consumption)?;
    if let Some(us) = args.service_us {
        ensure!(us > 0.0, "a request takes some time");
        costs.service_us = us;
    }
    let shape = Shape {
        services: args.services,
        changed: args.changed,
        cpu_limit: 0.1,
        memory_limit: 128 << 20,
        cpu_target: 0.8,
        per_node: args.per_node,
    };
    let mut lines = Vec::new();
    for rate in RATES {
        for environments in ENVIRONMENTS {
            let count =
                |scheme: Scheme| (scheme, scheme.count(environments, f64::from(rate), &costs, &shape));
            lines.push(Line { rate, environments, counts: Scheme::ALL.map(count).to_vec() });
        }
    }
    Ok(Reduction {
        suite: SUITE.to_owned(),
        commit: machine::commit(),
        kernel: consumption.kernel.clone(),
        measured: consumption.commit.clone(),
        costs,
        shape,
        lines,
    })
}

/// What a request takes, of the measurement with the fewest services at the highest rate that nobody fell behind at:
/// there, what is taken per second and not per request matters least.
fn costs(consumption: &Consumption) -> Result<Costs> {
    let plane = |variant: Variant| {
        let planes = consumption.planes.get(variant.name());
        planes
            .and_then(|planes| planes.values().next())
            .with_context(|| format!("{} was not measured", variant.name()))
    };
    let points = |variant| {
        let points = plane(variant)?.points.get(&Connections::PerRequest);
        points.with_context(|| {
            format!("{} was not measured with a connection for each request", variant.name())
        })
    };
    let variants = [Variant::None, Variant::Direct, Variant::Relay, Variant::Sidecars];
    let kept_up = |rate: u32| -> Result<bool> {
        for variant in variants {
            let requests = consumption.requests(rate) * consumption.rounds as u64;
            if points(variant)?.get(&rate).is_none_or(|point: &Point| point.saturated(requests)) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let mut best = None;
    for rate in points(Variant::None)?.keys() {
        if kept_up(*rate)? {
            best = Some(*rate);
        }
    }
    let rate = best.context("there is no rate at which all kept up")?;
    let at = |variant| Ok::<_, anyhow::Error>(&points(variant)?[&rate]);
    let beside = |variant: Variant| -> Result<f64> {
        let point = at(variant)?;
        Ok((point.added_cpu_us[1] - point.proxy_cpu_us).max(0.0))
    };
    Ok(Costs {
        rate,
        service_us: at(Variant::None)?.server_cpu_us,
        proxy_us: at(Variant::Sidecars)?.proxy_cpu_us,
        proxy_bytes: plane(Variant::Sidecars)?.after.rss,
        proxy_beside_us: beside(Variant::Sidecars)?,
        relay_us: at(Variant::Relay)?.proxy_cpu_us,
        relay_beside_us: beside(Variant::Relay)?,
        direct_beside_us: beside(Variant::Direct)?,
        agent_idle: plane(Variant::Direct)?.idle_cpu_s_per_s,
        agent_bytes: plane(Variant::Relay)?.after.rss + plane(Variant::Relay)?.after.maps,
    })
}

#[cfg(test)]
mod tests {
    use super::super::consumption::tests::consumption;
    use super::*;

    fn args() -> Args {
        super::super::with(&[]).expect("defaults")
    }

    #[test]
    fn costs_are_those_of_the_highest_rate_that_all_kept_up_at() {
        let mut measured = consumption();
        let costs_of = |measured: &Consumption| costs(measured).expect("costs");
        assert_eq!(costs_of(&measured).rate, 5000);
        let envoys = measured.planes.get_mut("envoy-per-service").and_then(|planes| planes.get_mut(&1));
        let points = envoys.and_then(|plane| plane.points.get_mut(&Connections::PerRequest)).expect("points");
        points.get_mut(&5000).expect("a point").missed = 5000;
        let found = costs_of(&measured);
        assert_eq!(found.rate, 1000);
        // 20, 10 and 50 times a request's time, for a hundred requests: see the series of the tests.
        let near =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.03, "{found}, {expected}");
        near(found.service_us, 100.0 * 1.09 * 0.2);
        near(found.relay_us, 200.0 * 1.09 * 0.1);
        near(found.proxy_us, 400.0 * 1.09 * 0.1);
        near(found.relay_beside_us, 100.0 * 1.09 * 0.5 - 200.0 * 1.09 * 0.1);
        assert_eq!(found.proxy_bytes, 32 << 20);
        measured.planes.remove("picop-relay");
        assert!(costs(&measured).is_err());
    }

    #[test]
    fn the_result_has_a_line_for_each_point_and_survives_being_stored() {
        let reduction = compute(&args(), &consumption()).expect("a result");
        assert_eq!(reduction.lines.len(), ENVIRONMENTS.len() * RATES.len());
        let json = reduction.json().expect("JSON");
        assert!(json["variants"]["apart"]["containers"].as_u64().is_some_and(|n| n >= 1000), "{json}");
        let again: Reduction = serde_json::from_value(json).expect("as it was");
        assert_eq!(again.lines, reduction.lines);
    }
}
