//! The access line: exactly one per relayed connection, when it ends.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use picop_common::connect;

use super::{
    events::Event,
    hub::Hub,
    live::{Entry, Open},
    metrics::{Counters, End},
    spans::{Connection, Spans},
};
use crate::{
    protocol::{Context, EnvId},
    route::{Decision, EnvSource},
};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Both sides closed.
    Ok,
    /// The client reset it.
    ClientReset,
    /// The server reset it.
    UpstreamReset,
    /// Nobody recorded where it wanted to go (somebody connected to the listener itself): reset.
    NoOriginal,
    /// Its header did not come, or not whole: reset.
    BadHeader,
    /// Its header came after it had been routed without, and the server had spoken: reset.
    LateHeader,
    /// Its decision is to refuse it: reset.
    Refused,
    /// No endpoint took it: reset.
    UpstreamFailed,
    /// Too many connections at once: reset.
    Limit,
    /// The agent was going and would not wait longer: reset.
    Drained,
    /// The agent could not do its part: reset.
    Internal,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::ClientReset,
        Self::UpstreamReset,
        Self::NoOriginal,
        Self::BadHeader,
        Self::LateHeader,
        Self::Refused,
        Self::UpstreamFailed,
        Self::Limit,
        Self::Drained,
        Self::Internal,
    ];

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::NoOriginal => "no_original",
            Self::BadHeader => "bad_header",
            Self::LateHeader => "late_header",
            Self::Refused => "refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::Limit => "limit",
            Self::Drained => "drained",
            Self::Internal => "internal",
        }
    }
}

/// What is to be told of a connection: opened, filled in as it becomes known, and finished when dropped, so that no way out
/// of a connection's code forgets it. Whoever carries bytes counts them in [`AccessRecord::open`]'s `carried`.
#[derive(Debug)]
pub struct AccessRecord {
    hub: Hub,
    entry: Entry,
    original: Option<SocketAddr>,
    /// Why the kernel sent it to the agent.
    pub relayed_for: Option<connect::Reason>,
    decision: Option<Decision>,
    backend: Option<SocketAddr>,
    /// When there was a decision, and when a connection to a backend.
    decided_at: Option<Instant>,
    connected_at: Option<Instant>,
    /// The trace it is part of.
    parent: Option<opentelemetry::Context>,
    counters: Option<Arc<Counters>>,
    /// What the server was told: `propagate`, `strip` or `none` (there was nothing to tell).
    pub header: &'static str,
    /// Context entries left out for want of room.
    pub dropped: usize,
    /// Payload bytes, client to server.
    pub bytes_up: u64,
    /// Payload bytes, server to client.
    pub bytes_down: u64,
    /// Of those to the server, the bytes that the kernel carried past the agent.
    pub grafted_up: u64,
    /// Of those to the client.
    pub grafted_down: u64,
    /// How often a message was passed to the agent while the connection was grafted, and why, as `reason=count`.
    pub graft_passes: Option<String>,
    /// How it ended. As long as nobody says otherwise, the agent ended it.
    pub outcome: Outcome,
    /// In words, if it did not end well.
    pub error: Option<String>,
}

impl AccessRecord {
    /// A connection was accepted.
    pub fn new(hub: &Hub, workload: Arc<str>, client: SocketAddr) -> Self {
        Self {
            hub: hub.clone(),
            entry: Entry::new(hub, workload, client),
            original: None,
            relayed_for: None,
            decision: None,
            backend: None,
            decided_at: None,
            connected_at: None,
            parent: None,
            counters: None,
            header: "none",
            dropped: 0,
            bytes_up: 0,
            bytes_down: 0,
            grafted_up: 0,
            grafted_down: 0,
            graft_passes: None,
            outcome: Outcome::Drained,
            error: None,
        }
    }

    /// What others see of it while it is open.
    pub fn open(&self) -> &Arc<Open> {
        self.entry.open()
    }

    /// It is known where the client wanted to go.
    pub fn wanted(&mut self, original: SocketAddr) {
        self.original = Some(original);
        self.open().wanted(original);
    }

    /// It began with a header.
    pub fn carries(&mut self, context: &Context) {
        self.parent = self.hub.spans().and_then(|spans| spans.parent(context));
    }

    /// It is known where it will go, and why. The last word counts: a header that comes late changes it.
    pub fn decided(&mut self, decision: Decision) {
        let now = Instant::now();
        let counters = self.hub.metrics().of(Some(&decision));
        counters.opened(now - self.open().since);
        if let Some(before) = self.counters.replace(counters) {
            before.rerouted();
        }
        self.decided_at = Some(now);
        self.open().decided(&decision);
        self.decision = Some(decision);
    }

    /// A backend has taken it.
    pub fn connected(&mut self, backend: SocketAddr) {
        let now = Instant::now();
        if let (Some(counters), Some(decided_at)) = (&self.counters, self.decided_at) {
            counters.connected(now - decided_at, now - self.open().since);
        }
        self.connected_at = Some(now);
        self.open().connected(backend);
        self.backend = Some(backend);
        self.hub.events().tell(|| self.event("routed"));
    }

    /// Says how it ended, and why.
    pub fn end(&mut self, outcome: Outcome, error: impl Into<Option<String>>) {
        self.outcome = outcome;
        self.error = error.into();
    }

    fn count_end(&self) {
        let undecided = || {
            let counters = self.hub.metrics().of(None);
            counters.undecided();
            counters
        };
        let counters = self.counters.clone().unwrap_or_else(undecided);
        counters.closed(&End {
            outcome: self.outcome,
            up: self.bytes_up,
            grafted_up: self.grafted_up,
            down: self.bytes_down,
            grafted_down: self.grafted_down,
            lasted: self.open().age(),
        });
    }

    fn tell_span(&self, spans: &Spans) {
        let open = self.open();
        let decision = self.decision.as_ref();
        let environment = decision.and_then(|d| d.environment.as_ref()).map(EnvId::as_str);
        let is_first = spans.used(environment);
        if !spans.wants(self.parent.as_ref()) {
            return;
        }
        let lasted = open.age();
        let at = |name, at: Option<Instant>| Some((name, at? - open.since));
        spans.tell(&Connection {
            parent: self.parent.as_ref(),
            began: SystemTime::now() - lasted,
            lasted,
            happened: [at("decided", self.decided_at), at("connected", self.connected_at)]
                .into_iter()
                .flatten()
                .collect(),
            workload: &open.workload,
            service: decision.and_then(|d| d.service.as_ref()).map(|s| s.name.as_str()),
            environment,
            env_source: decision.map_or(EnvSource::None, |d| d.source).as_str(),
            original: self.original,
            backend: self.backend,
            path: "relay",
            reason: decision.map(|d| d.reason.as_str()),
            header: self.header,
            bytes: Some((self.bytes_up, self.bytes_down)),
            outcome: Some(self.outcome.as_str()),
            error: self.error.as_deref(),
            is_first,
        });
    }

    fn duration_us(&self) -> u64 {
        u64::try_from(self.open().age().as_micros()).unwrap_or(u64::MAX)
    }

    fn event(&self, what: &str) -> Event {
        let decision = self.decision.as_ref();
        Event {
            at_us: Event::now(),
            what: what.to_owned(),
            path: "relay".to_owned(),
            workload: self.open().workload.to_string(),
            service: decision.and_then(|d| d.service.as_ref()).map(|s| s.name.clone()),
            environment: decision.and_then(|d| d.environment.as_ref()).map(ToString::to_string),
            env_source: decision.map_or(EnvSource::None, |d| d.source).as_str().to_owned(),
            original: self.original.map(|a| a.to_string()),
            backend: self.backend.map(|a| a.to_string()),
            reason: decision.map(|d| d.reason.as_str().to_owned()),
            header: self.header.to_owned(),
            ..Event::default()
        }
    }

    fn closed(&self) -> Event {
        Event {
            outcome: Some(self.outcome.as_str().to_owned()),
            error: self.error.clone(),
            bytes_up: Some(self.bytes_up),
            bytes_down: Some(self.bytes_down),
            duration_us: Some(self.duration_us()),
            ..self.event("closed")
        }
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        self.count_end();
        if let Some(spans) = self.hub.spans() {
            self.tell_span(spans);
        }
        self.hub.events().tell(|| self.closed());
        let decision = self.decision.as_ref();
        tracing::info!(
            target: "access",
            workload = &*self.open().workload,
            client = %self.open().client,
            service = decision.and_then(|d| d.service.as_ref()).map(|s| s.name.as_str()),
            original = self.original.map(display),
            environment = decision.and_then(|d| d.environment.as_ref()).map(display),
            env_source = decision.map(|d| d.source.as_str()),
            reason = decision.map(|d| d.reason.as_str()),
            path = "relay",
            relayed_for = self.relayed_for.map(connect::Reason::as_str),
            backend = self.backend.map(display),
            header = self.header,
            dropped = self.dropped,
            bytes_up = self.bytes_up,
            bytes_down = self.bytes_down,
            grafted_up = self.grafted_up,
            grafted_down = self.grafted_down,
            graft_passes = self.graft_passes,
            duration_us = self.duration_us(),
            outcome = self.outcome.as_str(),
            error = self.error,
        );
    }
}

/// A connection the kernel decided by itself. Told when it is decided, as nobody sees its end.
#[derive(Clone, Copy, Debug)]
pub struct Direct<'a> {
    /// The workload.
    pub workload: &'a str,
    /// The service, if it still is one.
    pub service: Option<&'a str>,
    /// Where the client wanted to go.
    pub original: SocketAddr,
    /// The workload's environment.
    pub environment: Option<&'a str>,
    /// Why it goes where it goes.
    pub reason: &'static str,
    /// Where that is.
    pub backend: Option<SocketAddr>,
    /// Whether the kernel writes a header.
    pub injected: bool,
    /// Whether it was refused.
    pub refused: bool,
}

impl Direct<'_> {
    /// Where its environment came from.
    pub fn env_source(&self) -> &'static str {
        if self.environment.is_some() { EnvSource::Workload } else { EnvSource::None }.as_str()
    }

    /// What the server is told.
    pub fn header(&self) -> &'static str {
        match self {
            Self { injected: true, .. } => "propagate",
            Self { environment: Some(_), .. } => "strip",
            Self { environment: None, .. } => "none",
        }
    }
}

/// Logs one.
pub fn direct(line: &Direct<'_>) {
    let Direct { workload, service, original, environment, reason, backend, refused, .. } = *line;
    tracing::info!(
        target: "access",
        workload,
        service,
        %original,
        environment,
        env_source = line.env_source(),
        reason,
        path = if refused { "refused" } else { "direct" },
        backend = backend.map(display),
        header = line.header(),
        outcome = if refused { "refused" } else { "routed" },
    );
}
