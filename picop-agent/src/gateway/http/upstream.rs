//! Connections to the server, each of one environment.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future;
use http_body_util::{Either, Empty};
use hyper::{
    Request, Response,
    body::{Body as _, Frame, Incoming},
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::{exclusive::Exclusive, pool::Shelf, progress::Watched};
use crate::{
    gateway::stream::{OpenError, open},
    protocol,
};

/// What a server is asked.
pub type Asking = Request<AskingBody>;
/// A client's body, or none.
pub type AskingBody = Either<Watched, Empty<Bytes>>;
/// There is no answer.
pub type Failed = TrySendError<Asking>;

/// How often a server that speaks HTTP/2 is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// A connection's end to send at, and until when requests may begin there.
pub enum Sender {
    /// One request at a time.
    One(Box<Exclusive>, Instant),
    /// Many.
    Two(http2::SendRequest<AskingBody>, Instant),
}

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server took it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was taken, and broke.
    #[error("the server closed a new connection; does it speak HTTP, and take a PiCoP header?")]
    Handshake(#[source] hyper::Error),
}

impl Sender {
    /// Connects, with the header of an environment. After `age`, no further request begins there.
    pub async fn connect(
        destination: &str,
        shelf: &Shelf,
        is_http2: bool,
        patience: Duration,
        age: Duration,
    ) -> Result<Self, ConnectError> {
        let context = shelf.as_ref().map(protocol::Context::for_env);
        let stream =
            open(destination, context.as_ref().map_or(&[][..], protocol::Context::wire), patience).await?;
        let until = Instant::now() + age;
        if is_http2 {
            let io = TokioIo::new(stream);
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .handshake(io)
                .await
                .map_err(ConnectError::Handshake)?;
            // Its end shows in its answers, and in `is_ready`.
            tokio::spawn(async move { drop(connection.await) });
            return Ok(Self::Two(sender, until));
        }
        let exclusive = Exclusive::begin(stream).await.map_err(ConnectError::Handshake)?;
        Ok(Self::One(Box::new(exclusive), until))
    }

    /// Whether a request can be sent at once, as far as is known. Where the connection leads was decided when it was made, and
    /// it must not lead there for ever.
    pub fn is_ready(&self) -> bool {
        let (is_open, until) = match self {
            Self::One(exclusive, until) => (exclusive.is_ready(), until),
            Self::Two(sender, until) => (!sender.is_closed(), until),
        };
        is_open && Instant::now() < *until
    }

    /// The same, after a look at what the server has done to an idle connection.
    pub fn is_alive(&mut self) -> bool {
        match self {
            Self::One(exclusive, _) => exclusive.is_alive() && self.is_ready(),
            Self::Two(..) => self.is_ready(),
        }
    }

    /// Has it carry a request on whose answer has begun.
    pub fn go_on_alone(&mut self) {
        if let Self::One(exclusive, _) = self {
            exclusive.go_on_alone();
        }
    }

    /// Another end of the same connection, if it can have many.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::One(..) => None,
            Self::Two(sender, until) => Some(Self::Two(sender.clone(), *until)),
        }
    }

    /// Returns when the answer to the last request was read and another request can be sent; false if there can be none.
    pub async fn is_free(&mut self) -> bool {
        match self {
            Self::One(exclusive, _) => exclusive.is_free().await,
            Self::Two(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// Takes a request to be sent. What is returned is to be asked for its answer, by `poll_answer` of the same sender; a request
    /// that was not sent at all comes back with the error.
    pub fn submit(
        &mut self,
        request: Asking,
    ) -> impl Future<Output = Result<Response<Incoming>, Failed>> + use<> {
        match self {
            Self::One(exclusive, _) => future::Either::Left(exclusive.submit(request)),
            Self::Two(sender, _) => future::Either::Right(sender.try_send_request(request)),
        }
    }

    /// Whether the answer has begun.
    pub fn poll_answer<F: Future>(&mut self, answer: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self {
            Self::One(exclusive, _) => exclusive.poll_answer(answer, cx),
            Self::Two(..) => answer.poll(cx),
        }
    }

    /// More of the body of an answer that came from here.
    pub fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match self {
            Self::One(exclusive, _) => exclusive.poll_frame(body, cx),
            Self::Two(..) => Pin::new(body).poll_frame(cx),
        }
    }
}
