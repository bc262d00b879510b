//! `/metrics` and `/healthz`, for whoever may read numbers.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::Metrics;
use crate::{
    gateway::{
        GatewayError, Life,
        life::{announce, listen},
    },
    telemetry::{chain, metrics::written},
};

/// Readers at once.
const READERS: u32 = 16;
/// How long one may take to ask.
const HEAD: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// Begins to listen; returns at once, with where.
///
/// # Errors
/// When the address is not to be had.
pub async fn start(address: SocketAddr, life: &Life) -> Result<SocketAddr, GatewayError> {
    let listener = listen(address).await?;
    let at = listener.local_addr().unwrap_or(address);
    announce("metrics", &listener);
    life.accept(listener, READERS, |_| {
        let life = life.clone();
        move |client, _| serve(life.clone(), client)
    })?;
    Ok(at)
}

async fn serve(life: Life, client: TcpStream) {
    let metrics = Arc::clone(life.metrics());
    let answering = service_fn(|request: Request<Incoming>| {
        let answer = if matches!(*request.method(), Method::GET | Method::HEAD) {
            answer(request.uri().path(), request.headers(), &metrics)
                .unwrap_or_else(|| say(StatusCode::NOT_FOUND, "here are /metrics and /healthz"))
        } else {
            let mut answer = say(StatusCode::METHOD_NOT_ALLOWED, "this can only be read");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            answer
        };
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(client), answering);
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::debug!(%error, "a reader of metrics is gone");
        },
        () = life.stopping() => {}
    }
}

/// What there is to read at a path, if there is something.
pub fn answer(path: &str, headers: &HeaderMap, metrics: &Metrics) -> Option<Answer> {
    match path {
        "/metrics" => Some(numbers(headers, metrics)),
        "/healthz" => Some(say(StatusCode::OK, "live")),
        _ => None,
    }
}

fn numbers(headers: &HeaderMap, metrics: &Metrics) -> Answer {
    let accepts = headers.get(ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    match written(&metrics.gather(), accepts) {
        Ok((form, text)) => {
            let mut answer = Response::new(Full::new(text.into()));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form));
            answer
        }
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, &chain(&error)),
    }
}

fn say(status: StatusCode, words: &str) -> Answer {
    let mut answer = Response::new(Full::new(format!("{words}\n").into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
