//! Requests at a fixed rate: what a turn of them met, and what is made of all turns.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::load::Paced;
use super::report::{rounded, triple};
use super::stats::{Estimate, median, percentile};

/// One variant's turn in a round.
#[derive(Clone, Debug)]
pub struct Turn {
    pub met: Paced,
    /// CPU time of client, server, what is between, and kernel threads.
    pub cpu_ns: u64,
    /// Of what is between.
    pub proxy_ns: u64,
    /// Of the servers.
    pub server_ns: u64,
}

/// All turns of one variant at one rate, in the order they were taken.
#[derive(Clone, Debug, Default)]
pub struct Series(Vec<Turn>);

/// What became of them. Times in microseconds, intervals as [low, median, high].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Of all requests; from the moment each was meant to be sent.
    pub mean_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Answers a second.
    pub per_second: f64,
    /// Requests without an answer when the time was up, a second after the last was meant to be sent.
    pub missed: u64,
    /// How late the client itself sent, at the 99th percentile.
    pub late_p99_us: f64,
    /// CPU time of everybody for each request, kernel threads included.
    pub cpu_us: f64,
    /// The same, of what is between client and server.
    pub proxy_cpu_us: f64,
    /// The same, of the servers.
    pub server_cpu_us: f64,
    /// CPU seconds a second of what is between.
    pub proxy_cpu_s_per_s: f64,
    /// To the yardstick's, turn by turn.
    pub ratio_mean: [f64; 3],
    pub ratio_p50: [f64; 3],
    pub ratio_p99: [f64; 3],
    /// More than the yardstick's, turn by turn.
    pub added_mean_us: [f64; 3],
    pub added_p50_us: [f64; 3],
    pub added_cpu_us: [f64; 3],
    /// CPU seconds a second of everybody, more than the yardstick's.
    pub added_cpu_s_per_s: [f64; 3],
}

impl Series {
    /// Adds a turn.
    pub fn push(&mut self, turn: Turn) {
        self.0.push(turn);
    }

    /// CPU time of all turns.
    pub fn cpu_ns(&self) -> u64 {
        self.0.iter().map(|turn| turn.cpu_ns).sum()
    }

    fn each(&self, of: impl Fn(&Turn) -> Option<f64>) -> Option<Vec<f64>> {
        self.0.iter().map(of).collect()
    }

    fn percentiles(&self, percent: f64) -> Option<Vec<f64>> {
        self.each(|turn| percentile(&mut micros(&turn.met.whole), percent))
    }

    fn all(&self, of: impl Fn(&Paced) -> &[u32]) -> Vec<f64> {
        self.0.iter().flat_map(|turn| micros(of(&turn.met))).collect()
    }

    fn elapsed(&self) -> f64 {
        self.0.iter().map(|turn| seconds(turn.met.elapsed)).sum()
    }
}

impl Turn {
    /// Microseconds of CPU time for each request.
    fn cpu_us(&self, ns: u64) -> f64 {
        seconds(ns) * 1e6 / count(self.met.whole.len()).max(1.0)
    }

    fn cpu_s_per_s(&self, ns: u64) -> f64 {
        seconds(ns) / seconds(self.met.elapsed).max(1e-9)
    }
}

impl Point {
    /// Compares with the yardstick.
    pub fn of(own: &Series, yardstick: &Series) -> Result<Self> {
        Self::new(own, yardstick).context("no request was answered")
    }

    fn new(own: &Series, yardstick: &Series) -> Option<Self> {
        let compare = |own: &[f64], other: &[f64], with: fn(f64, f64) -> f64| {
            let pairs: Vec<_> = own.iter().zip(other).map(|(own, other)| with(*own, *other)).collect();
            Estimate::of(&pairs).map(triple)
        };
        let ratio = |own: &[f64], other: &[f64]| compare(own, other, |own, other| own / other);
        let added = |own: &[f64], other: &[f64]| compare(own, other, |own, other| own - other);
        let means = |series: &Series| series.each(|turn| mean(&micros(&turn.met.whole)));
        let cpu = |series: &Series| series.each(|turn| Some(turn.cpu_us(turn.cpu_ns)));
        let cpu_s = |series: &Series| series.each(|turn| Some(turn.cpu_s_per_s(turn.cpu_ns)));
        let mut whole = own.all(|met| &met.whole);
        Some(Self {
            mean_us: rounded(mean(&whole)?),
            p50_us: rounded(percentile(&mut whole, 50.0)?),
            p99_us: rounded(percentile(&mut whole, 99.0)?),
            per_second: rounded(count(whole.len()) / own.elapsed().max(1e-9)),
            missed: own.0.iter().map(|turn| turn.met.missed).sum(),
            late_p99_us: rounded(percentile(&mut own.all(|met| &met.late), 99.0).unwrap_or(0.0)),
            cpu_us: rounded(median(&mut cpu(own)?)?),
            proxy_cpu_us: rounded(median(&mut own.each(|turn| Some(turn.cpu_us(turn.proxy_ns)))?)?),
            server_cpu_us: rounded(median(&mut own.each(|turn| Some(turn.cpu_us(turn.server_ns)))?)?),
            proxy_cpu_s_per_s: fine(median(&mut own.each(|turn| Some(turn.cpu_s_per_s(turn.proxy_ns)))?)?),
            ratio_mean: ratio(&means(own)?, &means(yardstick)?)?,
            ratio_p50: ratio(&own.percentiles(50.0)?, &yardstick.percentiles(50.0)?)?,
            ratio_p99: ratio(&own.percentiles(99.0)?, &yardstick.percentiles(99.0)?)?,
            added_mean_us: added(&means(own)?, &means(yardstick)?)?,
            added_p50_us: added(&own.percentiles(50.0)?, &yardstick.percentiles(50.0)?)?,
            added_cpu_us: added(&cpu(own)?, &cpu(yardstick)?)?,
            added_cpu_s_per_s: added(&cpu_s(own)?, &cpu_s(yardstick)?)?,
        })
    }

    /// Whether it fell behind the rate: more than one request in a hundred was not answered in time.
    pub fn saturated(&self, requests: u64) -> bool {
        self.missed * 100 > requests
    }
}

fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / count(samples.len()))
}

fn micros(nanos: &[u32]) -> Vec<f64> {
    nanos.iter().map(|ns| f64::from(*ns) / 1000.0).collect()
}

fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}

fn count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Shares of a CPU, to a millionth.
pub fn fine(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
pub mod tests;
