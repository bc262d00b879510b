//! Reading the head of a downstream connection: its header, if it has one.
use std::{fmt, future::Future, io, time::Duration};

use crate::header::{Detected, Other, detect};
use bytes::{Buf, BytesMut};

use super::{Context, ExpectHeader};

/// The most bytes asked for at a time. A header has 269 at the most, so no more than 4364 are ever held.
pub const READ_SIZE: usize = 4096;

/// For ever, for a client's first bytes; and a point in time that exists.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As many bytes of a header as an application may send for its own ends before it waits: CR LF CR LF (SIP's keep-alive).
/// The next byte of the signature, a NUL, is one that no protocol that sends these goes on with.
pub(crate) const AMBIGUOUS: usize = 4;

/// What a connection starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The context of its header.
    pub context: Option<Context>,
    /// What was found, or why nothing was.
    pub why: HeadKind,
}

/// What the head of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadKind {
    /// A header.
    Header,
    /// The application's bytes.
    Payload,
    /// A PROXY protocol version 2 header, which is for the server.
    ProxyV2,
    /// A header of a version that nobody has defined; taken for the application's.
    UnknownVersion(u8),
    /// Nothing came in the time allowed. A header may still come later: that is for who goes on reading to see.
    Silent,
    /// The client will send nothing at all.
    Eof,
    /// No header was to be expected; nothing was read.
    NotRead,
}

impl fmt::Display for HeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.pad("header"),
            Self::Payload => f.pad("payload"),
            Self::ProxyV2 => f.pad("proxy-v2"),
            Self::UnknownVersion(version) => write!(f, "unknown-version-{version}"),
            Self::Silent => f.pad("silent"),
            Self::Eof => f.pad("eof"),
            Self::NotRead => f.pad("not-read"),
        }
    }
}

impl From<Other> for HeadKind {
    fn from(other: Other) -> Self {
        match other {
            Other::Payload => Self::Payload,
            Other::ProxyV2 => Self::ProxyV2,
            Other::UnknownVersion(version) => Self::UnknownVersion(version),
        }
    }
}

/// A head that is neither a header nor the application's: nothing of it may reach a server, so the connection is reset.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The rest of a header did not come.
    #[error(
        "{got} bytes of a PiCoP header came, and not the rest within {waited:?}; is the client stuck while it sends it?"
    )]
    Timeout {
        /// Bytes that did come.
        got: usize,
        /// How long the rest was waited for.
        waited: Duration,
    },
    /// The client ended its side within a header.
    #[error(
        "the client closed the connection after {got} bytes of a PiCoP header; it must send all of it first"
    )]
    Truncated {
        /// Bytes that did come.
        got: usize,
    },
    /// The connection failed.
    #[error("reading from the client failed before it was known where to route its connection")]
    Io(#[source] io::Error),
}

/// A stream that begins with a head, and the clock it is waited for by.
pub trait HeadSource {
    /// A moment.
    type Deadline: Copy;

    /// The moment that comes after so long.
    fn after(&self, wait: Duration) -> Self::Deadline;

    /// Reads [`READ_SIZE`] bytes at most, behind what is in `into`. None if nothing came in time.
    ///
    /// A header that is under way lacks `lacking` bytes at the least: whoever reads no more than that reads nothing
    /// of what is behind it.
    fn read(
        &mut self,
        into: &mut BytesMut,
        lacking: usize,
        by: Self::Deadline,
    ) -> impl Future<Output = Option<io::Result<usize>>>;
}

/// Reads from the start of a connection until it is known whether a header is there, and takes it off.
///
/// What was read beyond it is left in `buf`: payload, to be sent on before anything else that is read from `io`. `buf` may
/// hold bytes of `io` on entry, so a call that was cancelled can be repeated. On an error, what came is in `buf` too.
///
/// The first byte may take as long as `expect` says (`header_timeout` for [`ExpectHeader::Always`]), all of a header
/// another `header_timeout`. A stream that stops at up to four bytes that a header could begin with is payload; one that
/// stops later within a header is an error.
pub async fn read_head<S: HeadSource>(
    io: &mut S,
    buf: &mut BytesMut,
    expect: ExpectHeader,
    header_timeout: Duration,
) -> Result<Head, HeadError> {
    let mut wait = match expect {
        ExpectHeader::Never => return Ok(Head::without(HeadKind::NotRead)),
        ExpectHeader::Always => header_timeout,
        ExpectHeader::Sniff(time) => time,
    };
    let mut deadline = io.after(wait.min(A_DAY));
    loop {
        let lacking = match detect(buf) {
            Detected::Header(header) => {
                let (context, wire_len) = (Context::from_header(&header), header.wire_len());
                buf.advance(wire_len);
                return Ok(Head { context: Some(context), why: HeadKind::Header });
            }
            Detected::Other(other) => return Ok(Head::without(other.into())),
            Detected::Partial { at_least } => at_least,
        };
        let got = buf.len();
        match (io.read(buf, lacking, deadline).await, got) {
            (Some(Ok(1..)), 0) => {
                wait = header_timeout;
                deadline = io.after(wait.min(A_DAY));
            }
            (Some(Ok(1..)), _) => {}
            (Some(Err(error)), _) => return Err(HeadError::Io(error)),
            (Some(Ok(0)), 0) => return Ok(Head::without(HeadKind::Eof)),
            (None, 0) => return Ok(Head::without(HeadKind::Silent)),
            (Some(Ok(0)) | None, ..=AMBIGUOUS) => return Ok(Head::without(HeadKind::Payload)),
            (Some(Ok(0)), _) => return Err(HeadError::Truncated { got }),
            (None, _) => return Err(HeadError::Timeout { got, waited: wait }),
        }
    }
}

impl Head {
    fn without(why: HeadKind) -> Self {
        Self { context: None, why }
    }
}

#[cfg(test)]
mod tests;
