//! What one end of `hop stream` says.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What it met.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StreamReport {
    /// Whether everything asked for happened.
    pub ok: bool,
    /// What went wrong: `Io(kind)`, `Stalled`, `Mismatch`, `TooMuch`.
    pub error: Option<String>,
    /// Its own address.
    pub local: Option<SocketAddr>,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received, all of them as they should be.
    pub received: u64,
    /// Whether the peer's end of stream was seen.
    pub eof: bool,
    /// How often a non-blocking write found no room.
    pub would_block: u64,
    /// How often a blocking read answered EAGAIN before its time.
    pub out_of_turn: u64,
    /// How long it took, in microseconds.
    pub elapsed_us: u64,
}
