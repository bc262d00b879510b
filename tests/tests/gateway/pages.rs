//! A web server that keeps connections alive, says which environment it is of, and echoes websockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT};
use hyper::header::{SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::Result;

/// A server of one environment.
pub struct Pages {
    pub at: SocketAddr,
    /// Connections it has had.
    pub connections: Arc<AtomicUsize>,
}

impl Pages {
    /// Serves at a port of loopback for as long as the process lives.
    pub fn start(environment: &'static str) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let at = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || runtime.block_on(serve(listener, environment, &counted)));
        Ok(Self { at, connections })
    }
}

async fn serve(listener: std::net::TcpListener, environment: &'static str, connections: &AtomicUsize) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("within a runtime");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        connections.fetch_add(1, Ordering::Relaxed);
        let answer =
            service_fn(move |request| async move { Ok::<_, Infallible>(answer(environment, request)) });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        // A client that goes away is no failure.
        tokio::spawn(async move { drop(serving.with_upgrades().await) });
    }
}

fn answer(environment: &'static str, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).cloned() {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgraded.await {
                echo(environment, TokioIo::new(upgraded)).await;
            }
        });
        return Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
            .body(Full::default())
            .expect("a good answer");
    }
    let body = if request.uri().path() == "/" {
        format!("<!doctype html><title>{environment}</title><p>{environment}")
    } else {
        format!("{environment} {}", request.uri().path())
    };
    Response::builder()
        .header(CONTENT_TYPE, "text/html")
        .header(ACCESS_CONTROL_ALLOW_ORIGIN, "*")
        .body(Full::from(body))
        .expect("a good answer")
}

/// Says who it is, and sends back what comes.
async fn echo(environment: &'static str, io: TokioIo<hyper::upgrade::Upgraded>) {
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    if socket.send(environment.into()).await.is_err() {
        return;
    }
    while let Some(Ok(message)) = socket.next().await {
        let is_for_me = message.is_text() || message.is_binary();
        if is_for_me && socket.send(message).await.is_err() {
            return;
        }
    }
}
