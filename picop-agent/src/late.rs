//! Clients that were silent while a header was waited for.
//!
//! Most speak a protocol in which the server speaks first; their connection goes where one without a header goes. But some
//! had a header to send and were only slow. Until the client says its first word nothing is lost: if that is a header, and
//! the server has not spoken either, the connection is routed anew. If the server has spoken, the client talks to the wrong
//! one, or one that must not see the header: nothing but a reset tells it.
//!
//! The relay and the gateways carry bytes in ways of their own ([`End`]); what is waited for, and what follows from it, is
//! the same.

use std::{
    future::Future,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::BytesMut;

use crate::{
    protocol::{Context, ExpectHeader, HeadError, HeadSource, read_head},
    telemetry::{access::Outcome, chain},
};

/// One end of a connection that was routed without a header, as whoever carries its bytes has it.
pub trait End {
    /// A client's end, to be read from.
    type Source<'a>: HeadSource
    where
        Self: 'a;

    /// A client's end, to be read from.
    fn source(&mut self) -> Self::Source<'_>;

    /// Waits until it has said something, or has ended.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;

    /// Writes to the client what this one, the server's, has said: how many bytes, none at its end.
    fn pass_on(&self, client: &mut Self) -> impl Future<Output = Result<usize, Gone>>;
}

/// Who is gone. A server with nothing to read yet fails with [`WouldBlock`](io::ErrorKind::WouldBlock).
#[derive(Debug)]
pub enum Gone {
    /// The client.
    Client(io::Error),
    /// The server.
    Server(io::Error),
}

/// A silent client's first word, or the end.
#[derive(Debug)]
pub enum FirstWord {
    /// Payload, now in the head; or none at all, as one side has ended, which is carried as any end is.
    Payload,
    /// A header, and whether the server had spoken before.
    Header {
        /// Its context.
        context: Context,
        /// Whether the server had said something.
        server_spoke: bool,
    },
    /// What came is neither.
    Bad(HeadError),
    /// One side is gone.
    Gone(Gone),
}

/// Where the connection goes from here.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// On, where it is.
    Stays,
    /// Where its header says. The server has said nothing, and sees a connection that was opened and given up.
    Anew(Context),
    /// Nowhere: both ends are reset, for that reason.
    Ends(Outcome, String),
}

impl FirstWord {
    /// What follows from it. `setting` is what has a header waited for, in the words of whoever has to set it.
    #[must_use]
    pub fn decide(self, setting: &str) -> Next {
        match self {
            Self::Payload => Next::Stays,
            Self::Header { context, server_spoke: false } => Next::Anew(context),
            Self::Header { server_spoke: true, .. } => {
                let why = format!("a header came after the server had spoken; {setting} waits for it");
                Next::Ends(Outcome::LateHeader, why)
            }
            Self::Bad(error) => Next::Ends(Outcome::BadHeader, chain(&error)),
            Self::Gone(Gone::Client(error)) => Next::Ends(Outcome::ClientReset, error.to_string()),
            Self::Gone(Gone::Server(error)) => Next::Ends(Outcome::UpstreamReset, error.to_string()),
        }
    }
}

/// Carries what the server says, counted in `carried_down`, until the client says its first word. What that brings besides a
/// header is in `head`.
pub async fn first_word<E: End>(
    client: &mut E,
    server: &E,
    head: &mut BytesMut,
    carried_down: &AtomicU64,
    header_timeout: Duration,
) -> FirstWord {
    let mut server_spoke = false;
    loop {
        // Only readiness is raced for: what is read is written before anything else is looked at.
        let client_first = tokio::select! {
            biased;
            ready = client.readable() => ready.map(|()| true),
            ready = server.readable() => ready.map(|()| false),
        };
        match client_first {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => return FirstWord::Gone(Gone::Client(error)),
        }
        match server.pass_on(client).await {
            Ok(0) => return FirstWord::Payload,
            Ok(count) => {
                server_spoke = true;
                carried_down.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(Gone::Server(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(gone) => return FirstWord::Gone(gone),
        }
    }
    match read_head(&mut client.source(), head, ExpectHeader::Always, header_timeout).await {
        Ok(read) => match read.context {
            Some(context) => FirstWord::Header { context, server_spoke },
            None => FirstWord::Payload,
        },
        Err(HeadError::Io(error)) => FirstWord::Gone(Gone::Client(error)),
        Err(error) => FirstWord::Bad(error),
    }
}

#[cfg(test)]
mod tests;
