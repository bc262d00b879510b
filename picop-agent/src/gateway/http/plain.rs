//! A client's TCP connection, as HTTP reads and writes it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::client::Client;

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4), as much of it as no request of HTTP/1.1 begins with.
const PREFACE: &[u8] = b"PRI ";
/// Room for what most requests begin with.
const FIRST: usize = 2048;

/// The connection, of which the beginning was read already.
pub struct Plain {
    io: TokioIo<TcpStream>,
    /// What is still to be read again.
    first: Vec<u8>,
    client: Arc<Client>,
}

impl Plain {
    /// Waits for the first bytes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn begin(mut stream: TcpStream, client: Arc<Client>) -> io::Result<Self> {
        let mut first = Vec::with_capacity(FIRST);
        stream.read_buf(&mut first).await?;
        Ok(Self { io: TokioIo::new(stream), first, client })
    }

    /// Whether it is sure to be HTTP/1.1.
    pub fn is_http1(&self) -> bool {
        let count = self.first.len().min(PREFACE.len());
        self.first[..count] != PREFACE[..count]
    }
}

impl Read for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.drain(..count);
        if self.first.is_empty() {
            self.first = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// HTTP says so when it has ended, and the connection is closed in the next moment, which says the same without a system call of its
    /// own. A tunnel may well have one direction end before the other.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client.tunnels.is_empty() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }
}
