//! The suite's result, for programs and for people.

mod table;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::super::load::Direction;
use super::super::machine::{self, Load};
use super::super::report::{Row, rounded, triple};
use super::super::stats::Estimate;
use super::idle::Memory;
use super::peer::Peer;
use super::turn::{Kind, Series, pairs};
use super::variant::Variant;

/// All that was measured.
#[derive(Debug, Default)]
pub struct Results {
    variants: Vec<Variant>,
    series: Vec<(Variant, Kind, Series)>,
    idle: Vec<(Variant, Memory)>,
    peers: Vec<(Variant, String, String)>,
}

impl Results {
    /// Nothing yet.
    pub fn new(variants: &[Variant]) -> Self {
        Self { variants: variants.to_vec(), ..Self::default() }
    }

    /// Adds turns.
    pub fn add(&mut self, series: Vec<(Variant, Kind, Series)>) {
        self.series.extend(series);
    }

    /// Adds a variant's memory.
    pub fn idle(&mut self, variant: Variant, memory: Memory) {
        self.idle.push((variant, memory));
    }

    /// Notes which peers these were.
    pub fn peers(&mut self, peers: &[Peer]) {
        let said = peers
            .iter()
            .map(|peer| (peer.variant, peer.running.version.clone(), peer.running.configuration.clone()));
        self.peers = said.collect();
    }

    /// CPU time of all turns so far.
    pub fn cpu_ns(&self) -> u64 {
        self.series.iter().map(|(.., series)| series.cpu_ns()).sum()
    }

    fn series(&self, variant: Variant, kind: Kind) -> Option<&Series> {
        let found = self.series.iter().find(|(v, k, _)| *v == variant && *k == kind);
        found.map(|(.., series)| series)
    }

    /// What was done, in the order it was done.
    fn kinds(&self) -> Vec<Kind> {
        let of_none = self.series.iter().filter(|(variant, ..)| *variant == Variant::None);
        let mut kinds: Vec<_> = of_none.map(|(_, kind, _)| *kind).collect();
        kinds.sort_by_key(|kind| match kind {
            Kind::Connections { clients, .. } => (0, *clients),
            Kind::Requests { clients, .. } => (1, *clients),
            Kind::Stream { direction, .. } => (2, usize::from(*direction == Direction::Down)),
            Kind::Transfers { direction, bytes, .. } => (
                3 + usize::from(*direction == Direction::Down),
                usize::try_from(*bytes).unwrap_or(usize::MAX),
            ),
        });
        kinds
    }
}

/// Connections of one variant, so many at a time.
#[derive(Debug)]
struct Conns {
    row: Row,
    p50_us: f64,
    p99_us: f64,
    added_p50_us: Estimate,
    added_p99_us: Estimate,
    per_second: f64,
    ratio_per_second: Estimate,
    cpu_us: f64,
    proxy_cpu_us: f64,
    busy_us: f64,
}

/// Requests of one variant over lasting connections.
#[derive(Debug)]
struct Requests {
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
    ratio_per_second: Estimate,
    cpu_us: f64,
    proxy_cpu_us: f64,
}

/// A stream of one variant.
#[derive(Debug)]
struct Stream {
    gb_per_s: f64,
    ratio: Estimate,
    cpu_s_per_gb: f64,
    cpu_ratio: Estimate,
    proxy_cpu_s_per_gb: f64,
    busy_s_per_gb: f64,
}

/// Connections of one variant that carry so many bytes each.
#[derive(Debug)]
struct Transfers {
    bytes: u64,
    direction: Direction,
    cpu_us: f64,
    proxy_cpu_us: f64,
    /// CPU time beside the relay's without graft, if that was measured.
    of_relay: Option<Estimate>,
}

/// The relay that is watched beside the one that is not, in one kind of turn: ratios.
#[derive(Debug)]
struct Watched {
    kind: String,
    /// For each connection or request the median one's, for each byte of a stream.
    time: Estimate,
    cpu: Estimate,
}

impl Watched {
    fn of(kind: Kind, own: &Series, relay: &Series) -> Option<Self> {
        let medians = own.percentiles(50.0).zip(relay.percentiles(50.0));
        let time = match (kind, medians) {
            (Kind::Connections { .. } | Kind::Requests { .. }, Some((own, relay))) => {
                Estimate::of(&pairs(&own, &relay, |a, b| a / b))?
            }
            _ => Estimate::of(&pairs(&relay.rates(), &own.rates(), |a, b| a / b))?,
        };
        Some(Self { kind: kind.describe(), time, cpu: own.cpu_ratio(relay)? })
    }
}

/// A field's name, and what is in it.
type Field = (&'static str, fn(&Stream) -> Value);

/// One variant.
#[derive(Debug)]
struct Entry {
    variant: Variant,
    conns: Vec<(usize, Conns)>,
    requests: Vec<(usize, Requests)>,
    streams: Vec<(Direction, Stream)>,
    transfers: Vec<Transfers>,
    memory: Option<Memory>,
    watched: Vec<Watched>,
}

/// The suite's result.
#[derive(Debug)]
pub struct Report {
    commit: String,
    kernel: String,
    load: Load,
    entries: Vec<Entry>,
    peers: Vec<(Variant, String, String)>,
}

impl Report {
    /// Compares all with the yardstick.
    pub fn new(results: Results, load: Load) -> Result<Self> {
        let mut entries = Vec::new();
        for variant in &results.variants {
            let entry = Entry::of(&results, *variant);
            entries.push(entry.with_context(|| format!("{} was not measured wholly", variant.name()))?);
        }
        Ok(Self {
            commit: machine::commit(),
            kernel: machine::kernel()?,
            load,
            entries,
            peers: results.peers,
        })
    }

    /// One object; where connections of one client were measured, its variants are as the other suites'.
    pub fn json(&self) -> Value {
        let variants: Map<_, _> =
            self.entries.iter().map(|entry| (entry.variant.name().to_owned(), entry.json())).collect();
        let peers: Map<_, _> = self
            .peers
            .iter()
            .map(|(variant, version, configuration)| {
                let peer = json!({ "version": version, "configuration": configuration });
                (variant.name().to_owned(), peer)
            })
            .collect();
        json!({
            "suite": "relay",
            "commit": self.commit,
            "kernel": self.kernel,
            "variants": variants,
            "peers": peers,
        })
    }
}

impl Entry {
    /// `None` where something is missing.
    fn of(results: &Results, variant: Variant) -> Option<Self> {
        let memory = results.idle.iter().find(|(of, _)| *of == variant).map(|(_, memory)| *memory);
        let mut entry = Self {
            variant,
            conns: Vec::new(),
            requests: Vec::new(),
            streams: Vec::new(),
            transfers: Vec::new(),
            memory,
            watched: Vec::new(),
        };
        for kind in results.kinds().into_iter().filter(|kind| variant.does(*kind)) {
            let (own, none) = (results.series(variant, kind)?, results.series(Variant::None, kind)?);
            if variant == Variant::RelayWatched
                && let Some(relay) = results.series(Variant::Relay, kind)
            {
                entry.watched.push(Watched::of(kind, own, relay)?);
            }
            match kind {
                Kind::Connections { clients, .. } => {
                    entry.conns.push((clients, Conns::of(variant, own, none)?));
                }
                Kind::Requests { clients, .. } => entry.requests.push((clients, Requests::of(own, none)?)),
                Kind::Stream { direction, .. } => entry.streams.push((direction, Stream::of(own, none)?)),
                Kind::Transfers { direction, bytes, .. } => {
                    let relay = results.series(Variant::Relay, kind).filter(|_| variant == Variant::Graft);
                    entry.transfers.push(Transfers {
                        bytes,
                        direction,
                        cpu_us: own.cpu()? * 1e6,
                        proxy_cpu_us: own.proxy_cpu()? * 1e6,
                        of_relay: relay.and_then(|relay| own.cpu_ratio(relay)),
                    });
                }
            }
        }
        Some(entry)
    }

    fn json(&self) -> Value {
        let first = self.conns.first().filter(|(clients, _)| *clients == 1);
        let mut object = first.map_or_else(|| json!({}), |(_, conns)| conns.json());
        let more = self.conns.iter().filter(|(clients, _)| *clients != 1);
        insert(&mut object, "clients", more.map(|(clients, conns)| (clients.to_string(), conns.json())));
        let requests = self.requests.iter();
        insert(&mut object, "keepalive", requests.map(|(clients, of)| (clients.to_string(), of.json())));
        let streams: [Field; 6] = [
            ("gb_per_s", |stream| json!(fine(stream.gb_per_s))),
            ("ratio_gb_per_s", |stream| json!(triple(stream.ratio))),
            ("cpu_s_per_gb", |stream| json!(fine(stream.cpu_s_per_gb))),
            ("ratio_cpu_s_per_gb", |stream| json!(triple(stream.cpu_ratio))),
            ("proxy_cpu_s_per_gb", |stream| json!(fine(stream.proxy_cpu_s_per_gb))),
            ("busy_s_per_gb", |stream| json!(fine(stream.busy_s_per_gb))),
        ];
        for (name, of) in streams {
            let each = self.streams.iter();
            insert(
                &mut object,
                name,
                each.map(|(direction, stream)| (direction.name().to_owned(), of(stream))),
            );
        }
        let transfers = self.transfers.iter();
        let each = transfers.map(|of| (format!("{} {}", of.bytes, of.direction.name()), of.json()));
        insert(&mut object, "transfers", each);
        let watched = self.watched.iter();
        insert(
            &mut object,
            "ratio_to_unwatched",
            watched.map(|of| (of.kind.clone(), json!({"time": triple(of.time), "cpu": triple(of.cpu)}))),
        );
        if let Some(Memory { connections, rss, pss }) = self.memory {
            object["idle_connections"] = json!(connections);
            object["rss_per_conn"] = json!(rounded(rss));
            object["pss_per_conn"] = json!(rounded(pss));
        }
        object
    }
}

/// Puts an object into another, unless it is empty.
fn insert(into: &mut Value, name: &str, entries: impl Iterator<Item = (String, Value)>) {
    let entries: Map<_, _> = entries.collect();
    if !entries.is_empty() {
        into[name] = entries.into();
    }
}

impl Conns {
    fn of(variant: Variant, own: &Series, none: &Series) -> Option<Self> {
        let added = |percent| {
            let added = pairs(&own.percentiles(percent)?, &none.percentiles(percent)?, |a, b| a - b);
            Estimate::of(&added)
        };
        let rates = own.rates();
        Some(Self {
            row: Row::new(&own.measured(variant.name()), &none.measured(Variant::None.name()))?,
            p50_us: own.percentile(50.0)?,
            p99_us: own.percentile(99.0)?,
            added_p50_us: added(50.0)?,
            added_p99_us: added(99.0)?,
            per_second: Estimate::of(&rates)?.median,
            ratio_per_second: Estimate::of(&pairs(&rates, &none.rates(), |a, b| a / b))?,
            cpu_us: own.cpu()? * 1e6,
            proxy_cpu_us: own.proxy_cpu()? * 1e6,
            busy_us: own.busy() * 1e6,
        })
    }

    fn json(&self) -> Value {
        let mut object = self.row.json();
        object["added_p50_us"] = json!(triple(self.added_p50_us));
        object["added_p99_us"] = json!(triple(self.added_p99_us));
        object["ratio_per_second"] = json!(triple(self.ratio_per_second));
        object["proxy_cpu_us_per_conn"] = json!(rounded(self.proxy_cpu_us));
        object["busy_us_per_conn"] = json!(rounded(self.busy_us));
        object
    }
}

impl Requests {
    fn of(own: &Series, none: &Series) -> Option<Self> {
        let rates = own.rates();
        Some(Self {
            p50_us: own.percentile(50.0)?,
            p99_us: own.percentile(99.0)?,
            per_second: Estimate::of(&rates)?.median,
            ratio_per_second: Estimate::of(&pairs(&rates, &none.rates(), |a, b| a / b))?,
            cpu_us: own.cpu()? * 1e6,
            proxy_cpu_us: own.proxy_cpu()? * 1e6,
        })
    }

    fn json(&self) -> Value {
        json!({
            "p50_us": rounded(self.p50_us),
            "p99_us": rounded(self.p99_us),
            "per_second": rounded(self.per_second),
            "ratio_per_second": triple(self.ratio_per_second),
            "cpu_us_per_request": rounded(self.cpu_us),
            "proxy_cpu_us_per_request": rounded(self.proxy_cpu_us),
        })
    }
}

impl Stream {
    fn of(own: &Series, none: &Series) -> Option<Self> {
        let rates = own.rates();
        Some(Self {
            gb_per_s: Estimate::of(&rates)?.median / 1e9,
            ratio: Estimate::of(&pairs(&rates, &none.rates(), |a, b| a / b))?,
            cpu_s_per_gb: own.cpu()? * 1e9,
            cpu_ratio: own.cpu_ratio(none)?,
            proxy_cpu_s_per_gb: own.proxy_cpu()? * 1e9,
            busy_s_per_gb: own.busy() * 1e9,
        })
    }
}

impl Transfers {
    fn json(&self) -> Value {
        json!({
            "cpu_us": rounded(self.cpu_us),
            "proxy_cpu_us": rounded(self.proxy_cpu_us),
            "ratio_cpu_to_relay": self.of_relay.map(triple),
        })
    }
}

/// Three decimals.
fn fine(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
