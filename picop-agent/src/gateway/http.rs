//! `picop gateway http`: an environment for each HTTP request.
//!
//! A request's environment is looked for in its host, a header and a cookie; it is then sent over a connection that begins with
//! the PiCoP header of that environment. Connections are kept per environment, so clients may keep theirs alive: one connection of
//! a client may carry requests of many environments, one connection to the server never does.

mod answer;
mod environment;
mod forward;
mod headers;
pub mod hosts;
mod pool;
mod progress;
mod serve;
pub mod tls;
mod tunnel;
mod upstream;

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore},
};

use self::{environment::Finder, forward::Edge, pool::Pool, serve::Patience, tls::Certificate};
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
    let (at_once, first, next) = (args.common.max_connections, args.common.header_timeout, args.client_idle);
    let edge = Arc::new(edge(args, life));
    accept(listener, at_once, &edge, certificate, Patience { first, next });
    let pool = Arc::clone(&edge.pool);
    until_stopped(life, async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            pool.sweep();
        }
    });
    let stopping = life.clone();
    life.spawn(async move {
        stopping.stopping().await;
        edge.pool.close();
    });
    Ok(())
}

fn edge(args: HttpArgs, life: &Life) -> Edge {
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
        answer_timeout: args.answer_timeout,
        pool: Arc::new(Pool::new(args.pool_size, args.pool_idle)),
        connecting: Mutex::default(),
        places: Arc::new(Semaphore::new(args.max_requests.clamp(1, Semaphore::MAX_PERMITS))),
        life: life.clone(),
    }
}

fn accept(
    listener: TcpListener,
    at_once: u32,
    edge: &Arc<Edge>,
    certificate: Option<Arc<Certificate>>,
    patience: Patience,
) {
    let serving = Arc::clone(edge);
    edge.life.accept(listener, at_once, move |client, peer| {
        serve::serve(Arc::clone(&serving), certificate.clone(), patience, client, peer)
    });
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
