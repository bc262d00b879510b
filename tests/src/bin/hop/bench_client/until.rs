//! When a change has arrived: connections without a pause, until one is routed by it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{PATIENCE, RESPONSE};
use crate::bench_wire::{Request, check_response};

/// What it took. Moments are nanoseconds of `CLOCK_MONOTONIC`, which all processes share.
#[derive(Debug, Serialize)]
pub struct Reached {
    /// When the first connection began that arrived there.
    began: u64,
    /// Connections that arrived elsewhere before.
    before: u64,
}

/// Connects until the server at `port` answers.
pub fn reached(to: SocketAddr, header: &[u8], port: u16) -> Result<Reached> {
    let request = [header, &Request::Exchange.bytes()].concat();
    let start = Instant::now();
    let mut before = 0;
    loop {
        let began = now()?;
        let mut stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request).context("sending")?;
        let mut response = [0; RESPONSE];
        stream.read_exact(&mut response).context("reading")?;
        if check_response(&response, port).is_ok() {
            return Ok(Reached { began, before });
        }
        before += 1;
        ensure!(start.elapsed() < PATIENCE * 3, "the server at {port} was not reached, {before} times");
    }
}

fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::Monotonic);
    Ok(u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?)
}
