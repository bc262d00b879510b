//! A proxy's admin API, from the outside.
use std::{fmt::Write as _, io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

use crate::telemetry::chain;

/// How long a proxy may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a proxy may take to answer.
const ANSWER: Duration = Duration::from_secs(4);

/// As much of an answer is read. More of a reason nobody wants.
const MOST: usize = 64 << 10;

/// What became of a message that was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    /// It was not sent.
    #[error("cannot connect to {at}; does the proxy run, and may it be reached from here?")]
    Connect {
        /// Where.
        at: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It may have arrived, or may yet.
    #[error("no answer to {what}: {why}")]
    NoAnswer {
        /// The request.
        what: String,
        /// Why not.
        why: String,
    },
    /// It arrived, and was refused.
    #[error("{what} was answered {status}: {body:?}")]
    Refused {
        /// The request.
        what: String,
        /// How.
        status: StatusCode,
        /// The answer.
        body: String,
    },
}

/// One environment of a proxy, as its admin API has it.
#[derive(Debug, Serialize)]
pub(super) struct Env<'a> {
    pub env_id: &'a str,
    pub destination: &'a str,
}

/// A proxy.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: String,
    connection: Option<(http1::SendRequest<Full<Bytes>>, AbortHandle)>,
}

impl Client {
    /// The proxy whose admin API is at `endpoint`. It is connected to when there is something to say.
    pub(super) fn new(endpoint: &str) -> Self {
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), connection: None }
    }

    pub(super) fn is_at(&self, endpoint: &str) -> bool {
        self.endpoint == endpoint.trim_end_matches('/')
    }

    /// Sets environments.
    pub(super) async fn put(&mut self, envs: &[Env<'_>]) -> Result<(), PushError> {
        let body = serde_json::to_vec(envs).expect("texts");
        self.ask(Method::PUT, "/admin/envs", body).await
    }

    /// Removes an environment.
    pub(super) async fn delete(&mut self, env: &str) -> Result<(), PushError> {
        match self.ask(Method::DELETE, &format!("/admin/env/{}", segment(env)), vec![]).await {
            // It has none: that is what was wanted.
            Err(PushError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            result => result,
        }
    }

    async fn ask(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<(), PushError> {
        let url = format!("{}{path}", self.endpoint);
        let what = format!("{method} {url}");
        let no_answer = |why: String| PushError::NoAnswer { what: what.clone(), why };
        let uri: Uri = url.parse().map_err(|_| self.not_an_address())?;
        let host = uri.authority().ok_or_else(|| self.not_an_address())?.clone();
        let request = Request::builder()
            .method(method)
            .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, host.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
            .map_err(|_| self.not_an_address())?;
        let sender = self.connected(&uri).await?;
        let asked = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MOST).collect().await;
            let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
            Ok::<_, hyper::Error>((status, body))
        };
        let (status, body) = match timeout(ANSWER, asked).await {
            Ok(Ok((status, body))) => (status, body.map_err(drop)),
            Ok(Err(error)) => {
                self.disconnect();
                return Err(no_answer(chain(&error)));
            }
            Err(_) => {
                self.disconnect();
                return Err(no_answer(format!("not within {ANSWER:?}")));
            }
        };
        if body.is_err() {
            // The status has been said all the same.
            self.disconnect();
        }
        if status.is_success() {
            return Ok(());
        }
        let body = body.unwrap_or_default().trim().chars().take(200).collect();
        Err(PushError::Refused { what, status, body })
    }

    /// Only what another controller, or a person, has written into the database can be none.
    fn not_an_address(&self) -> PushError {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no URL of HTTP");
        PushError::Connect { at: self.endpoint.clone(), source }
    }

    async fn connected(&mut self, uri: &Uri) -> Result<&mut http1::SendRequest<Full<Bytes>>, PushError> {
        if self.connection.as_ref().is_some_and(|(sender, _)| sender.is_closed()) {
            self.disconnect();
        }
        if self.connection.is_none() {
            let failed = |source| PushError::Connect { at: self.endpoint.clone(), source };
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(80);
            let stream = match timeout(CONNECT, TcpStream::connect((host, port))).await {
                Ok(stream) => stream.map_err(failed)?,
                Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
            };
            // It matters little if it is not to be had.
            stream.set_nodelay(true).ok();
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| failed(io::Error::other(error)))?;
            let task = tokio::spawn(async move {
                // Told to whoever asks.
                connection.await.ok();
            });
            self.connection = Some((sender, task.abort_handle()));
        }
        let (sender, _) = self.connection.as_mut().expect("made above");
        Ok(sender)
    }

    fn disconnect(&mut self) {
        if let Some((_, task)) = self.connection.take() {
            task.abort();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// A name as a segment of a path.
fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string");
        }
    }
    text
}
