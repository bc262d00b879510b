//! What `hop unwrap`, the instrumented server, tells of each connection.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::process::Proc;

/// One connection, told when it has ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Unwrapped {
    /// What its stream began with.
    pub verdict: Verdict,
    /// Payload bytes, client to server.
    pub up: u64,
    /// Payload bytes, server to client.
    pub down: u64,
    /// What ended it, if not the ends of both streams.
    pub error: Option<String>,
}

impl Unwrapped {
    /// The connections that a `hop unwrap` has told of.
    pub fn told(by: &Proc) -> Result<Vec<Self>> {
        let text = by.stdout();
        // The last line may be under way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("a report: {line}"));
        whole.lines().map(parse).collect()
    }
}

/// What a stream had by way of headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing: not a byte.
    #[default]
    Silent,
    /// The expected header at its start, and none behind it.
    Right,
    /// Bytes that are no header.
    NoHeader,
    /// The beginning of a header, and then the stream's end.
    HalfHeader,
    /// A header of other entries.
    WrongHeader,
    /// The expected header, and another one somewhere behind it.
    SecondHeader,
}
