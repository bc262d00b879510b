//! Carrying bytes both ways, with half-close and reset.
//!
//! A FIN from one side becomes a FIN to the other, and the opposite direction goes on. If one side is gone, what it sent before
//! has a moment to reach the other.

use std::{
    future::Future,
    io,
    net::Shutdown,
    os::fd::AsFd as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{sys::tcp::unacknowledged, telemetry::live::Carried};

/// Bytes carried at a time, if nobody says otherwise.
pub const DEFAULT_BUFFER: usize = 32 * 1024;

/// How long after one side is gone the last bytes it sent may take to reach the other.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(5);

/// How a connection ended.
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
#[derive(Debug)]
enum Stopped {
    Reading(io::Error),
    Writing(io::Error),
}

/// Carries until both directions have ended, or one side is gone. `first` was read from the client already.
pub async fn pump(
    client: &TcpStream,
    upstream: &TcpStream,
    first: BytesMut,
    carried: &Carried,
    buffer: usize,
) -> End {
    let up = async {
        write_all(upstream, &first).await.map_err(Stopped::Writing)?;
        carried.up.fetch_add(len(&first), Ordering::Relaxed);
        drop(first);
        one_way(client, upstream, &carried.up, buffer).await
    };
    let down = one_way(upstream, client, &carried.down, buffer);
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut up => match ended {
            Ok(()) => tokio::select! {
                ended = down => match ended {
                    Ok(()) => End::Closed,
                    Err(stopped) => down_stopped(stopped, client).await,
                },
                kind = gone(client) => End::Client(kind),
            },
            Err(Stopped::Reading(error)) => End::Client(error.kind()),
            Err(Stopped::Writing(error)) => {
                last_bytes(client, down).await;
                End::Upstream(error.kind())
            }
        },
        ended = &mut down => match ended {
            Ok(()) => {
                let kind = tokio::select! {
                    ended = up => match ended {
                        Ok(()) => return End::Closed,
                        Err(Stopped::Reading(error)) => return End::Client(error.kind()),
                        Err(Stopped::Writing(error)) => error.kind(),
                    },
                    kind = gone(upstream) => kind,
                };
                // It has answered in full; what it did not want to read is no loss.
                delivered(client).await;
                End::Upstream(kind)
            }
            Err(stopped) => down_stopped(stopped, client).await,
        },
    }
}

/// Returns when a peer that sends no more, and so is not read from, has reset the connection.
async fn gone(peer: &TcpStream) -> io::ErrorKind {
    let error = match peer.ready(Interest::ERROR).await {
        Ok(_) => peer.take_error().ok().flatten(),
        Err(error) => Some(error),
    };
    match error.map(|error| error.kind()) {
        // What Linux says of a reset behind a FIN.
        None | Some(io::ErrorKind::BrokenPipe) => io::ErrorKind::ConnectionReset,
        Some(kind) => kind,
    }
}

async fn down_stopped(stopped: Stopped, client: &TcpStream) -> End {
    match stopped {
        Stopped::Reading(error) => {
            delivered(client).await;
            End::Upstream(error.kind())
        }
        Stopped::Writing(error) => End::Client(error.kind()),
    }
}

/// Lets what a server has said before it went reach the client.
async fn last_bytes(client: &TcpStream, down: impl Future<Output = Result<(), Stopped>>) {
    // Whatever becomes of it: the connection is over.
    let _ended = timeout(LAST_BYTES, down).await;
    delivered(client).await;
}

/// Returns when the peer has everything that was sent to it, or does not take it.
async fn delivered(stream: &TcpStream) {
    let all = async {
        while unacknowledged(stream.as_fd()).is_ok_and(|left| left > 0) {
            sleep(LOOK).await;
        }
    };
    // Whoever does not take it in time is reset with bytes on their way.
    let _in_time = timeout(LAST_BYTES, all).await;
}

/// Carries one direction to its FIN. An idle one holds no buffer.
async fn one_way(
    from: &TcpStream,
    to: &TcpStream,
    carried: &AtomicU64,
    buffer: usize,
) -> Result<(), Stopped> {
    loop {
        from.readable().await.map_err(Stopped::Reading)?;
        let mut bytes = Vec::with_capacity(buffer);
        loop {
            // Neither reading nor writing need ever wait; others must have their turn.
            tokio::task::consume_budget().await;
            match from.try_read_buf(&mut bytes) {
                Ok(0) => return finish(to).map_err(Stopped::Writing),
                Ok(_) => {
                    write_all(to, &bytes).await.map_err(Stopped::Writing)?;
                    carried.fetch_add(len(&bytes), Ordering::Relaxed);
                    bytes.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Stopped::Reading(error)),
            }
        }
    }
}

fn finish(to: &TcpStream) -> io::Result<()> {
    match SockRef::from(to).shutdown(Shutdown::Write) {
        // Gone already, which whoever reads from it will see.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

/// Writes all of it.
pub(super) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
