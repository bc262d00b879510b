//! What is counted, for Prometheus. Names and labels are an interface: dashboards and alerts depend on them.
//!
//! A connection's counters are looked up once, when it is decided; what happens to it later adds to what was found. What the
//! kernel counts is read when it is asked for.

pub mod families;
pub mod labels;
pub mod openmetrics;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use prometheus::{Histogram, IntCounter, TextEncoder, proto::MetricFamily};

use self::{
    families::Families,
    labels::{Labels, Limits},
};
use super::access::Outcome;
use crate::route::Decision;

/// The label of what has no name: no service at the address, no environment.
const NONE: &str = "";

/// All that is counted here.
#[derive(Debug)]
pub struct Metrics {
    families: Families,
    labels: Labels,
    known: RwLock<HashMap<Key, Arc<Counters>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// What connections are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    service: Arc<str>,
    environment: Arc<str>,
    reason: &'static str,
}

/// The counters of connections that have labels in common.
#[derive(Debug)]
pub struct Counters {
    key: Key,
    families: Families,
    opened: IntCounter,
    relayed: [IntCounter; 2],
    grafted: [IntCounter; 2],
    header_wait: Histogram,
    connect: Histogram,
    setup: Histogram,
    lasted: Histogram,
    closed: [OnceLock<IntCounter>; Outcome::ALL.len()],
}

/// What a connection was, at its end.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// Payload bytes to the server, of which the kernel carried some past the agent.
    pub up: u64,
    /// Those of them.
    pub grafted_up: u64,
    /// The same, to the client.
    pub down: u64,
    /// Those of them.
    pub grafted_down: u64,
    /// How long it lasted.
    pub lasted: Duration,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(limits: Limits) -> Self {
        Self { families: Families::default(), labels: Labels::new(limits), known: RwLock::default() }
    }

    /// The counters of a relayed connection. None was decided for one that ends before.
    pub fn of(&self, decision: Option<&Decision>) -> Arc<Counters> {
        let service = decision.and_then(|d| d.service.as_ref()).map_or(NONE, |s| &s.name);
        let environment = decision.and_then(|d| d.environment.as_ref()).map_or(NONE, |e| e.as_str());
        let reason = decision.map_or("undecided", |d| d.reason.as_str());
        let (service, environment) = self.labels.of(service, environment);
        let key = Key { service, environment, reason };
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(known);
        }
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let counters = all.entry(key.clone()).or_insert_with(|| Arc::new(Counters::new(&self.families, key)));
        Arc::clone(counters)
    }

    /// How many relayed connections belonged to each environment that is counted by name.
    pub fn opened_by_environment(&self) -> BTreeMap<Arc<str>, u64> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().fold(BTreeMap::new(), |mut sums, (key, counters)| {
            *sums.entry(Arc::clone(&key.environment)).or_default() += counters.opened.get();
            sums
        })
    }

    /// Names that have been counted under.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What is counted here, what is counted elsewhere, and the process itself: a family of each name.
    pub fn gather(&self, elsewhere: Vec<MetricFamily>) -> Vec<MetricFamily> {
        let mut all: BTreeMap<String, MetricFamily> = BTreeMap::new();
        for mut family in self.families.gather().into_iter().chain(elsewhere).chain(prometheus::gather()) {
            match all.get_mut(family.name()) {
                Some(known) => known.mut_metric().extend(family.take_metric()),
                None => drop(all.insert(family.name().to_owned(), family)),
            }
        }
        all.into_values().filter(|family| !family.get_metric().is_empty()).collect()
    }
}

impl Counters {
    fn new(families: &Families, key: Key) -> Self {
        let of = [&*key.service, &*key.environment];
        let bytes =
            |path| ["up", "down"].map(|to| families.bytes.with_label_values(&[of[0], of[1], path, to]));
        Self {
            families: families.clone(),
            opened: families.opened.with_label_values(&[of[0], of[1], key.reason, "relay"]),
            relayed: bytes("relay"),
            grafted: bytes("graft"),
            header_wait: families.header_wait.with_label_values(&of[..1]),
            connect: families.connect.with_label_values(&of[..1]),
            setup: families.setup.with_label_values(&of[..1]),
            lasted: families.lasted.with_label_values(&of[..1]),
            closed: Default::default(),
            key,
        }
    }

    /// A connection was decided, so long after it was accepted.
    pub fn opened(&self, header_wait: Duration) {
        self.opened.inc();
        self.header_wait.observe(header_wait.as_secs_f64());
    }

    /// One that ended before anything was decided about it.
    pub fn undecided(&self) {
        self.opened.inc();
    }

    /// It was decided anew (its header came late), and counts under other counters from here on.
    pub fn rerouted(&self) {
        let of = [&*self.key.service, &*self.key.environment, "relay", "rerouted"];
        self.families.closed.with_label_values(&of).inc();
    }

    /// A backend has taken it: so long after the decision, so long after it was accepted.
    pub fn connected(&self, connect: Duration, setup: Duration) {
        self.connect.observe(connect.as_secs_f64());
        self.setup.observe(setup.as_secs_f64());
    }

    /// It has ended.
    pub fn closed(&self, end: &End) {
        let of = [&*self.key.service, &*self.key.environment, "relay", end.outcome.as_str()];
        self.closed[end.outcome as usize].get_or_init(|| self.families.closed.with_label_values(&of)).inc();
        self.relayed[0].inc_by(end.up - end.grafted_up.min(end.up));
        self.relayed[1].inc_by(end.down - end.grafted_down.min(end.down));
        self.grafted[0].inc_by(end.grafted_up);
        self.grafted[1].inc_by(end.grafted_down);
        self.lasted.observe(end.lasted.as_secs_f64());
    }
}

/// Families as text, in the format of OpenMetrics for whoever accepts it (`accepts` is what the request says), else in that of
/// Prometheus; and which it is.
///
/// # Errors
/// When a family has no metric.
pub fn written(
    families: &[MetricFamily],
    accepts: &str,
) -> Result<(&'static str, String), prometheus::Error> {
    if accepts.contains("application/openmetrics-text") {
        return Ok((openmetrics::CONTENT_TYPE, openmetrics::encode(families)));
    }
    let mut text = String::new();
    TextEncoder::new().encode_utf8(families, &mut text)?;
    Ok((prometheus::TEXT_FORMAT, text))
}

#[cfg(test)]
mod tests;
