//! Answers to clients, each with the access line of its request, and with the connection that it comes from.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    Method, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONTENT_TYPE, HeaderValue},
    http::uri::PathAndQuery,
};

use tokio::time::timeout;

use super::{
    client::UnderWay,
    environment::Source,
    places::Place,
    pool::{Pool, Shelf},
    upstream::Sender,
};
use crate::{
    gateway::metrics::{self, Metrics},
    protocol::EnvId,
};

/// How long the rest of a request may take that was answered already.
const REST: Duration = Duration::from_secs(5);

/// The access line of a request: exactly one, when its answer has ended.
pub struct RequestLine {
    pub metrics: Arc<Metrics>,
    /// Whose it is; idle from here on, if it has no other.
    pub under_way: UnderWay,
    pub since: Instant,
    pub method: Method,
    pub host: Option<HeaderValue>,
    /// With its query, which is not told.
    pub path: Option<PathAndQuery>,
    pub environment: Option<EnvId>,
    pub env_source: Source,
    /// Whether the connection to the server had served others before.
    pub reused: bool,
    pub status: Option<StatusCode>,
    /// Bytes of the answer's body.
    pub bytes_down: u64,
    /// `ok`, `failed` (the server did not answer, or not to the end), `client_reset`. As long as nobody says otherwise, the
    /// client went away.
    pub outcome: &'static str,
    pub error: Option<String>,
    /// Its place among the requests at once.
    pub place: Option<Place>,
    /// The connection that the answer comes from. Dropped with this if the client does not want all of it: what is left of the answer is
    /// nobody's.
    pub lent: Option<Lent>,
    /// When the answer had ended.
    pub ended: Option<Instant>,
}

impl Drop for RequestLine {
    fn drop(&mut self) {
        let now = self.ended.unwrap_or_else(Instant::now);
        self.under_way.ended_at(now);
        let took = now.saturating_duration_since(self.since);
        self.metrics.answered(&metrics::Request {
            environment: &self.environment,
            env_source: self.env_source.as_str(),
            status: self.status.map(|status| status.as_u16()),
            outcome: self.outcome,
            reused: self.reused,
            down: self.bytes_down,
            took,
        });
        tracing::info!(
            target: "access",
            client = %self.under_way.client().address,
            method = self.method.as_str(),
            host = text(self.host.as_ref()),
            path = self.path.as_ref().map_or("/", PathAndQuery::path),
            environment = self.environment.as_ref().map(EnvId::as_str),
            env_source = self.env_source.as_str(),
            reused = self.reused,
            status = self.status.map(|status| status.as_u16()),
            bytes_down = self.bytes_down,
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            outcome = self.outcome,
            error = self.error,
        );
    }
}

/// A host as text; empty if there is none, or it is not.
pub fn text(host: Option<&HeaderValue>) -> &str {
    host.and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// A connection that an answer comes from, and where it is kept afterwards.
pub struct Lent {
    /// None if it is not to be used again.
    pub pool: Option<Arc<Pool>>,
    pub sender: Sender,
}

impl Lent {
    /// Gives it back, `now`. The answer has ended for the client, and does for the connection in a moment.
    fn give_back(self, environment: Shelf, now: Instant) {
        let Self { pool, mut sender } = self;
        let Some(pool) = pool else { return };
        match sender {
            // It was never taken away.
            Sender::Two { .. } => {}
            Sender::One { .. } if sender.is_ready(now) => pool.keep(environment, sender, now),
            Sender::One { .. } => {
                tokio::spawn(async move {
                    // A server that has answered need not read what is left of the request, and its client is not to wait for that.
                    if timeout(REST, sender.is_free()).await.is_ok_and(|is_free| is_free) {
                        pool.keep(environment, sender, Instant::now());
                    }
                });
            }
        }
    }
}

/// The body of an answer.
pub struct AnswerBody {
    content: Content,
    line: Option<Box<RequestLine>>,
}

enum Content {
    Server(Incoming),
    Own(Option<Bytes>),
}

/// What clients get.
pub type Answer = Response<AnswerBody>;

/// A server's answer.
pub fn of_server(answer: Response<Incoming>, line: Box<RequestLine>) -> Answer {
    answer.map(|body| {
        let mut body = AnswerBody { content: Content::Server(body), line: Some(line) };
        // Nobody asks a body without bytes for any.
        if body.is_end_stream() {
            body.end();
        }
        body
    })
}

/// The gateway's own answer, in words.
pub fn own(status: StatusCode, words: &str, mut line: Box<RequestLine>) -> Answer {
    line.status = Some(status);
    let text = if words.is_empty() { Bytes::new() } else { format!("picop gateway: {words}\n").into() };
    line.outcome = "failed";
    let body = AnswerBody { content: Content::Own(Some(text)), line: Some(line) };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

/// An answer without a body, after which the connection is somebody else's.
pub fn switching(answer: Response<()>) -> Answer {
    answer.map(|()| AnswerBody { content: Content::Own(None), line: None })
}

impl AnswerBody {
    /// The answer has ended, all of it.
    fn end(&mut self) {
        let Some(line) = &mut self.line else { return };
        let now = Instant::now();
        line.outcome = "ok";
        line.ended = Some(now);
        if let Some(lent) = line.lent.take() {
            lent.give_back(line.environment.clone(), now);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.content {
            Content::Server(body) => ready!(Pin::new(body).poll_frame(cx)),
            Content::Own(text) => {
                return Poll::Ready(text.take().filter(|text| !text.is_empty()).map(Frame::data).map(Ok));
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                let count = frame.data_ref().map_or(0, Bytes::len);
                if let Some(line) = &mut self.line {
                    line.bytes_down += u64::try_from(count).unwrap_or(u64::MAX);
                }
                // Nobody asks once more where the length is known, or behind trailers.
                if frame.is_trailers() || self.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(error)) => {
                let error = crate::telemetry::chain(error);
                if let Some(line) = &mut self.line {
                    line.outcome = "failed";
                    line.error = Some(error);
                }
            }
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Server(body) => body.is_end_stream(),
            Content::Own(text) => text.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Server(body) => body.size_hint(),
            Content::Own(text) => SizeHint::with_exact(
                text.as_ref().map_or(0, |text| u64::try_from(text.len()).unwrap_or(u64::MAX)),
            ),
        }
    }
}
