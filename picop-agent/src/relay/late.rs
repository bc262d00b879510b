//! Clients that were silent while a header was waited for.
//!
//! Most speak a protocol in which the server speaks first; their connection goes where one without a header goes. But some
//! had a header to send and were only slow. Until the client says its first word nothing is lost: if that is a header, and
//! the server has not spoken either, the connection is routed anew. If the server has spoken, the client talks to the wrong
//! one, or one that must not see the header: nothing but a reset tells it.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::BytesMut;

use super::{buffers::Buffer, socket::Socket};
use crate::protocol::{Context, ExpectHeader, HeadError, read_head};

/// A silent client's first word, or the end.
#[derive(Debug)]
pub enum FirstWord {
    /// Payload, now in the head; or none at all, as one side has ended.
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
    /// The client is gone.
    ClientGone(io::Error),
    /// The server is gone.
    ServerGone(io::Error),
}

/// Carries what the server says until the client says its first word.
pub async fn first_word(
    client: &Socket,
    server: &Socket,
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
            Err(e) => return FirstWord::ClientGone(e),
        }
        let mut buffer = Buffer::take();
        match server.try_recv(&mut buffer) {
            // The pump finds the same end and carries it.
            Ok(0) => return FirstWord::Payload,
            Ok(n) => {
                server_spoke = true;
                if let Err(e) = client.send_all(&buffer[..n]).await {
                    return FirstWord::ClientGone(e);
                }
                carried_down.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return FirstWord::ServerGone(e),
        }
    }
    let mut reading = client;
    match read_head(&mut reading, head, ExpectHeader::Always, header_timeout).await {
        Ok(read) => match read.context {
            Some(context) => FirstWord::Header { context, server_spoke },
            None => FirstWord::Payload,
        },
        Err(HeadError::Io(e)) => FirstWord::ClientGone(e),
        Err(error) => FirstWord::Bad(error),
    }
}
