//! Ways into an environment for those who are no managed workload: people outside of the cluster, browsers, and programs of
//! PiCoP's reference implementation.
//!
//! - `gateway tcp` adds an environment to every connection ([`tcp`]).
//! - `gateway proxy` routes connections by their header, with destinations told by an admin API ([`proxy`]).
//! - `gateway http` finds an environment for each HTTP request, and forwards it over a connection with that header ([`http`]).
//! - `curl`, `connect` and `decode` are for a terminal ([`terminal`], [`decode`]).
//!
//! Nothing here knows of eBPF, and a gateway needs no privilege. It runs on tokio, a runtime for each thread that
//! serves ([`workers`]).

pub mod args;
mod ask;
mod connection;
pub mod decode;
mod error;
pub mod http;
mod life;
mod line;
mod listener;
mod metrics;
pub mod proxy;
mod pump;
mod stream;
pub mod tcp;
pub mod terminal;
#[cfg(test)]
mod testing;
mod workers;

pub use error::GatewayError;
pub use life::Life;

use std::{num::NonZeroUsize, thread, time::Duration};

use args::{CommonArgs, GatewayCommand};
use workers::Workers;

use crate::telemetry::logs;

/// Runs a gateway until it is told to stop and its connections have ended.
///
/// # Errors
/// When it cannot begin: an address that is taken, a certificate that cannot be read.
pub fn run(command: GatewayCommand) -> Result<(), GatewayError> {
    let common = match &command {
        GatewayCommand::Tcp(args) => &args.common,
        GatewayCommand::Proxy(args) => &args.common,
        GatewayCommand::Http(args) => &args.common,
    };
    let CommonArgs { log_format, log, drain_timeout, workers, metrics: numbers, .. } = common.clone();
    logs::init(log_format, &log)?;
    let workers = workers.unwrap_or_else(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let workers = Workers::start(workers.get()).map_err(GatewayError::Runtime)?;
    runtime()?.block_on(async {
        let life = Life::with_workers(&workers);
        let mut stop = life::Signals::new()?;
        if let Some(address) = numbers {
            metrics::start(address, &life).await?;
        }
        match command {
            GatewayCommand::Tcp(args) => tcp::start(args, &life).await?,
            GatewayCommand::Proxy(args) => proxy::start(args, &life).await?,
            GatewayCommand::Http(args) => http::start(*args, &life).await?,
        }
        stop.requested().await;
        tracing::info!(connections = life.connections(), "stopping");
        let left = tokio::select! {
            left = life.drain(drain_timeout) => left,
            // Whoever asks twice does not want to wait.
            () = stop.requested() => life.drain(Duration::ZERO).await,
        };
        tracing::info!(reset = left, "stopped");
        Ok(())
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, GatewayError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(GatewayError::Runtime)
}
