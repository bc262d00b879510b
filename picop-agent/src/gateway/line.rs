//! The access line of a gateway's connection: exactly one, when it ends.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Instant};

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
    /// Payload.
    pub carried: Carried,
    /// How it ended. As long as nobody says otherwise, the gateway ended it.
    pub outcome: Outcome,
    /// In words, if it did not end well.
    pub error: Option<String>,
}

impl Line {
    /// A connection was accepted.
    pub fn new(client: SocketAddr) -> Self {
        Self {
            client,
            since: Instant::now(),
            environment: None,
            env_source: "none",
            reason: None,
            destination: None,
            header: "none",
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
        tracing::info!(
            target: "access",
            client = %self.client,
            environment = self.environment.as_ref().map(display),
            env_source = self.env_source,
            reason = self.reason,
            destination = self.destination,
            path = "gateway",
            header = self.header,
            bytes_up = self.carried.up.load(Ordering::Relaxed),
            bytes_down = self.carried.down.load(Ordering::Relaxed),
            duration_us = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX),
            outcome = self.outcome.as_str(),
            error = self.error,
        );
    }
}
