//! Connecting to a backend, from inside the workload's network namespace: the server sees the workload's address, and
//! network policy holds.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    intercept::netns::{Netns, NetnsError, NetnsThread},
    route::Backends,
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

/// Connects to the first of the backends that takes it, starting with the one whose turn it is.
pub async fn connect(
    thread: &NetnsThread,
    netns: &Arc<Netns>,
    backends: &Backends,
    turn: usize,
    patience: Duration,
) -> Result<(TcpStream, SocketAddr), UpstreamError> {
    let mut failure = UpstreamError::None;
    for (tried, to) in backends.in_turn(turn).enumerate() {
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
