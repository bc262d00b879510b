//! One end of a connection.
//!
//! Reads and writes are tried before anything is asked of epoll: on a short connection most of them succeed at once, and a
//! socket that was never waited for was never registered. Readiness is edge-triggered; what is registered is told of at
//! once if it is ready already, so nothing that happens in between is missed.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags},
};
use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};

use crate::sys::Watch;

/// A non-blocking TCP socket. To be used on one runtime.
#[derive(Debug)]
pub struct Socket {
    // First: what is registered is taken out before it is closed.
    watch: OnceLock<Watch>,
    /// Another descriptor of it, watched for room to write. Most connections never wait for that.
    room: OnceLock<Watch>,
    tried: AtomicBool,
    fd: Arc<OwnedFd>,
}

impl Socket {
    /// Of a non-blocking one.
    pub fn new(fd: OwnedFd) -> Self {
        let (watch, room) = (OnceLock::new(), OnceLock::new());
        Self { watch, room, tried: AtomicBool::new(false), fd: Arc::new(fd) }
    }

    /// Begins to connect. Whether that worked is told by the first [`Self::try_send`], or by [`Self::connected`].
    pub fn connect(&self, to: SocketAddr) -> io::Result<()> {
        // Nothing can have come yet.
        self.tried.store(true, Ordering::Relaxed);
        match rustix::net::connect(&self.fd, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the end of the handshake.
    pub async fn connected(&self) -> io::Result<()> {
        let watch = self.watch(Interest::READABLE | Interest::WRITABLE)?;
        watch.writable().await?.retain_ready();
        SockRef::from(self).take_error()?.map_or(Ok(()), Err)
    }

    /// Writes without waiting.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL))?)
    }

    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (received, _) = retry_on_intr(|| rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()))?;
        Ok(received)
    }

    /// Whether there may be something to read, or an end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.get().is_none() && !self.tried.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let guard = ready!(self.watch(Interest::READABLE)?.poll_read_ready(cx))?;
        drop(guard);
        Poll::Ready(Ok(()))
    }

    /// Waits until there is something to read, or an end.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Reads what is there.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.watch.get().is_none() && !self.tried.swap(true, Ordering::Relaxed) {
            match self.recv(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
        loop {
            let mut guard = ready!(self.watch(Interest::READABLE)?.poll_read_ready(cx))?;
            match self.recv(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Ok(count) => {
                    // All there was: what comes next is an event of its own. (An end stays ready.)
                    if (1..buffer.len()).contains(&count) {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }

    /// Does something that reads, as soon as there is something to read.
    pub fn poll_read_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut guard = ready!(self.watch(Interest::READABLE)?.poll_read_ready(cx))?;
            match read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                done => return Poll::Ready(done),
            }
        }
    }

    /// Reads without waiting.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch(Interest::READABLE)?.try_io(Interest::READABLE, |_| self.recv(buffer))
    }

    /// Does something that writes, as soon as there is room for it.
    pub fn poll_write_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if self.room.get().is_none() {
            match write() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
        loop {
            let mut guard = ready!(self.room()?.poll_write_ready(cx))?;
            match write() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                done => return Poll::Ready(done),
            }
        }
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

    /// Completes when it is in error (it was reset). A half-closed one is not.
    pub async fn failed(&self) -> io::ErrorKind {
        let watch = match self.watch(Interest::READABLE) {
            Ok(watch) => watch,
            Err(error) => return error.kind(),
        };
        loop {
            match watch.ready(Interest::ERROR).await {
                Ok(guard) if guard.ready().is_error() => return io::ErrorKind::ConnectionReset,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return error.kind(),
            }
        }
    }

    fn watch(&self, interest: Interest) -> io::Result<&Watch> {
        if let Some(watch) = self.watch.get() {
            return Ok(watch);
        }
        let watch = Watch::new(Arc::clone(&self.fd), interest)?;
        Ok(self.watch.get_or_init(|| watch))
    }

    fn room(&self) -> io::Result<&Watch> {
        if let Some(room) = self.room.get() {
            return Ok(room);
        }
        let other = self.fd.try_clone()?;
        let room = Watch::new(Arc::new(other), Interest::WRITABLE)?;
        Ok(self.room.get_or_init(|| room))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsyncRead for &Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(self.poll_recv(cx, buf.initialize_unfilled()))?;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}
