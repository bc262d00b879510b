//! `picop gateway http`: an environment for each HTTP request.
//!
//! A request's environment is looked for in its host, a header and a cookie; it is then sent over a connection that begins with
//! the PiCoP header of that environment. Connections are kept per environment, so clients may keep theirs alive: one connection of
//! a client may carry requests of many environments, one connection to the server never does.

mod answer;
mod client;
mod environment;
mod forward;
mod headers;
pub mod hosts;
mod limits;
mod places;
mod plain;
mod pool;
mod progress;
mod repeat;
mod serve;
pub mod tls;
mod tunnel;
mod upstream;

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Mutex};

use self::{
    environment::Finder, forward::Edge, limits::Limits, places::Places, pool::Pool, serve::Patience,
    tls::Certificate,
};
use super::{
    GatewayError, Life,
    args::HttpArgs,
    life::{announce, listen},
};

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// Begins to listen; returns at once.
///
/// # Errors
/// When the address is not to be had, or there is no certificate.
pub async fn start(args: HttpArgs, life: &Life) -> Result<(), GatewayError> {
    let certificate = match args.tls_cert.clone().zip(args.tls_key.clone()) {
        Some((cert, key)) => Some(Arc::new(Certificate::read(cert, key)?)),
        None => None,
    };
    let listener = listen(args.listen).await?;
    announce(if certificate.is_some() { "https" } else { "http" }, &listener);
    if let Some(certificate) = certificate.clone() {
        until_stopped(life, async move { certificate.follow().await });
    }
    let patience = Patience { first: args.common.header_timeout, next: args.client_idle };
    let places = Places::new(args.max_requests.max(1));
    let edges: Vec<_> = (0..life.workers()).map(|_| Arc::new(edge(args.clone(), &places, life))).collect();
    accept(listener, args.common.max_connections, &edges, certificate.as_ref(), patience)?;
    let pools: Vec<_> = edges.iter().map(|edge| Arc::clone(&edge.pool)).collect();
    let stopping = life.clone();
    life.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => pools.iter().for_each(|pool| pool.sweep()),
                () = stopping.stopping() => break,
            }
        }
        for pool in &pools {
            pool.close();
        }
    });
    Ok(())
}

/// What one worker's requests have in common.
fn edge(args: HttpArgs, places: &Arc<Places>, life: &Life) -> Edge {
    Edge {
        finder: Finder {
            hosts: args.host_pattern,
            header: args.header,
            cookie: args.cookie,
            default: args.env_id,
        },
        upstream: args.upstream,
        is_http2: args.upstream_http2,
        connect_timeout: args.common.connect_timeout,
        limits: Limits::new(args.answer_timeout),
        connection_age: args.pool_age,
        pool: Arc::new(Pool::new(args.pool_size.div_ceil(life.workers()), args.pool_idle)),
        connecting: Mutex::default(),
        places: Arc::clone(places),
        life: life.clone(),
    }
}

fn accept(
    listener: TcpListener,
    at_once: u32,
    edges: &[Arc<Edge>],
    certificate: Option<&Arc<Certificate>>,
    patience: Patience,
) -> Result<(), GatewayError> {
    edges[0].life.accept(listener, at_once, |worker| {
        let (edge, certificate) = (Arc::clone(&edges[worker]), certificate.cloned());
        move |client, peer| serve::serve(Arc::clone(&edge), certificate.clone(), patience, client, peer)
    })
}

fn until_stopped(life: &Life, task: impl Future<Output = ()> + Send + 'static) {
    let stopping = life.clone();
    life.spawn(async move {
        tokio::select! {
            () = task => {}
            () = stopping.stopping() => {}
        }
    });
}

#[cfg(test)]
mod tests;
