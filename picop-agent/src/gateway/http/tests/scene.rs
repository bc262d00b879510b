//! A gateway, and a server behind it that says of each request which environment its connection is of.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::{http1, http2},
    header::HOST,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::super::*;
use crate::{
    gateway::{
        stream::Source,
        testing::{connect, listener, within},
    },
    protocol::{EnvId, ExpectHeader, read_head},
};

pub type Body = BoxBody<Bytes, Infallible>;
/// A client's requests, of no body or a whole one.
pub type Sender = http1::SendRequest<Full<Bytes>>;

/// A gateway as tests want it: environments by `{env}.preview.localhost`, baggage and the cookie `env`.
pub fn edge_to(upstream: SocketAddr, life: &Life) -> Edge {
    Edge {
        finder: Finder {
            hosts: vec!["{env}.preview.localhost".parse().expect("a pattern")],
            header: hyper::header::HeaderName::from_static("baggage"),
            cookie: Some("env".to_owned()),
            default: None,
        },
        upstream: upstream.to_string(),
        is_http2: false,
        connect_timeout: Duration::from_secs(5),
        limits: Limits::new(Duration::from_secs(20)),
        connection_age: Duration::from_secs(60),
        pool: Arc::new(Pool::new(64, Duration::from_secs(60))),
        connecting: Mutex::default(),
        places: Places::new(1000),
        life: life.clone(),
    }
}

pub async fn begin(edge: Edge, certificate: Option<Arc<Certificate>>) -> (SocketAddr, Arc<Edge>) {
    let (listener, at) = listener().await;
    let edge = Arc::new(edge);
    let patience = Patience { first: Duration::from_secs(20), next: Duration::from_secs(20) };
    accept(listener, 1000, &[Arc::clone(&edge)], certificate.as_ref(), patience).expect("a listener");
    (at, edge)
}

/// A server that takes headers, of HTTP/1.1 and HTTP/2. The number of connections it had.
pub async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, at) = listener().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve_one(stream, number));
        }
    });
    (at, connections)
}

/// The environment that a connection begins with, and the connection behind it.
pub async fn opened(mut stream: TcpStream) -> (Option<EnvId>, TcpStream, BytesMut) {
    let mut read = BytesMut::new();
    let wait = Duration::from_secs(20);
    let head =
        read_head(&mut Source(&mut stream), &mut read, ExpectHeader::Always, wait).await.expect("a head");
    (head.context.and_then(|context| context.env_id()), stream, read)
}

async fn serve_one(stream: TcpStream, number: usize) {
    let (env, stream, read) = opened(stream).await;
    let env = env.map_or("none".to_owned(), |env| env.to_string());
    let (reading, writing) = stream.into_split();
    let io = tokio::io::join(std::io::Cursor::new(read).chain(reading), writing);
    let service = service_fn(move |request| {
        let env = env.clone();
        async move { Ok::<_, Infallible>(tell(request, &env, number).await) }
    });
    let serving = auto::Builder::new(TokioExecutor::new());
    let serving = serving.serve_connection_with_upgrades(TokioIo::new(io), service);
    drop(serving.await);
}

/// `environment path host`, and the request's body; or an echo, if another protocol is asked for.
async fn tell(mut request: Request<Incoming>, env: &str, number: usize) -> Response<Body> {
    if request.headers().get("upgrade").is_some_and(|protocol| protocol == "echo") {
        let upgraded = hyper::upgrade::on(&mut request);
        let hello = format!("{env}:");
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.expect("an upgrade"));
            io.write_all(hello.as_bytes()).await.expect("a client");
            let (mut reading, mut writing) = tokio::io::split(io);
            drop(tokio::io::copy(&mut reading, &mut writing).await);
            drop(writing.shutdown().await);
        });
        let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let answer = answer.header("connection", "Upgrade").header("upgrade", "echo");
        return answer.body(Full::default().boxed()).expect("an answer");
    }
    let text = |name: &str| {
        let value = request.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        value.unwrap_or_default()
    };
    let host = request.uri().authority().map_or_else(|| text("host"), ToString::to_string);
    let head = format!("{env} {} {host} {}", request.uri().path(), text("x-forwarded-proto"));
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let whole = [head.as_bytes(), b" ", &body].concat();
    let answer = Response::builder().header("x-connection", number).header("keep-alive", "timeout=9");
    answer.body(Full::from(whole).boxed()).expect("an answer")
}

/// A client of HTTP/1.1, with one connection.
pub async fn client(at: SocketAddr) -> Sender {
    let (sender, connection) = http1::handshake(TokioIo::new(connect(at).await)).await.expect("a connection");
    tokio::spawn(connection.with_upgrades());
    sender
}

/// A client of HTTP/2, with one connection.
pub async fn client2(at: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let io = TokioIo::new(connect(at).await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

pub fn request(host: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = Request::builder().method(method).uri(path).header(HOST, host);
    request.body(Full::from(body.to_owned())).expect("a request")
}

pub async fn ask(client: &mut Sender, request: Request<Full<Bytes>>) -> (StatusCode, String) {
    within(client.ready()).await.expect("a connection that is kept");
    let answer = within(client.send_request(request)).await.expect("an answer");
    let status = answer.status();
    (status, crate::gateway::testing::text(answer).await)
}

/// Waits for what another task is about to do.
pub async fn until(is_so: impl Fn() -> bool) {
    let watching = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    within(watching).await;
}
