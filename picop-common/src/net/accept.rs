//! The server's side.
use std::time::Duration;

use tokio::io::AsyncRead;

use super::Stream;
use crate::protocol::{Context, ExpectHeader, HeadError, HeadKind};

/// How long a header is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether clients send one, and how long their first byte may take.
    pub expect: ExpectHeader,
    /// How long all of a header may take after its first byte, and, with [`ExpectHeader::Always`], that byte.
    pub header_timeout: Duration,
    /// Connections of a [`Listener`](super::Listener) that may be waited for at once. Those after them wait in the kernel.
    pub waiting: usize,
}

impl Default for Rules {
    /// A first byte within 5 s, the rest of a header in another 5 s, a thousand connections at once.
    fn default() -> Self {
        Self { expect: ExpectHeader::Always, header_timeout: Duration::from_secs(5), waiting: 1000 }
    }
}

/// A connection whose beginning is known.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The application's bytes, all of them: those that were read to see that they are no header come first.
    pub stream: Stream<S>,
    /// The context of its header. None if it has none.
    pub context: Option<Context>,
    /// What it begins with.
    pub begins: HeadKind,
}

/// Reads the header off the start of a stream, and not a byte more.
///
/// A stream without a header is accepted as well, with no context. One that says nothing in the time allowed is
/// [`HeadKind::Silent`]: the server speaks first, or the client is idle; should a header come after all, reading from the
/// stream fails with [`LateHeader`](super::LateHeader).
///
/// Cancelled, it drops the stream. [`Stream::read_head`] can be called again instead.
///
/// # Errors
/// When a header does not come whole, or the connection fails.
pub async fn accept<S: AsyncRead + Unpin>(io: S, rules: &Rules) -> Result<Accepted<S>, HeadError> {
    let mut stream = Stream::new(io);
    let head = stream.read_head(rules).await?;
    Ok(Accepted { stream, context: head.context, begins: head.why })
}
