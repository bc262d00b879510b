//! What a gateway counts, for Prometheus: by the agent's conventions, under names of its own (`picop_gateway_...`).
//!
//! Connections (`tcp`, `proxy`) and requests (`http`) are counted where their access lines are written, so that each is in both
//! or in neither. Clients make environments up, so only so many are counted by name.

mod serve;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use foldhash::HashMap;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
    proto::MetricFamily,
};

pub use serve::{answer, start};

use crate::{
    protocol::EnvId,
    telemetry::{
        access::Outcome,
        metrics::labels::{Labels, Limits},
    },
};

/// The label of no environment, and of what was not decided.
const NONE: &str = "";

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    labels: Labels,
    accepted: IntCounter,
    open: IntGauge,
    closed: IntCounterVec,
    bytes: IntCounterVec,
    lasted: Histogram,
    requests: IntCounterVec,
    response_bytes: IntCounterVec,
    took: Histogram,
    upstream: IntCounterVec,
    /// By environment: few kinds of requests go to one.
    known: RwLock<HashMap<Option<EnvId>, Vec<RequestCounters>>>,
}

/// A connection that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    pub environment: Option<&'a EnvId>,
    /// Why it went where it went; none if that was not decided.
    pub reason: Option<&'static str>,
    pub outcome: Outcome,
    pub up: u64,
    pub down: u64,
    pub lasted: Duration,
}

/// A request whose answer has ended.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub environment: &'a Option<EnvId>,
    pub env_source: &'static str,
    /// None without an answer.
    pub status: Option<u16>,
    pub outcome: &'static str,
    pub reused: bool,
    /// Of the answer's body.
    pub down: u64,
    pub took: Duration,
}

/// What requests of an environment are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    env_source: &'static str,
    status: Option<u16>,
    outcome: &'static str,
}

#[derive(Debug)]
struct RequestCounters {
    kind: Kind,
    requests: IntCounter,
    bytes: IntCounter,
    /// Over connections that were new, and that were kept.
    upstream: [IntCounter; 2],
}

impl RequestCounters {
    fn count(&self, request: &Request<'_>) {
        self.requests.inc();
        self.bytes.inc_by(request.down);
        if request.status.is_some() {
            self.upstream[usize::from(request.reused)].inc();
        }
    }
}

/// A client's connection, counted as open until this is dropped.
#[derive(Debug)]
pub struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let register = |family: Box<dyn prometheus::core::Collector>| {
            registry.register(family).expect("one family a name");
        };
        let vector = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid family");
            register(Box::new(family.clone()));
            family
        };
        // As the agent's: 25 us to 26 s.
        let buckets = exponential_buckets(25e-6, 4.0, 11).expect("more than nothing");
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.clone());
            let family = Histogram::with_opts(opts).expect("a valid family");
            register(Box::new(family.clone()));
            family
        };
        let accepted = IntCounter::new(
            "picop_gateway_connections_accepted_total",
            "Connections of clients. (Those of the admin API and of metrics are not counted.)",
        )
        .expect("a valid counter");
        let open = IntGauge::new("picop_gateway_connections", "Connections of clients that are open.")
            .expect("a valid gauge");
        register(Box::new(accepted.clone()));
        register(Box::new(open.clone()));
        Self {
            labels: Labels::new(Limits::default()),
            accepted,
            open,
            closed: vector(
                "picop_gateway_connections_closed_total",
                "Connections of gateway tcp and gateway proxy that have ended.",
                &["environment", "reason", "outcome"],
            ),
            bytes: vector(
                "picop_gateway_bytes_total",
                "Payload bytes of connections of gateway tcp and gateway proxy that have ended.",
                &["environment", "direction"],
            ),
            lasted: histogram(
                "picop_gateway_connection_duration_seconds",
                "From accept to end, of connections of gateway tcp and gateway proxy.",
            ),
            requests: vector(
                "picop_gateway_requests_total",
                "Requests of gateway http whose answer has ended. A status of 0 is no answer.",
                &["environment", "env_source", "status", "outcome"],
            ),
            response_bytes: vector(
                "picop_gateway_response_bytes_total",
                "Bytes of answers' bodies.",
                &["environment"],
            ),
            took: histogram(
                "picop_gateway_request_duration_seconds",
                "From a request's head to the end of its answer.",
            ),
            upstream: vector(
                "picop_gateway_upstream_requests_total",
                "Requests of gateway http by whether the connection to the server was a new one or kept from an earlier request.",
                &["environment", "connection"],
            ),
            known: RwLock::default(),
            registry,
        }
    }
}

impl Metrics {
    /// A client was accepted.
    pub fn accepted(self: &Arc<Self>) -> Open {
        self.accepted.inc();
        self.open.inc();
        Open(Arc::clone(self))
    }

    /// A connection has ended.
    pub fn closed(&self, connection: &Connection<'_>) {
        let environment = self.name(connection.environment);
        let reason = connection.reason.unwrap_or(NONE);
        self.closed.with_label_values(&[&*environment, reason, connection.outcome.as_str()]).inc();
        for (direction, bytes) in [("up", connection.up), ("down", connection.down)] {
            self.bytes.with_label_values(&[&*environment, direction]).inc_by(bytes);
        }
        self.lasted.observe(connection.lasted.as_secs_f64());
    }

    /// An answer has ended.
    pub fn answered(&self, request: &Request<'_>) {
        let Request { environment, env_source, status, outcome, took, .. } = *request;
        self.took.observe(took.as_secs_f64());
        let kind = Kind { env_source, status, outcome };
        // Looked up by four labels at once: requests that have them in common are many.
        let find = |counters: &Vec<RequestCounters>| {
            counters.iter().find(|counters| counters.kind == kind).map(|counters| counters.count(request))
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.get(environment).and_then(find).is_some() {
            return;
        }
        drop(known);
        let counters = self.counters(environment.as_ref(), kind);
        counters.count(request);
        // Of environments that are counted by no name of theirs there is no end.
        if environment
            .as_ref()
            .is_none_or(|environment| *self.name(Some(environment)) == *environment.as_str())
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let known = known.entry(environment.clone()).or_default();
            // Another may have been faster.
            if known.iter().all(|known| known.kind != kind) {
                known.push(counters);
            }
        }
    }

    fn counters(&self, environment: Option<&EnvId>, kind: Kind) -> RequestCounters {
        let name = self.name(environment);
        let code = kind.status.unwrap_or(0).to_string();
        RequestCounters {
            kind,
            requests: self.requests.with_label_values(&[&*name, kind.env_source, &code, kind.outcome]),
            bytes: self.response_bytes.with_label_values(&[&*name]),
            upstream: ["new", "kept"].map(|how| self.upstream.with_label_values(&[&*name, how])),
        }
    }

    fn name(&self, environment: Option<&EnvId>) -> Arc<str> {
        self.labels.of(NONE, environment.map_or(NONE, EnvId::as_str)).1
    }

    /// What is counted, and the process itself.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut all = self.registry.gather();
        all.extend(prometheus::gather());
        all.retain(|family| !family.get_metric().is_empty());
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }
}

#[cfg(test)]
mod tests;
