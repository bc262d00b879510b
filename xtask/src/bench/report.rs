//! A suite's result, for people and for programs.

pub mod table;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::load::Times;
use super::machine::{self, Load};
use super::stats::{Estimate, median, percentile};

/// What all others are compared with.
pub const YARDSTICK: &str = "none";
/// The yardstick a second time.
pub const AGAIN: &str = "none-again";

/// One variant's turn in a round.
#[derive(Clone, Debug)]
pub struct Round {
    pub times: Times,
    /// CPU time of all of it, on both sides and between.
    pub cpu_ns: u64,
}

/// A part of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Whole,
    Connect,
    FirstByte,
    Close,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Whole, Self::Connect, Self::FirstByte, Self::Close];

    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Connect => "connect",
            Self::FirstByte => "first_byte",
            Self::Close => "close",
        }
    }

    fn of(self, times: &Times) -> &[u32] {
        match self {
            Self::Whole => &times.whole,
            Self::Connect => &times.connect,
            Self::FirstByte => &times.first_byte,
            Self::Close => &times.close,
        }
    }
}

/// All rounds of one variant, in the order they were made.
#[derive(Clone, Debug)]
pub struct Measured {
    name: String,
    rounds: Vec<Round>,
}

impl Measured {
    /// None yet.
    pub fn new(name: String) -> Self {
        Self { name, rounds: Vec::new() }
    }

    /// Adds a round.
    pub fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// CPU time of all rounds.
    pub fn cpu_ns(&self) -> u64 {
        self.rounds.iter().map(|round| round.cpu_ns).sum()
    }

    /// The median of each round, in microseconds.
    fn medians(&self, phase: Phase) -> Option<Vec<f64>> {
        self.rounds.iter().map(|round| median(&mut micros(phase.of(&round.times)))).collect()
    }

    /// A percentile over all rounds, in microseconds.
    fn percentile(&self, phase: Phase, percent: f64) -> Option<f64> {
        let mut all: Vec<_> = self.rounds.iter().flat_map(|round| micros(phase.of(&round.times))).collect();
        percentile(&mut all, percent)
    }

    /// CPU time of a connection, per round, in microseconds.
    fn cpu(&self) -> Vec<f64> {
        let of = |round: &Round| {
            let (total, connections) =
                (as_float(round.cpu_ns / 1000), as_float(round.times.whole.len() as u64));
            total / connections.max(1.0)
        };
        self.rounds.iter().map(of).collect()
    }

    /// Connections a second, while it was its turn.
    fn per_second(&self) -> f64 {
        let per_round =
            self.rounds.iter().map(|Round { times, .. }| (times.whole.len() as u64, times.elapsed));
        let (count, elapsed) = per_round.fold((0, 0), |(n, sum), (more, ns)| (n + more, sum + ns));
        as_float(count) / Duration::from_nanos(elapsed).as_secs_f64()
    }
}

/// A variant beside the yardstick.
#[derive(Debug)]
pub struct Row {
    name: String,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    /// More CPU time than the yardstick, per connection, in microseconds.
    added_cpu_us: Estimate,
    per_second: f64,
    /// Median in microseconds, and ratio to the yardstick's: [`Phase::ALL`].
    phases: [(f64, Estimate); 4],
}

impl Row {
    /// Compares. `None` where something was not measured.
    pub fn new(of: &Measured, yardstick: &Measured) -> Option<Self> {
        let mut phases = Vec::new();
        for phase in Phase::ALL {
            phases.push((of.percentile(phase, 50.0)?, ratio(of, yardstick, phase)?));
        }
        let (cpu, other) = (of.cpu(), yardstick.cpu());
        let added: Vec<_> = cpu.iter().zip(&other).map(|(cpu, other)| cpu - other).collect();
        Some(Self {
            name: of.name.clone(),
            p50_us: of.percentile(Phase::Whole, 50.0)?,
            p99_us: of.percentile(Phase::Whole, 99.0)?,
            cpu_us: median(&mut cpu.clone())?,
            added_cpu_us: Estimate::of(&added)?,
            per_second: of.per_second(),
            phases: phases.try_into().ok()?,
        })
    }

    /// Ratio of the whole connection's median.
    fn ratio(&self) -> Estimate {
        self.phases[0].1
    }

    /// As in every suite.
    pub fn json(&self) -> Value {
        let phases: serde_json::Map<_, _> = Phase::ALL
            .iter()
            .zip(&self.phases)
            .map(|(phase, (p50, ratio))| {
                (phase.name().to_owned(), json!({ "p50_us": rounded(*p50), "ratio_p50": triple(*ratio) }))
            })
            .collect();
        json!({
            "p50_us": rounded(self.p50_us),
            "p99_us": rounded(self.p99_us),
            "cpu_us_per_conn": rounded(self.cpu_us),
            "per_second": rounded(self.per_second),
            "ratio_p50": triple(self.ratio()),
            "added_cpu_us_per_conn": triple(self.added_cpu_us),
            "phases": phases,
        })
    }
}

/// The ratio of the medians, round by round: what disturbs a round disturbs both.
fn ratio(of: &Measured, to: &Measured, phase: Phase) -> Option<Estimate> {
    let ratios: Vec<_> = of.medians(phase)?.iter().zip(to.medians(phase)?).map(|(a, b)| a / b).collect();
    Estimate::of(&ratios)
}

/// A suite's result.
#[derive(Debug)]
pub struct Report {
    suite: &'static str,
    commit: String,
    kernel: String,
    /// Where client and server ran.
    placed: &'static str,
    load: Load,
    rows: Vec<Row>,
    /// Variants compared with one that is not the yardstick: name, the other's, and the ratio.
    besides: Vec<(String, String, Estimate)>,
}

impl Report {
    /// Compares all with the yardstick. `besides` are (variant, other) to be compared as well.
    pub fn new(
        suite: &'static str,
        measured: &[Measured],
        besides: &[(String, String)],
        load: Load,
        placed: &'static str,
    ) -> Result<Self> {
        let find = |name: &str| {
            measured.iter().find(|m| m.name == name).with_context(|| format!("{name} was not measured"))
        };
        let yardstick = find(YARDSTICK)?;
        let mut rows = Vec::new();
        for variant in measured {
            ensure!(variant.rounds.len() == yardstick.rounds.len(), "{} has other rounds", variant.name);
            rows.push(
                Row::new(variant, yardstick).with_context(|| format!("{} has no samples", variant.name))?,
            );
        }
        let mut compared = Vec::new();
        for (name, other) in besides {
            let estimate = ratio(find(name)?, find(other)?, Phase::Whole).context("no samples")?;
            compared.push((name.clone(), other.clone(), estimate));
        }
        Ok(Self {
            suite,
            commit: machine::commit(),
            kernel: machine::kernel()?,
            placed,
            load,
            rows,
            besides: compared,
        })
    }

    /// One object; its form is that of all suites.
    pub fn json(&self) -> Value {
        let variants: serde_json::Map<_, _> =
            self.rows.iter().map(|row| (row.name.clone(), row.json())).collect();
        json!({ "suite": self.suite, "commit": self.commit, "kernel": self.kernel, "variants": variants })
    }
}

/// An interval, for programs.
pub fn triple(estimate: Estimate) -> [f64; 3] {
    [estimate.low, estimate.median, estimate.high].map(|value| (value * 1e4).round() / 1e4)
}

/// A number, for programs.
pub fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn micros(nanos: &[u32]) -> Vec<f64> {
    nanos.iter().map(|ns| f64::from(*ns) / 1000.0).collect()
}

/// Exact up to 2^32; what is larger does not come up.
fn as_float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
