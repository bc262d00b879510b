//! What can be asked.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | the agent and the node, at one glance |
//! | `GET /v1/connections?environment=&service=&workload=` | connections that are open |
//! | `GET /v1/routes` | the services in effect |
//! | `GET /v1/routes/verify` | whether the kernel has the same |
//! | `GET /v1/environments`, `GET /v1/workloads` | those known |
//! | `GET /v1/explain?from=&to=&environment=` | why a connection would go where it would go |
//! | `GET /`, `GET /v1/matrix`, `GET /v1/usage` | the page, and what it shows |
//! | `GET /v1/trace` (Unix socket only) | decisions as they happen, one JSON object a line, without end |
//! | `GET /metrics` | numbers for Prometheus, in its text format or in OpenMetrics' |
//! | `GET /healthz` | 200 while connections are intercepted, else 503 |
//! | `GET /v1/config` | what the agent was told to do |
//! | `GET /v1/log`, `PUT /v1/log` (Unix socket only) | what is logged |

use std::{collections::HashMap, convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited, channel::Channel};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, body::Incoming, header};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    explain,
    http::{Access, Answer, text, whole},
    metrics, page,
    state::State,
    views::{connections, matrix, routes, things},
};
use crate::{
    intercept::canary::Status,
    telemetry::{chain, events::Heard, metrics::written},
};

/// Most bytes of a request's body.
const BODY: usize = 64 * 1024;
/// How often a trace without events sends an empty line: a reader that is gone shows only by writing.
const STILL_THERE: Duration = Duration::from_secs(1);
/// Lines of a trace on their way to its reader.
const UNDER_WAY: usize = 64;

/// What was asked cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It is not understood, or asks for what is not there.
    #[error("{0}")]
    Asked(String),
    /// What it asks for is not known here.
    #[error("{0}")]
    Unknown(String),
    /// The answer cannot be had.
    #[error("cannot be answered now")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ApiError {
    /// The answer cannot be had.
    pub fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Asked(_) => StatusCode::BAD_REQUEST,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What is said of an error.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct Problem {
    /// In words.
    pub error: String,
}

/// Answers one request.
pub async fn answer(state: &Arc<State>, access: Access, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, "/metrics") => numbers(state, request.headers()),
        (&Method::GET | &Method::HEAD, "/healthz") => health(state),
        _ if access == Access::Numbers => {
            text(StatusCode::NOT_FOUND, "here are /metrics and /healthz; `--http` has the rest\n")
        }
        (&Method::GET | &Method::HEAD, "/") => page::answer(),
        // It has the hooks tell of every connection, which costs each of them: not for whoever reaches a port.
        (&Method::GET, "/v1/trace") if access == Access::Owner => trace(Arc::clone(state)),
        (&Method::GET | &Method::HEAD, path) => json(read(state, path, &query).await),
        (&Method::PUT, "/v1/log") if access == Access::Owner => json(set_log(state, request).await),
        (&Method::PUT, "/v1/log") => text(StatusCode::FORBIDDEN, "only on the Unix socket\n"),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "this can only be read\n"),
    }
}

/// Answers `metrics`, in the format of OpenMetrics to those who accept it.
fn numbers(state: &State, headers: &HeaderMap) -> Answer {
    let elsewhere = match metrics::all(state) {
        Ok(families) => families,
        Err(error) => return text(error.status(), chain(&error)),
    };
    let families = state.hub.metrics().gather(elsewhere);
    let accepts = headers.get(header::ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    match written(&families, accepts) {
        Ok((form, body)) => whole(StatusCode::OK, form, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// 200 while connections are intercepted, else 503, with why not.
fn health(state: &State) -> Answer {
    match &state.canary.borrow().interception {
        Status::Live => text(StatusCode::OK, "live\n"),
        Status::Unknown => text(StatusCode::SERVICE_UNAVAILABLE, "not known yet\n"),
        Status::Dead(why) | Status::Slow(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

type Json = Result<Vec<u8>, ApiError>;

async fn read(state: &Arc<State>, path: &str, query: &str) -> Json {
    match path {
        "/v1/status" => encode(&things::status(state)?),
        "/v1/connections" => encode(&connections::all(state, &parameters(query)?).await?),
        "/v1/routes" => encode(&routes::all(state)),
        "/v1/routes/verify" => encode(&routes::verify(state)?),
        "/v1/matrix" => encode(&matrix::matrix(state)),
        "/v1/usage" => encode(&matrix::usage(state)?),
        "/v1/environments" => encode(&things::environments(state)),
        "/v1/workloads" => encode(&things::workloads(state)?),
        "/v1/explain" => encode(&explain::answer(state, &parameters(query)?)?),
        "/v1/config" => encode(&things::config(state)),
        "/v1/log" => encode(&things::Log { filter: state.logs.filter() }),
        _ => Err(ApiError::Unknown(format!("there is nothing at {path}"))),
    }
}

async fn set_log(state: &Arc<State>, request: Request<Incoming>) -> Json {
    let body = Limited::new(request.into_body(), BODY)
        .collect()
        .await
        .map_err(|error| ApiError::Asked(error.to_string()))?
        .to_bytes();
    let wanted: things::Log =
        serde_json::from_slice(&body).map_err(|error| ApiError::Asked(error.to_string()))?;
    let before = state.logs.set(&wanted.filter).map_err(|error| ApiError::Asked(chain(&error)))?;
    tracing::info!(before, now = wanted.filter, "what is logged was changed");
    encode(&wanted)
}

fn encode(value: &impl Serialize) -> Json {
    serde_json::to_vec(value).map_err(ApiError::failed)
}

fn json(answer: Json) -> Answer {
    const JSON: &str = "application/json";
    match answer {
        Ok(body) => whole(StatusCode::OK, JSON, body),
        Err(error) => {
            let problem = Problem { error: chain(&error) };
            let body = serde_json::to_vec(&problem).unwrap_or_default();
            whole(error.status(), JSON, body)
        }
    }
}

/// Reads a query string.
fn parameters<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let mut values = HashMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| ApiError::Asked(format!("{pair:?} is badly escaped")))?;
        if !value.is_empty() {
            values.insert(key, value);
        }
    }
    let object = values.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    serde_json::from_value(serde_json::Value::Object(object))
        .map_err(|error| ApiError::Asked(error.to_string()))
}

/// A value without its percent escapes; none if they are wrong.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A value with escapes wherever it may need any.
pub fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string");
        }
        text
    })
}

fn trace(state: Arc<State>) -> Answer {
    let (mut body_tx, body) = Channel::<Bytes, Infallible>::new(UNDER_WAY);
    tokio::spawn(async move {
        let mut listener = state.hub.events().listen();
        // So that whoever asks knows that it is being listened to.
        let mut line = Bytes::from_static(b"{\"listening\":true}\n");
        loop {
            if body_tx.send_data(line).await.is_err() {
                return; // The reader is gone.
            }
            let heard = match tokio::time::timeout(STILL_THERE, listener.next()).await {
                Ok(Heard::Event(event)) => serde_json::to_vec(&*event),
                Ok(Heard::Missed(missed)) => serde_json::to_vec(&serde_json::json!({ "missed": missed })),
                Err(_) => Ok(Vec::new()),
            };
            // There is nothing in an event that is not JSON.
            let mut bytes = heard.unwrap_or_default();
            bytes.push(b'\n');
            line = bytes.into();
        }
    });
    let mut answer = Response::new(body.boxed());
    let ndjson = header::HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for text in ["cart", "a b&c=d%", "kubepods.slice/pod*", "größe"] {
            assert_eq!(decoded(&encoded(text)).as_deref(), Some(text));
        }
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn queries() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Query {
            a: String,
            b: Option<String>,
        }
        let read = |query| parameters::<Query>(query).ok();
        assert_eq!(read("a=1%2B1&b="), Some(Query { a: "1+1".into(), b: None }));
        assert_eq!(read("b=2"), None);
    }
}
