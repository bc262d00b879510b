//! Many bytes over one connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{PATIENCE, RESPONSE, Way, long_nanos};
use crate::bench_wire::{Request, Stream, check_response};

/// Carries the stream's first `bytes` bytes, every one of which is compared at the other end; says how many nanoseconds it
/// took, from before the request until the receiver has all.
pub fn carry(to: SocketAddr, header: &[u8], port: u16, bytes: u64, way: Way, stream: &Stream) -> Result<u64> {
    let connection = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let ask = |header: &[u8], request: Request| {
        (&connection).write_all(&[header, &request.bytes()].concat()).context("sending the request")
    };
    // Which server it is, and that all of the way exists: outside of the time.
    ask(header, Request::Exchange)?;
    respond(&connection, port)?;
    let began = Instant::now();
    match way {
        Way::Up => {
            ask(b"", Request::Upload(bytes))?;
            stream.send(&connection, bytes)?;
            respond(&connection, port)?;
        }
        Way::Down => {
            ask(b"", Request::Download(bytes))?;
            stream.receive(&connection, bytes)?;
        }
    }
    Ok(long_nanos(began.elapsed()))
}

fn respond(mut connection: &TcpStream, port: u16) -> Result<()> {
    let mut response = [0; RESPONSE];
    connection.read_exact(&mut response).context("reading the response")?;
    check_response(&response, port)
}
