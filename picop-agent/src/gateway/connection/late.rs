//! Clients that were silent while a header was waited for.
//!
//! Most speak a protocol in which the server speaks first. But some had a header to send and were only slow: until the server
//! has spoken, nothing is lost, and their connection is routed anew.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::Source;
use crate::{
    protocol::{Context, ExpectHeader, HeadError, READ_SIZE, read_head},
    telemetry::live::Carried,
};

/// A silent client's first word, or the end.
#[derive(Debug)]
pub enum FirstWord {
    /// Payload, which was read; or none at all, as one side has ended.
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
    client: &mut TcpStream,
    server: &TcpStream,
    read: &mut BytesMut,
    carried: &Carried,
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
            Err(error) => return FirstWord::ClientGone(error),
        }
        match pass_on(server, client, &carried.down).await {
            Ok(0) => return FirstWord::Payload,
            Ok(_) => server_spoke = true,
            Err(Side::From(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(Side::From(error)) => return FirstWord::ServerGone(error),
            Err(Side::To(error)) => return FirstWord::ClientGone(error),
        }
    }
    match read_head(&mut Source(client), read, ExpectHeader::Always, header_timeout).await {
        Ok(head) => {
            head.context.map_or(FirstWord::Payload, |context| FirstWord::Header { context, server_spoke })
        }
        Err(HeadError::Io(error)) => FirstWord::ClientGone(error),
        Err(error) => FirstWord::Bad(error),
    }
}

enum Side {
    From(io::Error),
    To(io::Error),
}

async fn pass_on(from: &TcpStream, to: &mut TcpStream, carried: &AtomicU64) -> Result<usize, Side> {
    let mut bytes = Vec::with_capacity(READ_SIZE);
    let count = from.try_read_buf(&mut bytes).map_err(Side::From)?;
    to.write_all(&bytes).await.map_err(Side::To)?;
    carried.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    Ok(count)
}
