//! The relay path: accept, read the header, decide, connect upstream, write the header or not, and carry bytes, FINs and
//! resets both ways.

mod buffers;
mod connection;
mod event_loop;
mod graft;
mod late;
mod limits;
mod pipes;
mod pump;
pub mod server;
mod socket;
mod sockets;
pub mod threads;
mod upstream;

use std::time::Duration;

/// How long and how much the relay bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a header that has begun to arrive, or must come, to be whole.
    pub header_timeout: Duration,
    /// For one endpoint to accept a connection.
    pub connect_timeout: Duration,
    /// For a variant to have something ready, where connections wait for that.
    pub variant_wait: Duration,
    /// Connections at once.
    pub max_connections: u32,
    /// Connections of one workload at once, where its entry does not say.
    pub max_connections_per_workload: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            variant_wait: Duration::from_secs(30),
            max_connections: 50_000,
            max_connections_per_workload: 10_000,
        }
    }
}
