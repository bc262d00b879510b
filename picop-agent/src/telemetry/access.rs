//! The access line: exactly one per relayed connection, when it ends.

use std::{net::SocketAddr, time::Instant};

use crate::route::Decision;

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

/// What is to be told of a connection. Filled in as it becomes known; told when dropped, so that no way out of a
/// connection's code forgets it.
#[derive(Debug)]
pub struct AccessRecord {
    workload: String,
    client: SocketAddr,
    started: Instant,
    /// Where the client wanted to go.
    pub original: Option<SocketAddr>,
    /// What was decided.
    pub decision: Option<Decision>,
    /// Where it went.
    pub backend: Option<SocketAddr>,
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
    /// Starts one.
    pub fn new(workload: &str, client: SocketAddr) -> Self {
        Self {
            workload: workload.to_owned(),
            client,
            started: Instant::now(),
            original: None,
            decision: None,
            backend: None,
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

    /// Says how it ended, and why.
    pub fn end(&mut self, outcome: Outcome, error: impl Into<Option<String>>) {
        self.outcome = outcome;
        self.error = error.into();
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        let decision = self.decision.as_ref();
        tracing::info!(
            target: "access",
            workload = self.workload,
            client = %self.client,
            service = decision.and_then(|d| d.service.as_ref()).map(|s| s.name.as_str()),
            original = self.original.map(display),
            environment = decision.and_then(|d| d.environment.as_ref()).map(display),
            env_source = decision.map(|d| d.source.as_str()),
            reason = decision.map(|d| d.reason.as_str()),
            path = "relay",
            backend = self.backend.map(display),
            header = self.header,
            dropped = self.dropped,
            bytes_up = self.bytes_up,
            bytes_down = self.bytes_down,
            grafted_up = self.grafted_up,
            grafted_down = self.grafted_down,
            graft_passes = self.graft_passes,
            duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
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

/// Logs one.
pub fn direct(line: &Direct<'_>) {
    let Direct { workload, service, original, environment, reason, backend, injected, refused } = *line;
    tracing::info!(
        target: "access",
        workload,
        service,
        %original,
        environment,
        env_source = if environment.is_some() { "workload" } else { "none" },
        reason,
        path = if refused { "refused" } else { "direct" },
        backend = backend.map(display),
        header = if injected { "propagate" } else if environment.is_some() { "strip" } else { "none" },
        outcome = if refused { "refused" } else { "routed" },
    );
}
