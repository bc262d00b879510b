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

/// Numbers that a seed decides (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Equal seeds, equal numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number less than `below`.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    /// A size from 1 to `max`, small ones as likely as large ones.
    pub fn size(&mut self, max: usize) -> usize {
        let bits = u64::from(usize::BITS - max.leading_zeros());
        let cap = 1_u64 << self.roll(bits + 1);
        let max = max as u64;
        usize::try_from(1 + self.roll(cap.min(max))).unwrap_or(1)
    }
}
