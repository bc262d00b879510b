//! Why a gateway cannot begin.

use std::{io, net::SocketAddr};

use super::http::tls::TlsError;
use crate::telemetry::logs::LogError;

/// Why a gateway cannot begin, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No runtime.
    #[error("cannot start a runtime; are threads or files limited (ulimit)?")]
    Runtime(#[source] io::Error),
    /// No handler for signals.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// An address to listen at is not to be had.
    #[error("cannot listen at {address}; does another program, or is the port below 1024?")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A listener cannot be shared.
    #[error("cannot share a listener among threads; are open files limited (ulimit -n)?")]
    Share(#[source] io::Error),
    /// What is to be logged makes no sense.
    #[error("--log")]
    Log(#[from] LogError),
    /// There is no certificate to begin with.
    #[error("cannot offer TLS")]
    Tls(#[from] TlsError),
    /// The URL of a controller or of this proxy.
    #[error("{option} is http://HOST[:PORT], not {url}")]
    Url {
        /// The option.
        option: &'static str,
        /// What it was given.
        url: String,
    },
}
