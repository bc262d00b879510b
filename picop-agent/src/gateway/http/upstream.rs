//! Connections to the server, each of one environment.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use super::{pool::Shelf, progress::Watched};
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
/// It is on its way.
pub type Sending = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Failed>> + Send>>;

/// How often a server that speaks HTTP/2 is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// A connection's end to send at, and until when requests may begin there.
pub enum Sender {
    /// One request at a time. Its connection ends with it, whatever goes on there.
    One { sender: http1::SendRequest<AskingBody>, until: Instant, _ends: Task },
    /// Many.
    Two { sender: http2::SendRequest<AskingBody>, until: Instant },
}

/// What ends with this.
pub struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
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
        let io = TokioIo::new(stream);
        let until = Instant::now() + age;
        // The end of a connection shows in its answers, and in `is_ready`.
        if is_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .handshake(io)
                .await
                .map_err(ConnectError::Handshake)?;
            tokio::spawn(async move { drop(connection.await) });
            return Ok(Self::Two { sender, until });
        }
        let (sender, connection) = http1::handshake(io).await.map_err(ConnectError::Handshake)?;
        let task = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Self::One { sender, until, _ends: Task(task.abort_handle()) })
    }

    /// Whether a request can be sent at once, as far as is known `now`. Where the connection leads was decided when it was made,
    /// and it must not lead there for ever.
    pub fn is_ready(&self, now: Instant) -> bool {
        let (is_open, until) = match self {
            Self::One { sender, until, .. } => (sender.is_ready(), until),
            Self::Two { sender, until } => (!sender.is_closed(), until),
        };
        is_open && now < *until
    }

    /// Another end of the same connection, if it can have many.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::One { .. } => None,
            Self::Two { sender, until } => Some(Self::Two { sender: sender.clone(), until: *until }),
        }
    }

    /// Returns when the answer to the last request was read and another request can be sent; false if there can be none.
    pub async fn is_free(&mut self) -> bool {
        match self {
            Self::One { sender, .. } => sender.ready().await.is_ok(),
            Self::Two { sender, .. } => sender.ready().await.is_ok(),
        }
    }

    /// Takes a request to be sent; what is returned, in a box as it has room for a request, gets its answer. A request that was not sent
    /// at all comes back with the error.
    pub fn send(&mut self, request: Asking) -> Sending {
        match self {
            Self::One { sender, .. } => Box::pin(sender.try_send_request(request)),
            Self::Two { sender, .. } => Box::pin(sender.try_send_request(request)),
        }
    }
}
