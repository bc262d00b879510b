//! Connections that begin with a header, both ways.

use std::{io, os::fd::AsFd, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

pub use picop_common::net::Source;

/// How long a peer may say nothing before it is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it is then asked.
const PROBES: Duration = Duration::from_secs(10);

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing came back in time.
    #[error(
        "{destination} did not accept a connection within {waited:?}; is it up, and may this host reach it?"
    )]
    Timeout {
        /// Where to.
        destination: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It was refused, or has no address.
    #[error("cannot connect to {destination}")]
    Connect {
        /// Where to.
        destination: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was accepted, and what it begins with could not be sent.
    #[error("{destination} closed a connection before its first bytes were sent")]
    First {
        /// Where to.
        destination: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

/// Connects to `host:port`, trying each of its addresses, and sends `first`.
///
/// # Errors
/// When no address takes the connection in time.
pub async fn open(destination: &str, first: &[u8], patience: Duration) -> Result<TcpStream, OpenError> {
    let connecting = timeout(patience, TcpStream::connect(destination)).await;
    let destination = || destination.to_owned();
    let mut stream = connecting
        .map_err(|_| OpenError::Timeout { destination: destination(), waited: patience })?
        .map_err(|source| OpenError::Connect { destination: destination(), source })?;
    let first_failed = |source| OpenError::First { destination: destination(), source };
    prepare(&stream).map_err(first_failed)?;
    if !first.is_empty() {
        // A new connection has room for a header and what was read with it, so this waits for nobody.
        stream.write_all(first).await.map_err(first_failed)?;
    }
    Ok(stream)
}

/// Has a connection send what it is given at once, and notice a peer that is gone without a word; a listener, all that it accepts
/// (Linux has them inherit both, which saves each of them four system calls).
///
/// # Errors
/// When the connection is gone already.
pub fn prepare(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE).with_interval(PROBES))
}

/// Has the peer of a stream that is about to be dropped see a reset.
pub fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection that was to be reset is gone");
    }
}
