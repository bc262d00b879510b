//! A connection that begins with a header, on either side.
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{self, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Rules, source::Exact};
use crate::{
    header::{Detected, MAX_LEN, detect},
    protocol::{AMBIGUOUS, Context, Head, HeadError, HeadKind, read_head},
};

/// A stream of the application's bytes: what was read to find a header is read from it first, and a header that is to be
/// sent goes before the first byte that is written to it.
#[derive(Debug)]
pub struct Stream<S> {
    io: S,
    /// Read off `io` already, and to be read next.
    first_in: BytesMut,
    /// A header, or what is left of it, to be written before anything else.
    first_out: Bytes,
    /// Nothing has come yet of a client whose header was waited for in vain.
    is_late: bool,
}

/// A header came after it was known that none would: the application began without a context, and maybe told the client so.
/// Reading from the stream fails with this, as [`io::ErrorKind::InvalidData`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client sent a PiCoP header after the time it may take; wait longer, or have it send it at once")]
pub struct LateHeader;

impl<S> Stream<S> {
    /// A stream of which nothing is known, for [`Stream::read_head`].
    pub fn new(io: S) -> Self {
        Self { io, first_in: BytesMut::new(), first_out: Bytes::new(), is_late: false }
    }

    /// A connection just made, which has the header of this context to send.
    pub fn dialled(io: S, context: Option<&Context>) -> Self {
        let first_out = context.map_or_else(Bytes::new, |context| Bytes::copy_from_slice(context.wire()));
        Self { first_out, ..Self::new(io) }
    }

    /// What is below.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// What is below: nothing of a header is left to be sent, and what was read too much comes with it, to be taken for its
    /// first bytes. (There are some only if no header came.)
    ///
    /// # Errors
    /// The stream itself, when a header is still to be sent.
    pub fn into_parts(self) -> Result<(S, Bytes), Self> {
        if self.first_out.is_empty() { Ok((self.io, self.first_in.freeze())) } else { Err(self) }
    }

    /// What is below, if nothing of what the application is to read was read already.
    ///
    /// # Errors
    /// The stream itself, when there are such bytes, or a header is still to be sent.
    pub fn into_inner(self) -> Result<S, Self> {
        if self.first_in.is_empty() && self.first_out.is_empty() { Ok(self.io) } else { Err(self) }
    }
}

impl<S: AsyncRead + Unpin> Stream<S> {
    /// Reads the header off the start, and not a byte more. To be called before anything else is read.
    ///
    /// Nothing is lost if it is cancelled: it can be called again, and the stream can be read from.
    ///
    /// # Errors
    /// When a header does not come whole, or the connection fails.
    pub async fn read_head(&mut self, rules: &Rules) -> Result<Head, HeadError> {
        let Self { io, first_in, .. } = self;
        let head = read_head(&mut Exact(io), first_in, rules.expect, rules.header_timeout).await?;
        self.is_late = head.why == HeadKind::Silent;
        Ok(head)
    }

    /// Reads the first word of a client that was silent, as far as it could be a header.
    fn poll_late(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        let mut room = [0; MAX_LEN];
        while self.is_late {
            let lacking = match detect(&self.first_in) {
                Detected::Header(_) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, LateHeader)));
                }
                Detected::Other(_) => break,
                Detected::Partial { at_least } => at_least,
            };
            let mut buf = ReadBuf::new(&mut room[..lacking]);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf)? {
                Poll::Ready(()) if buf.filled().is_empty() => break,
                Poll::Ready(()) => self.first_in.extend_from_slice(buf.filled()),
                // An application may send as much and wait. See `read_head`, which takes it for the same.
                Poll::Pending if (1..=AMBIGUOUS).contains(&self.first_in.len()) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        self.is_late = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    /// Sends the header, if it was not.
    fn poll_header(&mut self, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        while !self.first_out.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.first_out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.first_out.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Should it have to wait, so may the reading: another task that writes may have sent it by then, and only one of
        // the two is woken when there is room.
        if !this.first_out.is_empty() && this.poll_header(cx)?.is_ready() {
            // Behind a TLS layer, for one.
            let _flushed = Pin::new(&mut this.io).poll_flush(cx)?;
        }
        ready!(this.poll_late(cx))?;
        if this.first_in.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = this.first_in.len().min(buf.remaining());
        buf.put_slice(&this.first_in[..count]);
        this.first_in.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        payload: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        while !this.first_out.is_empty() {
            let both = [IoSlice::new(&this.first_out), IoSlice::new(payload)];
            let sent = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, &both))?;
            let of_header = sent.min(this.first_out.len());
            this.first_out.advance(of_header);
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if sent > of_header {
                return Poll::Ready(Ok(sent - of_header));
            }
        }
        Pin::new(&mut this.io).poll_write(cx, payload)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        payload: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.first_out.is_empty() {
            return Pin::new(&mut self.io).poll_write_vectored(cx, payload);
        }
        let first = payload.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_header(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_header(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
