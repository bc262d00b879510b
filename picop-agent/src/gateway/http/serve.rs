//! One connection of a client.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{Request, body::Incoming, rt, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    forward::{Client, Edge},
    tls::Certificate,
};
use crate::telemetry::chain;

/// How often a client that speaks HTTP/2 is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 250;

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a TLS handshake, and for the first request.
    pub first: Duration,
    /// For each further one, of HTTP/1.1.
    pub next: Duration,
}

/// Serves one client until it has gone, or the gateway has.
pub async fn serve(
    edge: Arc<Edge>,
    certificate: Option<Arc<Certificate>>,
    patience: Patience,
    client: TcpStream,
    peer: SocketAddr,
) {
    let _open = edge.life.metrics().accepted();
    let Some(certificate) = certificate else {
        return requests(edge, patience, TokioIo::new(client), peer, false).await;
    };
    match timeout(patience.first, certificate.acceptor().accept(client)).await {
        Ok(Ok(client)) => requests(edge, patience, TokioIo::new(client), peer, true).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

async fn requests<S>(edge: Arc<Edge>, patience: Patience, client: S, peer: SocketAddr, is_tls: bool)
where
    S: rt::Read + rt::Write + Unpin + Send + 'static,
{
    let begun = AtomicBool::new(false);
    let asking = Arc::new(Client::new(peer, is_tls));
    let service = service_fn(|request: Request<Incoming>| {
        begun.store(true, Ordering::Relaxed);
        let (edge, asking) = (Arc::clone(&edge), Arc::clone(&asking));
        async move { Ok::<_, Infallible>(edge.answer(request, &asking).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.next);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS);
    let serving = builder.serve_connection_with_upgrades(client, service);
    tokio::pin!(serving);
    let is_silent = async {
        tokio::time::sleep(patience.first).await;
        if begun.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let served = tokio::select! {
        served = &mut serving => served,
        () = is_silent => {
            tracing::debug!(%peer, "no request came in time");
            return;
        }
        () = edge.life.stopping() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                served = serving => served,
                () = edge.life.ended() => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, error = chain(&*error), "a client's connection ended");
    }
    // It has its place among the connections until what it went on with has ended.
    asking.tunnels.close();
    asking.tunnels.wait().await;
}
