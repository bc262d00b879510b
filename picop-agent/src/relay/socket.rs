//! One end of a connection.
//!
//! Reads and writes are tried before anything is asked of epoll: on a short connection most of them succeed at once, and a
//! socket that was never waited for was never registered. Readiness is edge-triggered; what is registered is told of at
//! once if it is ready already, so nothing that happens in between is missed.

use std::{
    cell::{Cell, OnceCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags},
};
use socket2::SockRef;

use super::{
    buffers::Buffer,
    event_loop::{Mode, READABLE, Ready, Source, WRITABLE, timeout},
};
use crate::protocol::{HeadSource, READ_SIZE};

/// A non-blocking TCP socket, of one task.
#[derive(Debug)]
pub struct Socket {
    // First: its place is given back before it is closed.
    source: OnceCell<Source>,
    /// Whether it was read from.
    tried: Cell<bool>,
    /// Whether the last write found no room.
    full: Cell<bool>,
    /// Whether epoll tells of room. On most connections nobody ever waits for that.
    room: Cell<bool>,
    fd: OwnedFd,
}

impl Socket {
    /// Of a non-blocking one.
    pub fn new(fd: OwnedFd) -> Self {
        let no = || Cell::new(false);
        Self { source: OnceCell::new(), tried: no(), full: no(), room: no(), fd }
    }

    /// Begins to connect. Whether that worked is told by the first [`Self::try_send`], or by [`Self::connected`].
    pub fn connect(&self, to: SocketAddr) -> io::Result<()> {
        // Nothing can have come yet.
        self.tried.set(true);
        match rustix::net::connect(&self.fd, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the end of the handshake.
    pub async fn connected(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_room(cx)).await?;
        SockRef::from(self).take_error()?.map_or(Ok(()), Err)
    }

    /// Writes without waiting.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL))?)
    }

    /// Reads without waiting.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = retry_on_intr(|| rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()));
        // Less than there was room for is all there was: what comes next is an event of its own. (An end stays.)
        let is_all = matches!(received, Ok((count, _)) if (1..buffer.len()).contains(&count));
        if (is_all || received == Err(Errno::AGAIN))
            && let Some(source) = self.source.get()
        {
            source.clear(Ready::IN);
        }
        Ok(received?.0)
    }

    /// Whether there may be something to read, or an end.
    pub fn poll_readable(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.source.get().is_none() && !self.tried.get() {
            return Poll::Ready(Ok(()));
        }
        self.source()?.poll(cx, READABLE).map(|_| Ok(()))
    }

    /// Waits until there is something to read, or an end.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Reads what is there.
    pub fn poll_recv(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, || self.try_recv(buffer))
    }

    /// Does something that reads, as soon as there is something to read.
    pub fn poll_read_with<T>(
        &self,
        cx: &Context<'_>,
        mut read: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(self.poll_readable(cx))?;
            self.tried.set(true);
            match read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(source) = self.source.get() {
                        source.clear(Ready::IN);
                    }
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Does something that writes, as soon as there is room for it.
    pub fn poll_write_with<T>(
        &self,
        cx: &Context<'_>,
        mut write: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if self.full.get() {
                ready!(self.poll_room(cx))?;
            }
            let written = write();
            self.full.set(matches!(&written, Err(error) if error.kind() == io::ErrorKind::WouldBlock));
            if !self.full.get() {
                return Poll::Ready(written);
            }
            if let Some(source) = self.source.get() {
                source.clear(Ready::OUT);
            }
        }
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let source = self.source()?;
        if !self.room.replace(true) {
            source.watch_room(&self.fd)?;
        }
        source.poll(cx, WRITABLE).map(|_| Ok(()))
    }

    /// Writes all of it, waiting as the other side's window lets.
    pub async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match poll_fn(|cx| self.poll_write_with(cx, || self.try_send(bytes))).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => bytes = &bytes[sent..],
            }
        }
        Ok(())
    }

    /// Whether it is in error (it was reset). A half-closed one is not.
    pub fn poll_failed(&self, cx: &Context<'_>) -> Poll<io::ErrorKind> {
        match self.source() {
            Ok(source) => source.poll(cx, Ready::ERR).map(|_| io::ErrorKind::ConnectionReset),
            Err(error) => Poll::Ready(error.kind()),
        }
    }

    /// Registered, if it was not.
    fn source(&self) -> io::Result<&Source> {
        if let Some(source) = self.source.get() {
            return Ok(source);
        }
        let source = Source::new(&self.fd, Mode::Stream)?;
        Ok(self.source.get_or_init(|| source))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl HeadSource for &Socket {
    type Deadline = Instant;

    fn after(&self, wait: Duration) -> Instant {
        Instant::now() + wait
    }

    async fn read(&mut self, into: &mut BytesMut, _: usize, by: Instant) -> Option<io::Result<usize>> {
        let receive = poll_fn(|cx| {
            ready!(self.poll_readable(cx))?;
            // Held while there is something to read.
            let mut buffer = Buffer::take();
            let count = ready!(self.poll_recv(cx, &mut buffer[..READ_SIZE]))?;
            into.extend_from_slice(&buffer[..count]);
            Poll::Ready(Ok(count))
        });
        timeout(by, receive).await.ok()
    }
}
