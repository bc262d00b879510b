//! One connection of a client.

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use hyper::{Request, body::Incoming, rt, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    client::{Activity, Client},
    forward::Edge,
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

/// What may end a connection, besides its two ends.
enum Aside {
    Silent,
    Stopping,
}

/// Returns when a client has said nothing for too long.
async fn silence(client: &Client, patience: Patience) {
    loop {
        let now = Instant::now();
        let until = match client.activity() {
            Activity::New { since } => since + patience.first,
            Activity::Idle { since } => since + patience.next,
            // Whatever ends meanwhile has its whole time after that.
            Activity::Busy(_) => now + patience.next,
            Activity::Http2 => return pending().await,
        };
        if until <= now {
            return;
        }
        tokio::time::sleep_until(until.into()).await;
    }
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
    let asking = Arc::new(Client::new(peer, is_tls));
    let service = service_fn(|request: Request<Incoming>| {
        Arc::clone(&edge).answer(request, Arc::clone(&asking)).map(Ok::<_, Infallible>)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Silence is looked after below: hyper would make a timer for each request.
    builder.http1().header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS);
    let serving = builder.serve_connection_with_upgrades(client, service);
    tokio::pin!(serving);
    // Among unordered ones it is looked at when something came of it, and not each time that the connection moves.
    let aside = FuturesUnordered::from_iter([async {
        tokio::select! {
            () = silence(&asking, patience) => Aside::Silent,
            () = edge.life.stopping() => Aside::Stopping,
        }
    }]);
    tokio::pin!(aside);
    let served = tokio::select! {
        biased;
        served = &mut serving => served,
        Some(aside) = aside.next() => match aside {
            Aside::Silent => {
                tracing::debug!(%peer, "no request came in time");
                return;
            }
            Aside::Stopping => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    served = serving => served,
                    () = edge.life.ended() => return,
                }
            }
        },
    };
    if let Err(error) = served {
        tracing::debug!(%peer, error = chain(&*error), "a client's connection ended");
    }
    // It has its place among the connections until what it went on with has ended.
    asking.tunnels.close();
    asking.tunnels.wait().await;
}
