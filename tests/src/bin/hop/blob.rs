//! A server that answers with a computable stream, and whose client may have shut down its write side long before.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use testbed::blob;

use crate::server;

const CHUNK: usize = 64 * 1024;

#[derive(clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// How many bytes to answer with
    #[arg(long)]
    bytes: u64,
    /// Close with a reset after so many bytes of the answer
    #[arg(long)]
    reset_after: Option<u64>,
    /// End the stream, in order, after so many bytes of the answer
    #[arg(long)]
    stop_after: Option<u64>,
    /// Wait so long before each 64 KiB of the answer
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

pub fn run(args: &Args) -> Result<()> {
    let listener = server::listen(args.listen)?;
    let cut = args.reset_after.or(args.stop_after).unwrap_or(u64::MAX).min(args.bytes);
    let (reset, pause) = (args.reset_after.is_some(), Duration::from_millis(args.pause_ms));
    server::serve(&listener, move |mut stream, _| {
        read_request(&mut stream)?;
        send(&mut stream, cut, pause)?;
        if reset { server::reset(stream) } else { Ok(stream.shutdown(Shutdown::Write)?) }
    })
}

/// Reads up to the first newline, or to the end of the stream.
fn read_request(stream: &mut TcpStream) -> Result<()> {
    let mut buf = [0; 4096];
    loop {
        let count = stream.read(&mut buf)?;
        if count == 0 || buf[..count].contains(&b'\n') {
            return Ok(());
        }
    }
}

fn send(stream: &mut TcpStream, bytes: u64, pause: Duration) -> Result<()> {
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes {
        let count = CHUNK.min(usize::try_from(bytes - at).unwrap_or(CHUNK));
        blob::fill(at, &mut buf[..count]);
        thread::sleep(pause);
        stream.write_all(&buf[..count])?;
        at += count as u64;
    }
    Ok(())
}
