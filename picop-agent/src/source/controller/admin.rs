//! The admin API of a proxy, as the reference's proxy has it.
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header,
};
use serde::Deserialize;

use super::envs::Envs;
use crate::{
    controller::{
        http::{Answer, Answers, line, whole},
        names::{BadValue, Destination},
        segment::unsegment,
    },
    protocol::{EnvId, EnvIdError},
    telemetry::chain,
};

/// Whoever answers.
#[derive(Debug)]
pub(super) struct Admin(pub Arc<Envs>);

/// An environment as the API has it. Missing fields are told by name.
#[derive(Deserialize)]
struct Entry {
    env_id: Option<String>,
    destination: Option<String>,
}

/// Why environments are not taken. None of them is then.
#[derive(Debug, thiserror::Error)]
enum BadEnvs {
    #[error("the body is not JSON of the right shape: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("`env_id`: {0}")]
    Env(#[from] EnvIdError),
}

fn envs(body: &[u8]) -> Result<Vec<(EnvId, Destination)>, BadEnvs> {
    let entries: Vec<Entry> = serde_json::from_slice(body)?;
    let entry = |entry: Entry| {
        let env = entry.env_id.ok_or(BadValue::Missing("env_id"))?;
        let destination = entry.destination.ok_or(BadValue::Missing("destination"))?;
        Ok((EnvId::new(&env)?, Destination::new(destination)?))
    };
    entries.into_iter().map(entry).collect()
}

impl Answers for Admin {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        self.answered(request).await
    }
}

impl Admin {
    /// Answers a request. What is answered 200 is kept.
    pub(super) async fn answered<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if path == "/admin/envs" {
            return match head.method {
                Method::PUT => match whole(body).await {
                    Ok(body) => self.put(&body).await,
                    Err(error) => line(error.status(), error),
                },
                _ => not_allowed("PUT"),
            };
        }
        let Some(env) = path.strip_prefix("/admin/env/").filter(|env| !env.contains('/')) else {
            return line(StatusCode::NOT_FOUND, "there are /admin/envs and /admin/env/ID");
        };
        let Some(env) = unsegment(env) else {
            return line(
                StatusCode::BAD_REQUEST,
                "the environment in the path is not percent-encoded as it should be",
            );
        };
        let env = match EnvId::new(&env) {
            Ok(env) => env,
            Err(error) => return line(StatusCode::BAD_REQUEST, error),
        };
        match head.method {
            Method::GET => self.get(&env),
            Method::DELETE => self.change(|table| drop(table.remove(&env))).await,
            _ => not_allowed("GET, DELETE"),
        }
    }

    async fn put(&self, body: &[u8]) -> Answer {
        match envs(body) {
            Ok(envs) => self.change(|table| table.extend(envs)).await,
            Err(error) => line(StatusCode::BAD_REQUEST, error),
        }
    }

    fn get(&self, env: &EnvId) -> Answer {
        let table = self.0.now();
        let Some(destination) = table.get(env) else {
            return line(StatusCode::NOT_FOUND, "there is no such environment");
        };
        let text = serde_json::json!({"env_id": env.as_str(), "destination": destination.as_str()});
        let mut answer = Response::new(Full::from(text.to_string()));
        let json = header::HeaderValue::from_static("application/json");
        answer.headers_mut().insert(header::CONTENT_TYPE, json);
        answer
    }

    async fn change(&self, change: impl FnOnce(&mut super::envs::Table) + Send) -> Answer {
        match self.0.change(change).await {
            Ok(()) => Response::new(Full::default()),
            Err(error) => {
                tracing::error!(error = chain(&error), "what the controller says is not taken");
                line(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be kept; see the agent's log")
            }
        }
    }
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = line(StatusCode::METHOD_NOT_ALLOWED, format_args!("the method is not one of {allowed}"));
    answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    answer
}
