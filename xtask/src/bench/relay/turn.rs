//! One variant's turn in a round, and what is made of all its turns.

use anyhow::Result;

use super::super::cpu::Usage;
use super::super::load::{Direction, Times};
use super::super::machine::Ticks;
use super::super::report::{Measured, Round};
use super::super::stats::{Estimate, median, percentile};
use super::stage::Stage;
use super::variant::Variant;

/// What is done in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections with one request each, so many at a time.
    Connections { clients: usize, count: usize },
    /// Requests over so many lasting connections.
    Requests { clients: usize, count: usize },
    /// Bytes over one connection.
    Stream { direction: Direction, bytes: u64 },
    /// So many connections, one after the other, which carry so many bytes each.
    Transfers { direction: Direction, bytes: u64, count: usize },
}

impl Kind {
    /// For people.
    pub fn describe(&self) -> String {
        match self {
            Self::Connections { clients, count } => format!("{count} connections of {clients} at a time"),
            Self::Requests { clients, count } => format!("{count} requests over {clients}"),
            Self::Stream { direction, bytes } => {
                format!("{:.2} GB {}", float(*bytes) / 1e9, direction.name())
            }
            Self::Transfers { direction, bytes, count } => {
                format!("{count} of {} KiB {}", bytes >> 10, direction.name())
            }
        }
    }
}

/// Connections ahead of each turn that do not count: they find the caches as the last variant has left them.
const WARM_UP: usize = 20;

/// One turn.
#[derive(Debug)]
pub struct Turn {
    /// Connections, requests or bytes.
    pub count: u64,
    pub elapsed_ns: u64,
    /// Empty of a stream.
    pub times: Times,
    /// CPU time of client, server, what is between, and kernel threads.
    pub cpu_ns: u64,
    /// Of what is between.
    pub proxy_ns: u64,
    /// CPU seconds of the whole machine.
    pub busy: f64,
}

/// Takes a turn.
pub fn take(stage: &mut Stage, variant: Variant, kind: Kind) -> Result<Turn> {
    let proxies = stage.proxies(variant)?;
    let all: Vec<_> = stage.ends().into_iter().chain(proxies.iter().copied()).collect();
    let (client, way) = stage.client(variant)?;
    let warm_up = match kind {
        Kind::Connections { .. } => {
            client.connections(&way, WARM_UP, 1)?;
            WARM_UP
        }
        Kind::Requests { clients, .. } => {
            client.hold(&way, clients)?;
            clients
        }
        Kind::Stream { .. } | Kind::Transfers { .. } => 0,
    };
    let (before, proxy_before, ticks) = (Usage::read(&all)?, Usage::of(&proxies)?, Ticks::read()?);
    let (count, connections, elapsed_ns, times) = match kind {
        Kind::Connections { clients, count } => {
            let times = client.connections(&way, count, clients)?;
            (count as u64, count, times.elapsed, times)
        }
        Kind::Requests { count, .. } => {
            let times = client.requests(&way, count)?;
            (count as u64, 0, times.elapsed, times)
        }
        Kind::Stream { direction, bytes } => {
            (bytes, 1, client.stream(&way, bytes, direction)?, Times::default())
        }
        Kind::Transfers { direction, bytes, count } => {
            let mut elapsed = 0;
            for _ in 0..count {
                elapsed += client.stream(&way, bytes, direction)?;
            }
            (count as u64, count, elapsed, Times::default())
        }
    };
    let busy = Ticks::read()?.busy_seconds_since(ticks);
    let proxy_ns = Usage::of(&proxies)?.since(&proxy_before);
    let cpu_ns = Usage::read(&all)?.since(&before);
    stage.count(variant, warm_up + connections);
    Ok(Turn { count, elapsed_ns, times, cpu_ns, proxy_ns, busy })
}

/// All turns of a variant, of one kind.
#[derive(Debug, Default)]
pub struct Series(Vec<Turn>);

impl Series {
    /// Adds a turn.
    pub fn push(&mut self, turn: Turn) {
        self.0.push(turn);
    }

    /// CPU time of all of it.
    pub fn cpu_ns(&self) -> u64 {
        self.0.iter().map(|turn| turn.cpu_ns).sum()
    }

    /// As the suite of connections has it.
    pub fn measured(&self, name: &str) -> Measured {
        let mut measured = Measured::new(name.to_owned());
        for turn in &self.0 {
            measured.add(Round { times: turn.times.clone(), cpu_ns: turn.cpu_ns });
        }
        measured
    }

    /// Of each turn: how many a second.
    pub fn rates(&self) -> Vec<f64> {
        self.0.iter().map(|turn| float(turn.count) / (float(turn.elapsed_ns) / 1e9)).collect()
    }

    /// Of each turn: a percentile of its times, in microseconds.
    pub fn percentiles(&self, percent: f64) -> Option<Vec<f64>> {
        self.0.iter().map(|turn| percentile(&mut micros(&turn.times.whole), percent)).collect()
    }

    /// A percentile of all times, in microseconds.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let mut all: Vec<_> = self.0.iter().flat_map(|turn| micros(&turn.times.whole)).collect();
        percentile(&mut all, percent)
    }

    /// CPU seconds of all of it for each connection, request or byte: the median turn's.
    pub fn cpu(&self) -> Option<f64> {
        self.median(|turn| float(turn.cpu_ns) / 1e9 / float(turn.count))
    }

    /// The same, of what is between client and server.
    pub fn proxy_cpu(&self) -> Option<f64> {
        self.median(|turn| float(turn.proxy_ns) / 1e9 / float(turn.count))
    }

    /// The same, of the whole machine; over all turns, since it is told in hundredths of a second.
    pub fn busy(&self) -> f64 {
        let (busy, count) =
            self.0.iter().fold((0.0, 0.0), |(busy, n), turn| (busy + turn.busy, n + float(turn.count)));
        busy / f64::max(count, 1.0)
    }

    /// CPU time of all of it, compared turn by turn: a ratio.
    pub fn cpu_ratio(&self, to: &Self) -> Option<Estimate> {
        let cpu = |series: &Self| -> Vec<_> {
            series.0.iter().map(|turn| float(turn.cpu_ns) / float(turn.count)).collect()
        };
        Estimate::of(&pairs(&cpu(self), &cpu(to), |a, b| a / b))
    }

    fn median(&self, of: impl Fn(&Turn) -> f64) -> Option<f64> {
        median(&mut self.0.iter().map(of).collect::<Vec<_>>())
    }
}

/// Compares turn by turn.
pub fn pairs(of: &[f64], to: &[f64], compare: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    of.iter().zip(to).map(|(a, b)| compare(*a, *b)).collect()
}

fn micros(nanos: &[u32]) -> Vec<f64> {
    nanos.iter().map(|ns| f64::from(*ns) / 1000.0).collect()
}

/// Near enough: counts below 2^53 are exact.
#[expect(clippy::cast_precision_loss, reason = "nothing measured here comes near 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
