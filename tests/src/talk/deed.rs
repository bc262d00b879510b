//! What a socket is asked beyond the ordinary: every way to send, and what an application may want to know of its socket.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Something of one socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Sends the first bytes of the [`blob`](crate::blob), so many, in this form. [`Form::Zerocopy`] answers with the number
    /// of completions.
    SendBlob(Form, usize),
    /// Sends these bytes of the blob by `write` while another thread waits for the peer's first byte, and answers with how
    /// many that thread got.
    SendWhileReading(usize),
    /// `FIONREAD`, as a number.
    Waiting,
    /// `MSG_PEEK` of so many bytes.
    Peek(usize),
    /// Waits for so many milliseconds for any of `POLLIN`, `POLLOUT`, `POLLRDHUP`; answers with the bits that came.
    Poll(u64),
    /// The same, but not for room to write.
    PollIn(u64),
    /// Waits by `epoll` (edge-triggered if so asked) for input, reads nothing, waits again; answers with how often it was
    /// woken: twice by levels, once by an edge. Waits so many milliseconds each time.
    Epoll(bool, u64),
    /// Arms an edge, makes it come by reading all there is up to `EAGAIN`, and waits for the next one: so many milliseconds
    /// each time. Answers with the number of edges that came until none did.
    Edges(u64),
    /// `SO_RCVTIMEO`, in milliseconds.
    ReadTimeout(u64),
    /// Shuts down the read side.
    ShutdownRead,
    /// The state in `TCP_INFO`: 1 is established.
    TcpState,
    /// `SO_ERROR`: fails with it, if there is one.
    SoError,
    /// Makes it block, or not.
    Blocking(bool),
    /// Binds.
    Bind(SocketAddr),
    /// Connects, once.
    Connect(SocketAddr),
    /// `TCP_SYNCNT`: how often the first packet is sent again.
    SynRetries(u32),
    /// `TCP_FASTOPEN_CONNECT`.
    FastOpenConnect,
    /// `sendto` with `MSG_FASTOPEN`; answers with how many bytes were taken.
    FastOpenSend(SocketAddr, String),
}

/// How to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `write`, until all is written.
    Write,
    /// `writev` with so many pieces.
    Writev(usize),
    /// `sendmsg` with so many pieces.
    Sendmsg(usize),
    /// `sendfile`.
    Sendfile,
    /// `splice` from a pipe.
    Splice,
    /// `MSG_ZEROCOPY`, and the completions are waited for.
    Zerocopy,
    /// The first half with `MSG_MORE`, the rest by `write`.
    More,
    /// Without blocking, with this `SO_SNDBUF`.
    Nonblocking(usize),
}
