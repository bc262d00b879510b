//! What a running agent answers: over a Unix socket for the `picop` command line, and, where it is asked to, over HTTP for
//! Prometheus and the page. Both speak HTTP/1.1 and share one set of [answers](api), nearly all of which read only; what
//! changes anything is answered on the Unix socket alone, which only its owner may use.

pub mod api;
pub mod client;
pub mod explain;
pub mod http;
pub mod metrics;
pub mod page;
pub mod socket;
pub mod state;
pub mod thread;
pub mod views;

use std::path::{Path, PathBuf};

/// Where an agent listens, unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/picop/admin.sock";

/// The socket of an agent that was told `given`; none if it is not to have one.
pub fn socket_path(given: &Path) -> Option<PathBuf> {
    (!given.as_os_str().is_empty()).then(|| given.to_owned())
}
