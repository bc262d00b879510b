//! One connection after the other, with calls that wait: nothing but the connection's own work.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::{PATIENCE, RESPONSE, Times, long_nanos, nanos};
use crate::bench_wire::{Request, check_response};

/// Makes connections, all but the first `warm_up` of them timed.
pub fn block(to: &[SocketAddr], header: &[u8], warm_up: usize, port: Option<u16>) -> Result<Times> {
    let request = [header, &Request::Exchange.bytes()].concat();
    let mut times = Times::default();
    let mut began = Instant::now();
    for (number, to) in to.iter().enumerate() {
        if number == warm_up {
            began = Instant::now();
        }
        let into = (number >= warm_up).then_some(&mut times);
        exchange(*to, &request, port, into).with_context(|| format!("connection {number} to {to}"))?;
    }
    times.elapsed = long_nanos(began.elapsed());
    Ok(times)
}

fn exchange(to: SocketAddr, request: &[u8], port: Option<u16>, times: Option<&mut Times>) -> Result<()> {
    let start = Instant::now();
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    let connecting = Instant::now();
    socket.connect(&to.into()).context("connecting")?;
    let connected = Instant::now();
    let mut stream = TcpStream::from(socket);
    stream.write_all(request).context("sending")?;
    let mut response = [0; RESPONSE + 1];
    let mut filled = stream.read(&mut response).context("reading")?;
    let first_byte = Instant::now();
    while filled < RESPONSE {
        let count = stream.read(&mut response[filled..]).context("reading on")?;
        ensure!(count > 0, "the response ended after {filled} bytes");
        filled += count;
    }
    ensure!(filled == RESPONSE, "more than the response came");
    let closing = Instant::now();
    drop(stream);
    let end = Instant::now();
    ensure!(end - start < PATIENCE, "it took {:?}", end - start);
    if let Some(port) = port {
        check_response(&response[..filled], port)?;
    }
    if let Some(times) = times {
        times.connect.push(nanos(connected - connecting));
        times.first_byte.push(nanos(first_byte - connected));
        times.close.push(nanos(end - closing));
        times.whole.push(nanos(end - start));
    }
    Ok(())
}
