//! Connecting to a backend, from inside the workload's network namespace: the server sees the workload's address, and
//! network policy holds.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use super::{event_loop::timeout, socket::Socket, sockets::Sockets};
use crate::{
    intercept::{
        grafts::Ticket,
        heartbeat::now_ns,
        maps::Maps,
        netns::{Family, NetnsError},
    },
    sys::tcp::acknowledge_with_data,
    telemetry::chain,
};

/// No endpoint took the connection.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Every one was tried. Tells of the last.
    #[error("none of {tried} endpoint(s) took the connection, the last being {last}: {source}")]
    AllFailed {
        /// How many were tried.
        tried: usize,
        /// The last one.
        last: SocketAddr,
        /// What it did.
        source: io::Error,
    },
    /// There was none to try.
    #[error("there is no endpoint to try")]
    None,
    /// The socket could not be made where it must be.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connected {
    /// The agent's end.
    pub server: Socket,
    /// The endpoint.
    pub backend: SocketAddr,
    /// How many of the first bytes were sent already.
    pub sent: usize,
}

/// Connects to the first of the backends that takes it, in the order they are given; those seen not to work a moment ago, by this or by a direct connection, come last. What is to be sent `first` goes out as soon as it can. With a
/// ticket the socket is prepared for a `graft`.
pub async fn connect(
    sockets: &Sockets,
    maps: &Maps,
    mut order: Vec<SocketAddr>,
    first: &[u8],
    graft: Option<&Ticket>,
    patience: Duration,
) -> Result<Connected, UpstreamError> {
    let mut failure = UpstreamError::None;
    let choice = order.len() > 1;
    if choice {
        let now = now_ns();
        // Stable: among equals the order holds.
        order.sort_by_cached_key(|to| maps.is_ejected(*to, now));
    }
    for (tried, to) in order.into_iter().enumerate() {
        match attempt(sockets, to, first, graft, patience).await {
            Ok((server, sent)) => return Ok(Connected { server, backend: to, sent }),
            Err(Failure::Netns(error)) => return Err(error.into()),
            Err(Failure::Io(source)) => {
                if choice && let Err(error) = maps.eject(to, now_ns()) {
                    tracing::warn!(error = chain(&error), %to, "cannot have an endpoint passed over");
                }
                failure = UpstreamError::AllFailed { tried: tried + 1, last: to, source };
            }
        }
    }
    Err(failure)
}

/// Connects to one endpoint. Returns the socket, and how many of the first bytes were sent.
async fn attempt(
    sockets: &Sockets,
    to: SocketAddr,
    first: &[u8],
    graft: Option<&Ticket>,
    patience: Duration,
) -> Result<(Socket, usize), Failure> {
    let server = Socket::new(sockets.take(Family::of(to)).await??.into());
    if let Some(ticket) = graft {
        ticket.upstream(server.as_fd())?;
    }
    if first.is_empty() {
        // The server may be the one to speak first, and is to know of the connection now.
        acknowledge_with_data(server.as_fd(), false)?;
    }
    server.connect(to)?;
    if !first.is_empty() {
        // A server on this node has answered the SYN before `connect` returned: nothing needs to be waited for.
        match server.try_send(first) {
            Ok(sent) => return Ok((server, sent)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // It took the connection, and ended it. That is for the client to see.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return Ok((server, 0));
            }
            Err(e) => return Err(e.into()),
        }
    }
    match timeout(Instant::now() + patience, server.connected()).await {
        Ok(connected) => connected?,
        Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
    Ok((server, 0))
}

enum Failure {
    Io(io::Error),
    Netns(NetnsError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<NetnsError> for Failure {
    fn from(error: NetnsError) -> Self {
        Self::Netns(error)
    }
}
