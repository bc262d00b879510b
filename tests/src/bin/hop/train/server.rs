//! The server behind the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, SERVER, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use picop_common::net::{Accepted, Listener, Rules};
use picop_common::protocol::{Context, EnvId};
use tokio::net::TcpStream;

/// The header of answers that says of which environment the connection is.
pub const ENVIRONMENT: &str = "x-environment";
/// Bytes of a chunk.
const CHUNK: usize = 2000;

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves at an address of its own, for as long as the runtime runs.
pub async fn start() -> Result<SocketAddr> {
    let mut listener = Listener::bind((std::net::Ipv4Addr::LOCALHOST, 0), Rules::default()).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((accepted, _)) = listener.accept().await {
            tokio::spawn(serve(accepted));
        }
    });
    Ok(address)
}

async fn serve(accepted: Accepted<TcpStream>) {
    let environment = accepted.context.as_ref().and_then(Context::env_id);
    let environment: Arc<str> = environment.as_ref().map_or("none", EnvId::as_str).into();
    let service = service_fn(|request| {
        let answer = answer(request, &environment);
        async { answer }
    });
    // How connections end is the gateway's affair; what is missing shows in the answers.
    drop(http1::Builder::new().serve_connection(TokioIo::new(accepted.stream), service).await);
}

fn answer(request: Request<Incoming>, environment: &str) -> hyper::http::Result<Response<Body>> {
    let path = request.uri().path();
    let count = |text: &str| text.parse().unwrap_or(0);
    let body = if let Some(text) = path.strip_prefix("/bytes/") {
        Full::from(vec![b'a'; count(text)]).map_err(|never| match never {}).boxed()
    } else if let Some(text) = path.strip_prefix("/chunks/") {
        let whole = Bytes::from(vec![b'c'; count(text)]);
        let starts = (0..whole.len()).step_by(CHUNK);
        let chunks = starts.map(|at| whole.slice(at..whole.len().min(at + CHUNK)));
        let frames: Vec<_> = chunks.map(|chunk| Ok(Frame::data(chunk))).collect();
        BodyExt::boxed(StreamBody::new(stream::iter(frames)))
    } else {
        request.into_body().boxed()
    };
    Response::builder()
        .header(ENVIRONMENT, environment)
        .header(SERVER, "train")
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(CACHE_CONTROL, "max-age=60")
        .header(ETAG, "\"5f3c-1a2b\"")
        .header(VARY, "accept-encoding")
        .body(body)
}
