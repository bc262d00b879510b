//! The access line of a gateway's connection: exactly one, when it ends.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::metrics::{Connection, Metrics};
use crate::{
    protocol::EnvId,
    telemetry::{access::Outcome, live::Carried},
};

/// What is to be told of a connection, filled in as it becomes known, and told when it is dropped, so that no way out of its
/// code forgets it.
#[derive(Debug)]
pub struct Line {
    client: SocketAddr,
    since: Instant,
    metrics: Arc<Metrics>,
    /// The environment it went to.
    pub environment: Option<EnvId>,
    /// Where that was named: `header`, `baggage`, `gateway` or `none`.
    pub env_source: &'static str,
    /// Why it went where it went.
    pub reason: Option<&'static str>,
    /// Where that is.
    pub destination: Option<String>,
    /// What the server was told: `propagate` (what the client sent), `added`, `strip` or `none`.
    pub header: &'static str,
    /// Entries of the client's header that had no room in it any more.
    pub dropped: usize,
    /// Payload.
    pub carried: Carried,
    /// How it ended. As long as nobody says otherwise, the gateway ended it.
    pub outcome: Outcome,
    /// In words, if it did not end well.
    pub error: Option<String>,
}

impl Line {
    /// A connection was accepted.
    pub fn new(client: SocketAddr, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            since: Instant::now(),
            metrics,
            environment: None,
            env_source: "none",
            reason: None,
            destination: None,
            header: "none",
            dropped: 0,
            carried: Carried::default(),
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

impl Drop for Line {
    fn drop(&mut self) {
        let (up, down) = (self.carried.up.load(Ordering::Relaxed), self.carried.down.load(Ordering::Relaxed));
        let lasted = self.since.elapsed();
        self.metrics.closed(&Connection {
            environment: self.environment.as_ref(),
            reason: self.reason,
            outcome: self.outcome,
            up,
            down,
            lasted,
        });
        tracing::info!(
            target: "access",
            client = %self.client,
            environment = self.environment.as_ref().map(display),
            env_source = self.env_source,
            reason = self.reason,
            destination = self.destination,
            path = "gateway",
            header = self.header,
            dropped = self.dropped,
            bytes_up = up,
            bytes_down = down,
            duration_us = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX),
            outcome = self.outcome.as_str(),
            error = self.error,
        );
    }
}
