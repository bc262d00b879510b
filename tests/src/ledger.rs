//! What the kernel has counted, and whether it adds up.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::locate::picop_bin;

/// Longer than a round of the canary's, and shorter than the time between two.
const QUIET: Duration = Duration::from_millis(250);
/// For two looks in a row to say the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events that mean a connection did not get what it should have.
const BAD: [&str; 5] = ["enrol_failed", "inject_failed", "header_missed", "no_original", "endpoint_failed"];

/// Reasons for which the relay stands in for the kernel where a header is to be written.
const RELAYED: [&str; 2] = ["relay_no_inject", "relay_full"];

/// What `picop status --json` says of the one set that is pinned in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ledger {
    /// `alive`, `stale` or `ended`.
    pub agent: String,
    /// Sockets in the sockmap.
    pub enrolled_now: u64,
    /// Entries of maps.
    pub entries: BTreeMap<String, u64>,
    /// Connections by reason.
    pub connections: BTreeMap<String, u64>,
    /// Events.
    pub events: BTreeMap<String, u64>,
}

/// `picop status --json`.
pub fn status(pin_dir: &Path) -> Result<Value> {
    let output = Command::new(picop_bin()?).args(["status", "--json", "--pin-dir"]).arg(pin_dir).output()?;
    ensure!(output.status.success(), "picop status: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

impl Ledger {
    /// Reads it at a moment when nobody connects, not even the agent's canary: two readings in a row say the same.
    pub fn at_rest(pin_dir: &Path) -> Result<Self> {
        let start = Instant::now();
        let mut last = Self::read(pin_dir)?;
        loop {
            thread::sleep(QUIET);
            let next = Self::read(pin_dir)?;
            if next == last {
                return Ok(next);
            }
            ensure!(start.elapsed() < PATIENCE, "it never rests: {last:?}, then {next:?}");
            last = next;
        }
    }

    fn read(pin_dir: &Path) -> Result<Self> {
        let mut status = status(pin_dir)?;
        let sets = status["sets"].as_array_mut().context("no sets")?;
        ensure!(sets.len() == 1, "{} sets are pinned", sets.len());
        Ok(serde_json::from_value(sets.remove(0))?)
    }

    /// Events of one kind since an earlier reading.
    pub fn events_since(&self, earlier: &Self, event: &str) -> u64 {
        self.events.get(event).copied().unwrap_or(0) - earlier.events.get(event).copied().unwrap_or(0)
    }

    /// What does not add up since an earlier reading, between which `with_header` connections were sent with a header by the
    /// kernel, and `silent` ones were to be and ended without a word. All have ended. Says nothing if all adds up.
    ///
    /// The canary's connections with a header are those of a workload without environment: there must be no others of
    /// these, and a route file takes none.
    pub fn faults_since(&self, earlier: &Self, with_header: u64, silent: u64) -> Vec<String> {
        let events = |event: &str| self.events_since(earlier, event);
        let counted = |ledger: &Self, reason: &str| ledger.connections.get(reason).copied().unwrap_or(0);
        let since = |reason: &str| counted(self, reason) - counted(earlier, reason);
        let expected = with_header + since("no_environment");
        let mut faults = Vec::new();
        for reason in RELAYED {
            let count = since(reason);
            if count > 0 {
                faults.push(format!(
                    "{count} connections were relayed ({reason}) rather than sent a header by the kernel; what follows may \
                     come of that (the agent's log says why; on a machine that is too busy the canary fails)"
                ));
            }
        }
        let mut equal = |what: &str, got: u64, wanted: u64| {
            if got != wanted {
                faults.push(format!("{what}: {got}, not {wanted}"));
            }
        };
        equal("headers written", events("injected"), expected);
        equal("sockets enrolled", events("enrolled"), expected + silent);
        equal(
            "sockets that left the map",
            events("unenrolled") + events("unenrolled_closing"),
            expected + silent,
        );
        for event in BAD {
            equal(event, events(event), 0);
        }
        equal("sockets still enrolled", self.enrolled_now, 0);
        equal("original destinations left", self.entries["originals"], 0);
        equal("slots of connections", self.entries["flows"], earlier.entries["flows"]);
        for map in ["workloads", "headers", "routes"] {
            equal(map, self.entries[map], earlier.entries[map]);
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(counts: &[(&str, u64)]) -> Ledger {
        let all: BTreeMap<String, u64> =
            counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let entries = ["workloads", "headers", "routes", "originals", "flows"];
        Ledger {
            agent: "alive".to_owned(),
            enrolled_now: 0,
            entries: entries.iter().map(|map| ((*map).to_owned(), 0)).collect(),
            connections: all.clone(),
            events: all,
        }
    }

    #[test]
    fn what_adds_up() {
        let before = ledger(&[("injected", 5), ("enrolled", 5), ("unenrolled", 5), ("no_environment", 2)]);
        let good = [
            ("injected", 17),
            ("enrolled", 17),
            ("unenrolled", 16),
            ("unenrolled_closing", 1),
            ("no_environment", 4),
        ];
        assert_eq!(ledger(&good).faults_since(&before, 10, 0), [] as [String; 0]);
        assert_eq!(ledger(&good).faults_since(&before, 11, 0).len(), 3);
        assert_eq!(ledger(&good).faults_since(&before, 10, 1).len(), 2);
        for wrong in 0..4 {
            let mut counts = good;
            counts[wrong].1 += 1;
            assert_eq!(ledger(&counts).faults_since(&before, 10, 0).len(), 1, "{counts:?}");
        }
        let mut left = ledger(&good);
        left.enrolled_now = 1;
        left.entries.insert("originals".to_owned(), 3);
        left.entries.insert("flows".to_owned(), 2);
        left.entries.insert("headers".to_owned(), 1);
        let faults = left.faults_since(&before, 10, 0);
        assert_eq!(
            faults,
            [
                "sockets still enrolled: 1, not 0",
                "original destinations left: 3, not 0",
                "slots of connections: 2, not 0",
                "headers: 1, not 0"
            ]
        );
    }
}
