//! `picop curl` and `picop connect`: a context for people at a terminal.

mod connect;
mod curl;
mod trust;

use std::{io, process::ExitCode};

use super::{ask::AskError, stream::OpenError};

/// There is nothing to print.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// No runtime.
    #[error("cannot start a runtime; are threads or files limited (ulimit)?")]
    Runtime(#[source] io::Error),
    /// There is no connection.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server was not reached, or did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Nobody's certificate could be taken.
    #[error(transparent)]
    Trust(#[from] trust::TrustError),
    /// A header that cannot be sent.
    #[error("the value of the header {0} cannot be sent: visible ASCII, please")]
    Header(String),
    /// The answer broke off.
    #[error("the answer broke off")]
    Broken(#[source] hyper::Error),
    /// Standard input cannot be read.
    #[error("reading standard input failed")]
    Input(#[source] io::Error),
    /// Standard output cannot be written.
    #[error("writing to standard output failed")]
    Output(#[source] io::Error),
    /// The connection failed.
    #[error("the connection broke; did the server reset it?")]
    Connection(#[source] io::Error),
}

/// `picop curl`.
///
/// # Errors
/// When there is no answer, or not all of it.
pub fn curl(args: super::args::CurlArgs) -> Result<ExitCode, TerminalError> {
    runtime()?.block_on(curl::run(args, &mut tokio::io::stdout()))
}

/// `picop connect`.
///
/// # Errors
/// When the server cannot be reached, or the connection does not end in order.
pub fn connect(args: &super::args::ConnectArgs) -> Result<(), TerminalError> {
    let runtime = runtime()?;
    let done = runtime.block_on(connect::run(args, tokio::io::stdin(), tokio::io::stdout()));
    // A read of a terminal cannot be broken off, and nobody waits for it.
    runtime.shutdown_background();
    done
}

fn runtime() -> Result<tokio::runtime::Runtime, TerminalError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TerminalError::Runtime)
}

#[cfg(test)]
mod tests;
