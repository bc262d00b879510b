//! What the gateway's tests have in common: sockets on loopback, headers, and a patience that ends.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use picop_common::header::{Field, MAX_LEN, encode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::connection::Rules;
use crate::protocol::ExpectHeader;

/// Waits for what is to happen soon.
#[track_caller]
pub fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        let done = tokio::time::timeout(Duration::from_secs(20), future).await;
        done.unwrap_or_else(|_| panic!("it does not happen: {caller}"))
    }
}

/// A listener, and where it is.
pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    (listener, at)
}

/// A header of these fields.
pub fn header(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut fields: Vec<_> = fields.iter().map(|(key, value)| Field::new(key, value)).collect();
    let mut out = [0; MAX_LEN];
    let len = encode(&mut fields, &mut out).expect("a header");
    out[..len].to_vec()
}

/// The header of an environment.
pub fn of(environment: &str) -> Vec<u8> {
    header(&[("Env-Id", environment)])
}

pub fn rules(expect: ExpectHeader) -> Rules {
    Rules {
        expect,
        header_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(5),
        buffer: 4096,
    }
}

pub async fn connect(at: SocketAddr) -> TcpStream {
    within(TcpStream::connect(at)).await.expect("a connection")
}

pub async fn accept(listener: &TcpListener) -> TcpStream {
    within(listener.accept()).await.expect("a connection").0
}

pub async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    within(stream.write_all(bytes)).await.expect("a peer that reads");
}

/// Exactly these bytes come next.
#[track_caller]
pub fn expect<'a>(stream: &'a mut TcpStream, bytes: &'a [u8]) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let mut got = vec![0; bytes.len()];
        within(stream.read_exact(&mut got)).await.unwrap_or_else(|error| panic!("{caller}: {error}"));
        assert_eq!(got.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{caller}");
    }
}

/// All that comes until the end, and then how it ends.
pub async fn rest(stream: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut got = Vec::new();
    let end = within(stream.read_to_end(&mut got)).await;
    (got, end.map(drop))
}

/// It ends in order, with nothing more.
pub async fn expect_end(stream: &mut TcpStream) {
    let (got, end) = rest(stream).await;
    assert_eq!((got, end.map_err(|error| error.kind())), (Vec::new(), Ok(())));
}

/// It is reset.
pub async fn expect_reset(stream: &mut TcpStream) {
    let (got, end) = rest(stream).await;
    assert_eq!((got, end.map_err(|error| error.kind())), (Vec::new(), Err(io::ErrorKind::ConnectionReset)));
}

/// An HTTP/1.1 server.
pub async fn http_server<S, F>(answer: S) -> SocketAddr
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let (listener, at) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answering = answer(request);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(serving.await);
            });
        }
    });
    at
}

/// A body as text.
pub async fn text(answer: Response<Incoming>) -> String {
    let body = within(answer.into_body().collect()).await.expect("a whole body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}
