//! Connecting to a backend, from inside the workload's network namespace: the server sees the workload's address, and
//! network policy holds.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    intercept::{
        heartbeat::now_ns,
        maps::Maps,
        netns::{Netns, NetnsError, NetnsThread},
    },
    route::Backends,
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

/// Connects to the first of the backends that takes it, starting with the one whose turn it is; those seen not to work a
/// moment ago, by this or by a direct connection, come last.
pub async fn connect(
    thread: &NetnsThread,
    maps: &Maps,
    netns: &Arc<Netns>,
    backends: &Backends,
    turn: usize,
    patience: Duration,
) -> Result<(TcpStream, SocketAddr), UpstreamError> {
    let mut failure = UpstreamError::None;
    let mut order: Vec<_> = backends.in_turn(turn).collect();
    let choice = order.len() > 1;
    if choice {
        let now = now_ns();
        // Stable: among equals the turn holds.
        order.sort_by_cached_key(|to| maps.is_ejected(*to, now));
    }
    for (tried, to) in order.into_iter().enumerate() {
        let attempt = async {
            let socket = thread.socket(Arc::clone(netns), to).await??;
            let socket = TcpSocket::from_std_stream(OwnedFd::from(socket).into());
            let stream = match timeout(patience, socket.connect(to)).await {
                Ok(connected) => connected?,
                Err(_) => return Err(Failure::Io(io::Error::from(io::ErrorKind::TimedOut))),
            };
            // What is relayed was put together by the client already; waiting for more would only delay it.
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        match attempt.await {
            Ok(stream) => return Ok((stream, to)),
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
