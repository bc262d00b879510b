//! The test client.

mod edge;
mod exchange;
mod many;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::conn::How;
use crate::payload;

#[derive(clap::Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// Where to connect to
    #[arg(long)]
    to: SocketAddr,
    /// Bind to this address first
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Reach the IPv4 address through an IPv6 socket (`::ffff:a.b.c.d`)
    #[arg(long)]
    mapped: bool,
    /// Never block: connect, read and write as an event loop does
    #[arg(long)]
    nonblocking: bool,
    /// Bound on each single wait
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
    /// Start with a PiCoP header that holds this entry; may be repeated (`env` stands for `env-id`)
    #[arg(long, value_name = "KEY=VALUE", value_parser = payload::entry)]
    header: Vec<(String, String)>,
    /// Send this text, after the header
    #[arg(long)]
    send_text: Option<String>,
    /// Send these bytes, after header and text
    #[arg(long)]
    send_hex: Option<String>,
    /// Send so many bytes of the computable stream, after everything else
    #[arg(long, default_value_t = 0)]
    upload: u64,
    /// Write the first so many bytes apart from the rest
    #[arg(long)]
    split_at: Option<usize>,
    /// Write every byte apart
    #[arg(long, conflicts_with = "split_at")]
    split_every_byte: bool,
    /// Pause between what is written apart
    #[arg(long, default_value_t = 5)]
    split_ms: u64,
    /// Stay silent for so long after connecting
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Shut down the write side after sending
    #[arg(long)]
    half_close: bool,
    /// Read exactly so many bytes
    #[arg(long, conflicts_with = "read_all")]
    expect_bytes: Option<u64>,
    /// Read until the end of the stream
    #[arg(long)]
    read_all: bool,
    /// Check that what is read is the computable stream
    #[arg(long)]
    expect_blob: bool,
    /// Wait so long before each read
    #[arg(long, default_value_t = 0)]
    read_pause_ms: u64,
    /// Stay connected for so long at the end
    #[arg(long, default_value_t = 0)]
    hold_ms: u64,
    /// Close with a reset
    #[arg(long)]
    reset: bool,
    /// How many connections to make
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// How many of them at once
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Send only when all of the first batch are connected
    #[arg(long)]
    together: bool,
    /// Serve all connections by one edge-triggered event loop. Each sends its opening and a computable stream of its own
    #[arg(long, conflicts_with_all = ["bind", "split_at", "split_every_byte", "delay_ms", "read_pause_ms", "hold_ms",
        "reset", "together", "nonblocking"])]
    edge_triggered: bool,
    /// The send buffer of each connection, in bytes, so that writes are cut short
    #[arg(long, requires = "edge_triggered")]
    send_buffer: Option<usize>,
}

impl Args {
    fn how(&self) -> How {
        How {
            to: self.to,
            bind: self.bind,
            mapped: self.mapped,
            nonblocking: self.nonblocking,
            timeout: Duration::from_millis(self.timeout_ms),
        }
    }

    /// How many bytes are to be read.
    fn wanted(&self) -> u64 {
        match (self.expect_bytes, self.read_all) {
            (Some(count), _) => count,
            (None, true) => u64::MAX,
            (None, false) => 0,
        }
    }

    /// What is sent ahead of the upload.
    fn opening(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if !self.header.is_empty() {
            bytes.extend(payload::header(&self.header)?);
        }
        bytes.extend(self.send_text.as_deref().unwrap_or_default().as_bytes());
        bytes.extend(testbed::hex::decode(self.send_hex.as_deref().unwrap_or_default())?);
        Ok(bytes)
    }
}

pub fn run(args: &Args) -> Result<()> {
    let opening = args.opening()?;
    let report = match (args.edge_triggered, args.count) {
        (false, 1) => serde_json::to_string(&exchange::report(args, &opening, || {}))?,
        (false, _) => serde_json::to_string(&many::run(args, &opening)?)?,
        (true, 1) => serde_json::to_string(&edge::run(args, &opening)?.first().context("one connection")?)?,
        (true, _) => {
            let start = Instant::now();
            let reports = edge::run(args, &opening)?;
            serde_json::to_string(&many::summarise(reports.into_iter(), start.elapsed()))?
        }
    };
    println!("{report}");
    Ok(())
}
