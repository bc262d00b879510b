//! A connection of HTTP/1.1 to the server, which one request at a time has to itself.
//!
//! It has no task of its own: whoever has the connection carries it on. A request and its answer then cost no switch of tasks and no
//! message between them, and its bytes are written in the same turn in which its client's were read. While nobody has it, what
//! the server does to it (closing it, mostly) shows when it is looked at.
//!
//! An exception is a request whose body goes on when its answer has begun. Whoever has the answer carries nothing while the client
//! takes nothing, and the client may take nothing before all is sent. Such a connection gets a task.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use hyper::{
    Response,
    body::{Body as _, Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle};

use super::upstream::{Asking, AskingBody, Failed};

type Io = TokioIo<TcpStream>;

/// The connection.
pub struct Exclusive {
    sender: http1::SendRequest<AskingBody>,
    carrier: Carrier,
}

#[expect(clippy::large_enum_variant, reason = "it is open nearly always, and in a box with the whole")]
enum Carrier {
    Open(http1::Connection<Io, AskingBody>),
    /// It carries itself on.
    Task {
        _ends: Task,
    },
    /// HTTP has ended on it; what is left, if the two went on with another protocol.
    Ended(Option<http1::Parts<Io>>),
}

/// A task that ends with this.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Exclusive {
    /// Has the connection carry itself on from here, whoever has it.
    pub fn go_on_alone(&mut self) {
        match std::mem::replace(&mut self.carrier, Carrier::Ended(None)) {
            Carrier::Open(connection) => {
                // Its end shows in its answer, and in the sender.
                let task = tokio::spawn(async move { drop(connection.await) });
                self.carrier = Carrier::Task { _ends: Task(task.abort_handle()) };
            }
            carrier => self.carrier = carrier,
        }
    }

    fn has_task(&self) -> bool {
        matches!(self.carrier, Carrier::Task { .. })
    }

    /// Begins to speak HTTP.
    ///
    /// # Errors
    /// When the connection is of no use.
    pub async fn begin(stream: TcpStream) -> hyper::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, carrier: Carrier::Open(connection) })
    }

    /// Reads and writes what can be without waiting.
    fn carry(&mut self, cx: &mut Context<'_>) {
        let Carrier::Open(connection) = &mut self.carrier else { return };
        let Poll::Ready(ended) = connection.poll_without_shutdown(cx) else { return };
        if let Err(error) = ended {
            // Whoever waits for an answer, or for more of it, is told as well, or else nobody waits.
            tracing::debug!(%error, "a connection to the server ended");
        }
        // What was to be sent and was not comes back to its sender when the connection is taken apart.
        if let Carrier::Open(connection) = std::mem::replace(&mut self.carrier, Carrier::Ended(None)) {
            self.carrier = Carrier::Ended(Some(connection.into_parts()));
        }
    }

    /// Whether a request can be sent at once, as far as is known.
    pub fn is_ready(&self) -> bool {
        !matches!(self.carrier, Carrier::Ended(_)) && self.sender.is_ready()
    }

    /// The same, after a look at what the server has done to an idle connection.
    pub fn is_alive(&mut self) -> bool {
        // Whoever had it last is not to be woken by it any more.
        self.carry(&mut Context::from_waker(Waker::noop()));
        self.is_ready()
    }

    /// Returns when the answer to the last request was read and another request can be sent; false if there can be none.
    pub async fn is_free(&mut self) -> bool {
        poll_fn(|cx| {
            self.carry(cx);
            self.sender.poll_ready(cx)
        })
        .await
        .is_ok()
    }

    /// Takes a request to be sent; see [`super::upstream::Sender::submit`].
    pub fn submit(
        &mut self,
        request: Asking,
    ) -> impl Future<Output = Result<Response<Incoming>, Failed>> + use<> {
        self.sender.try_send_request(request)
    }

    /// Whether its answer has begun.
    pub fn poll_answer<F: Future>(&mut self, answer: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.has_task() {
            return answer.poll(cx);
        }
        self.carry(cx);
        // Only what is carried here brings an answer, so this needs no waker of its own.
        answer.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// More of an answer's body.
    pub fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if self.has_task() {
            return Pin::new(body).poll_frame(cx);
        }
        // As above.
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut nobody) {
            return Poll::Ready(frame);
        }
        self.carry(cx);
        Pin::new(body).poll_frame(&mut nobody)
    }

    /// The connection under another protocol, and what was read of that; none if it did not come to that.
    pub async fn into_other_protocol(mut self) -> Option<(TcpStream, Bytes)> {
        poll_fn(|cx| {
            self.carry(cx);
            if matches!(self.carrier, Carrier::Open(_)) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        match self.carrier {
            Carrier::Open(_) | Carrier::Task { .. } | Carrier::Ended(None) => None,
            Carrier::Ended(Some(parts)) => Some((parts.io.into_inner(), parts.read_buf)),
        }
    }
}
