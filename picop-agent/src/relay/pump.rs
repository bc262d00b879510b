//! Carrying bytes both ways, with half-close and reset.
//!
//! A FIN from one side becomes a FIN to the other, and the opposite direction goes on. A reset becomes a reset, but not
//! before what arrived ahead of it is delivered: a server that answers and then resets (it did not read all of the
//! request) must have its answer reach the client, as it would without a relay.

use std::{
    io,
    net::Shutdown,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::buffers::Buffer;

/// How long after one side is gone the last bytes it sent may take to reach the other.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Buffers one direction may carry before others have their turn.
const TURNS: u32 = 16;

/// Payload bytes so far. Outlives the pump, so that an aborted connection is told with what it carried.
#[derive(Debug, Default)]
pub struct Carried {
    /// Client to server.
    pub up: AtomicU64,
    /// Server to client.
    pub down: AtomicU64,
}

/// Which side ended the connection, if not both in order.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Both directions ended with a FIN.
    Closed,
    /// The client is gone.
    Client(io::ErrorKind),
    /// The server is gone.
    Upstream(io::ErrorKind),
}

/// Why one direction stopped before its FIN.
enum Stopped {
    Reading(io::Error),
    Writing(io::Error),
}

/// Carries until both directions have ended, or one side is gone.
pub async fn pump(client: &TcpStream, upstream: &TcpStream, carried: &Carried) -> End {
    let up = direction(client, upstream, &carried.up);
    let down = direction(upstream, client, &carried.down);
    tokio::pin!(up, down);
    let (mut up_done, mut down_done) = (false, false);
    // Set once a side is gone; the direction away from it may still deliver what it sent before.
    let mut gone: Option<(End, Instant)> = None;
    loop {
        if up_done && down_done {
            return gone.map_or(End::Closed, |(end, _)| end);
        }
        let deadline = gone.as_ref().map_or_else(Instant::now, |(_, since)| *since + LAST_BYTES);
        tokio::select! {
            result = &mut up, if !up_done => {
                up_done = true;
                match result.and_then(|()| finish(upstream, gone.as_ref())) {
                    Ok(()) => {}
                    // Nothing more will come from the client, and nothing can reach it.
                    Err(Stopped::Reading(e)) => return End::Client(e.kind()),
                    Err(Stopped::Writing(e)) => { gone.get_or_insert((End::Upstream(e.kind()), Instant::now())); }
                }
            }
            result = &mut down, if !down_done => {
                down_done = true;
                match result.and_then(|()| finish(client, gone.as_ref())) {
                    Ok(()) => {}
                    Err(Stopped::Reading(e)) => return End::Upstream(e.kind()),
                    Err(Stopped::Writing(e)) => { gone.get_or_insert((End::Client(e.kind()), Instant::now())); }
                }
            }
            // While a direction is stuck writing, nothing reads from its source, and a reset of that goes unnoticed.
            e = failed(client), if gone.is_none() => {
                gone = Some((End::Client(e), Instant::now()));
                down_done = true;
            }
            e = failed(upstream), if gone.is_none() => {
                gone = Some((End::Upstream(e), Instant::now()));
                up_done = true;
            }
            () = sleep_until(deadline), if gone.is_some() => {
                return gone.map_or(End::Closed, |(end, _)| end);
            }
        }
    }
}

/// Completes when the socket is in error (it was reset). Half-closed sockets are not.
async fn failed(stream: &TcpStream) -> io::ErrorKind {
    loop {
        match stream.ready(Interest::ERROR).await {
            Ok(ready) if ready.is_error() => return io::ErrorKind::ConnectionReset,
            Ok(_) => tokio::task::yield_now().await,
            Err(e) => return e.kind(),
        }
    }
}

/// Carries an end of stream to the other side.
///
/// Not when a side is gone: a socket tells of its reset once. If it told a write, a read finds the end of the stream, and
/// the other side would take an answer, or a request, that was cut off for a whole one.
fn finish(to: &TcpStream, gone: Option<&(End, Instant)>) -> Result<(), Stopped> {
    if gone.is_some() {
        return Ok(());
    }
    match SockRef::from(to).shutdown(Shutdown::Write) {
        Ok(()) => Ok(()),
        // The other side is gone already: its own direction tells.
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        Err(e) => Err(Stopped::Writing(e)),
    }
}

/// Carries bytes one way, up to the end of the stream.
async fn direction(from: &TcpStream, to: &TcpStream, carried: &AtomicU64) -> Result<(), Stopped> {
    loop {
        from.readable().await.map_err(Stopped::Reading)?;
        let mut buffer = Buffer::take();
        for turn in 1_u32.. {
            // `try_read` and `try_write` are outside tokio's budget: a fast pair would keep its thread for itself.
            if turn.is_multiple_of(TURNS) {
                tokio::task::yield_now().await;
            }
            match from.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    write_all(to, &buffer[..n]).await.map_err(Stopped::Writing)?;
                    carried.fetch_add(n as u64, Ordering::Relaxed);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Stopped::Reading(e)),
            }
        }
    }
}

/// Writes all of it, waiting as the other side's window lets.
pub async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
