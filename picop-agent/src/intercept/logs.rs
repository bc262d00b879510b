//! What the kernel programs log, besides counting it. Never about a message, and nothing at all unless it is asked for: the
//! level is a constant to the verifier, which removes what is below it.

use std::time::Duration;

use aya_log::EbpfLogger;
use clap::ValueEnum;
use serde::Serialize;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// From which level on; the numbers are those of `aya_log_common::Level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum LogLevel {
    /// Nothing.
    #[default]
    Off = 0,
    /// What must not happen.
    Error = 1,
    /// Connections that do not get what they should.
    Warn = 2,
    /// The same; nothing is said at this level.
    Info = 3,
    /// What happens to each connection that gets a header.
    Debug = 4,
    /// The same; nothing is said at this level.
    Trace = 5,
}

/// Puts it into the agent's log, as of module `picop_ebpf`, until dropped. `programs` are those that are attached.
pub async fn forward(programs: Vec<u32>) {
    // Whichever is asked: they share one buffer. Those that say nothing do not have it.
    let Some(mut logger) = programs.iter().find_map(|id| EbpfLogger::init_from_id(*id).ok()) else {
        return tracing::warn!("what the kernel programs log cannot be read");
    };
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tick.tick().await;
        logger.flush();
    }
}
