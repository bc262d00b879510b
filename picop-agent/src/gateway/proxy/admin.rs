//! The admin API of the reference's proxy.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /admin/envs`, a list of `{"env_id", "destination"}` | 200; 400 and the reason, and then nothing is changed |
//! | `GET /admin/env/{env-id}` | 200 `{"env_id", "destination"}`, or 404 |
//! | `DELETE /admin/env/{env-id}` | 200, whether it was there or not |
//!
//! And, which the reference has not, `GET /metrics` and `GET /healthz`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::table::{Entry, Table, read};
use crate::{
    gateway::{Life, metrics},
    protocol::{EnvId, baggage::percent_decode},
};

/// How long a client may take to send the head of a request, and how long it may say nothing between two.
const HEAD: Duration = Duration::from_secs(10);
/// How long it may take to send the body.
const BODY: Duration = Duration::from_secs(30);
/// The most bytes of a body: some ten thousand environments.
const MAX_BODY: usize = 4 * 1024 * 1024;

type Answer = Response<Full<Bytes>>;

/// Answers one client.
pub async fn serve(table: Arc<Table>, life: Life, client: TcpStream) {
    let answer = service_fn(|request: Request<Incoming>| {
        let table = Arc::clone(&table);
        let metrics = Arc::clone(life.metrics());
        async move {
            let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
            let numbers = metrics::answer(request.uri().path(), request.headers(), &metrics);
            Ok::<_, Infallible>(match numbers.filter(|_| is_read) {
                Some(numbers) => numbers,
                None => answer(&table, request).await,
            })
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(client), answer);
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = life.stopping() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                served = serving => served,
                () = life.ended() => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a client of the admin API is gone");
    }
}

async fn answer(table: &Table, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    if path == "/admin/envs" {
        return match method {
            Method::PUT => put(table, request.into_body()).await,
            _ => not_allowed("PUT"),
        };
    }
    let Some(name) = path.strip_prefix("/admin/env/").filter(|name| !name.is_empty() && !name.contains('/'))
    else {
        return say(StatusCode::NOT_FOUND, "there are /admin/envs and /admin/env/{env-id}");
    };
    let Ok(environment) = EnvId::from_bytes(&percent_decode(name.as_bytes())) else {
        return say(StatusCode::BAD_REQUEST, "that is no name of an environment");
    };
    match method {
        Method::GET => get(table, environment),
        Method::DELETE => {
            if table.delete(environment.as_str()) {
                tracing::info!(%environment, "an environment is gone");
            }
            say(StatusCode::OK, "")
        }
        _ => not_allowed("GET, DELETE"),
    }
}

async fn put(table: &Table, body: Incoming) -> Answer {
    let body = match tokio::time::timeout(BODY, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return say(StatusCode::PAYLOAD_TOO_LARGE, "send fewer at a time");
        }
        Ok(Err(_)) => return say(StatusCode::BAD_REQUEST, "the body broke off"),
        Err(_) => return say(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
    };
    let put = read(&body).and_then(|entries| {
        let count = entries.len();
        table.put(entries).map(|()| count)
    });
    match put {
        Ok(environments) => {
            tracing::info!(environments, "environments were told");
            say(StatusCode::OK, "")
        }
        Err(error) => {
            tracing::warn!(%error, "environments are refused");
            say(StatusCode::BAD_REQUEST, &error.to_string())
        }
    }
}

fn get(table: &Table, env_id: EnvId) -> Answer {
    let Some(destination) = table.get(env_id.as_str()) else {
        return say(StatusCode::NOT_FOUND, "there is no such environment");
    };
    let entry = Entry { env_id, destination: destination.to_string() };
    let json = serde_json::to_vec(&entry).expect("two strings");
    let mut answer = Response::new(Full::new(json.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = say(StatusCode::METHOD_NOT_ALLOWED, allowed);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// An answer in words, or of none.
fn say(status: StatusCode, words: &str) -> Answer {
    let line = if words.is_empty() { String::new() } else { format!("{words}\n") };
    let mut answer = Response::new(Full::new(line.into()));
    *answer.status_mut() = status;
    if !words.is_empty() {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, plain);
    }
    answer
}

#[cfg(test)]
mod tests;
