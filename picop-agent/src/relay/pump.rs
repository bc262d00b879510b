//! Carrying bytes both ways, with half-close and reset.
//!
//! A FIN from one side becomes a FIN to the other, and the opposite direction goes on. A reset becomes a reset, but not
//! before what arrived ahead of it is delivered: a server that answers and then resets (it did not read all of the
//! request) must have its answer reach the client, as it would without a relay.

use std::{
    future::{Future as _, poll_fn},
    io,
    net::Shutdown,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;

use super::{
    buffers::Buffer,
    event_loop::{Sleep, sleep},
    graft::{self, Graft},
    pipes::Pipe,
    socket::Socket,
};
use crate::telemetry::live::Carried;

/// How long after one side is gone the last bytes it sent may take to reach the other.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Bytes one direction may carry before others have their turn.
const TURN: usize = 1024 * 1024;

/// After so many full buffers in a row a direction goes on with a pipe: what pays for a large transfer (two copies saved)
/// costs a small one two system calls more.
const FULL_BUFFERS: u32 = 2;
/// A direction whose pipe was filled with less than this for so many times in a row goes on with buffers.
const LITTLE: usize = 16 * 1024;
const LITTLE_TIMES: u32 = 8;

/// Which side ended the connection, if not both in order.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Both directions ended with a FIN.
    Closed,
    /// The client is gone.
    Client(io::ErrorKind),
    /// The server is gone.
    Upstream(io::ErrorKind),
}

/// Why one direction stopped before its FIN.
enum Stopped {
    Reading(io::Error),
    Writing(io::Error),
}

/// Carries until both directions have ended, or one side is gone.
///
/// When both have ended, the last FIN is yet to be sent: closing the sockets sends it, and both are to be closed then.
pub async fn pump(client: &Socket, upstream: &Socket, carried: &Carried, graft: Option<&mut Graft>) -> End {
    let (graft_up, graft_down) = graft.map(Graft::directions).unzip();
    let mut pump = Pump {
        up: Direction::new(client, upstream, &carried.up, graft_up),
        down: Direction::new(upstream, client, &carried.down, graft_down),
        gone: None,
    };
    poll_fn(|cx| pump.poll(cx)).await
}

/// Both directions of a connection, moved on by one task.
struct Pump<'a> {
    up: Direction<'a>,
    down: Direction<'a>,
    /// Set once a side is gone; the direction away from it may still deliver what it sent before.
    gone: Option<(End, Sleep)>,
}

impl Pump<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(result) = self.up.poll(cx) {
            match result.and_then(|()| self.finish(self.up.to, &self.down)) {
                Ok(()) => {}
                // Nothing more will come from the client, and nothing can reach it.
                Err(Stopped::Reading(e)) => return Poll::Ready(End::Client(e.kind())),
                Err(Stopped::Writing(e)) => self.is_gone(End::Upstream(e.kind())),
            }
        }
        if let Poll::Ready(result) = self.down.poll(cx) {
            match result.and_then(|()| self.finish(self.down.to, &self.up)) {
                Ok(()) => {}
                Err(Stopped::Reading(e)) => return Poll::Ready(End::Upstream(e.kind())),
                Err(Stopped::Writing(e)) => self.is_gone(End::Client(e.kind())),
            }
        }
        // While nothing reads from a side (its direction is stuck writing, or has ended), its reset goes unnoticed.
        if self.gone.is_none()
            && !(self.up.done && self.down.done)
            && let Poll::Ready(error) = self.up.poll_failed(cx)
        {
            self.is_gone(End::Client(error));
            self.down.end();
        }
        if self.gone.is_none()
            && !(self.up.done && self.down.done)
            && let Poll::Ready(error) = self.down.poll_failed(cx)
        {
            self.is_gone(End::Upstream(error));
            self.up.end();
        }
        if self.up.done && self.down.done {
            return Poll::Ready(self.end());
        }
        match &mut self.gone {
            Some((_, last_bytes)) => {
                ready!(Pin::new(last_bytes).poll(cx));
                Poll::Ready(self.end())
            }
            None => Poll::Pending,
        }
    }

    /// Carries an end of stream to the other side.
    ///
    /// Not when a side is gone: a socket tells of its reset once. If it told a write, a read finds the end of the stream,
    /// and the other side would take an answer, or a request, that was cut off for a whole one. And not when it is the
    /// second of the two: it goes with the close that follows.
    ///
    /// `back` is the direction that reads from there.
    fn finish(&self, to: &Socket, back: &Direction<'_>) -> Result<(), Stopped> {
        if self.gone.is_some() || (self.up.done && self.down.done) {
            return Ok(());
        }
        match SockRef::from(to).shutdown(Shutdown::Write) {
            Ok(()) => Ok(()),
            // The other side is gone already: its own direction tells. Unless the application that was redirected there was
            // told instead, by its own send: then that direction would find an end in order.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => match back.graft {
                None => Ok(()),
                Some(_) => Err(Stopped::Writing(io::ErrorKind::ConnectionReset.into())),
            },
            Err(e) => Err(Stopped::Writing(e)),
        }
    }

    fn is_gone(&mut self, end: End) {
        self.gone.get_or_insert_with(|| (end, sleep(LAST_BYTES)));
    }

    fn end(&mut self) -> End {
        self.gone.take().map_or(End::Closed, |(end, _)| end)
    }
}

/// One way, up to the end of its stream.
struct Direction<'a> {
    from: &'a Socket,
    to: &'a Socket,
    carried: &'a AtomicU64,
    /// What was read and is yet to be written. An idle connection holds nothing.
    held: Held,
    by: By,
    /// What the kernel carries past this.
    graft: Option<graft::Direction<'a>>,
    /// Waits for room to write, and reads nothing meanwhile.
    stuck: bool,
    done: bool,
}

/// How a direction is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Read and written. So many buffers in a row were full.
    Copy { full: u32 },
    /// Read and written, whatever comes: these sockets cannot be spliced, or there is no pipe.
    CopyOnly,
    /// Spliced. So many times in a row there was little.
    Splice { little: u32 },
}

/// Bytes on their way.
enum Held {
    Nothing,
    Buffer { buffer: Buffer, written: usize, read: usize },
    Pipe(Pipe),
}

impl<'a> Direction<'a> {
    fn new(
        from: &'a Socket,
        to: &'a Socket,
        carried: &'a AtomicU64,
        graft: Option<graft::Direction<'a>>,
    ) -> Self {
        // What is grafted is not spliced: the little that comes here is to be through soon.
        let by = if graft.is_some() { By::CopyOnly } else { By::Copy { full: 0 } };
        let held = Held::Nothing;
        Self { from, to, carried, held, by, graft, stuck: false, done: false }
    }

    /// Carries what there is. Ready, once, when it is done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        if self.done {
            return Poll::Pending;
        }
        let result = ready!(self.poll_carry(cx));
        self.end();
        Poll::Ready(result)
    }

    fn end(&mut self) {
        self.done = true;
        self.held = Held::Nothing;
    }

    fn poll_carry(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let mut turn = 0;
        while turn < TURN {
            ready!(self.poll_write(cx)).map_err(Stopped::Writing)?;
            ready!(self.poll_grafted(cx))?;
            let Poll::Ready(read) = self.poll_read(cx) else {
                self.held = Held::Nothing;
                return Poll::Pending;
            };
            match read.map_err(Stopped::Reading)? {
                0 => return Poll::Ready(self.end_of_stream().map_err(Stopped::Reading)),
                read => turn += read,
            }
        }
        // A fast pair would keep its thread for itself.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// When all that was read is written: begins the graft if it is time, and waits while nothing is to be read because of it.
    fn poll_grafted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let Some(graft) = &mut self.graft else { return Poll::Ready(Ok(())) };
        graft.engage(self.from, self.to);
        if !graft.must_wait(self.from).map_err(Stopped::Reading)? {
            return Poll::Ready(Ok(()));
        }
        let room = graft.poll_room(cx, self.to);
        self.stuck = room.is_pending();
        if self.stuck {
            self.held = Held::Nothing;
        }
        room.map_err(Stopped::Writing)
    }

    /// A read found the end.
    fn end_of_stream(&mut self) -> io::Result<()> {
        self.graft.take().map_or(Ok(()), |graft| graft.end(self.from))
    }

    /// Reads, when all that was read before is written.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.from.poll_readable(cx))?;
        if let By::Splice { little } = self.by {
            if let Some(result) = self.poll_fill(cx, little) {
                return result;
            }
            self.by = By::CopyOnly;
        }
        if !matches!(self.held, Held::Buffer { .. }) {
            self.held = Held::Buffer { buffer: Buffer::take(), written: 0, read: 0 };
        }
        let Held::Buffer { buffer, written, read } = &mut self.held else { unreachable!("just put there") };
        let count = ready!(self.from.poll_recv(cx, buffer))?;
        (*written, *read) = (0, count);
        if let By::Copy { full } = self.by {
            let full = if count == buffer.len() { full + 1 } else { 0 };
            self.by = if full < FULL_BUFFERS { By::Copy { full } } else { By::Splice { little: 0 } };
        }
        Poll::Ready(Ok(count))
    }

    /// Reads into a pipe. None if that cannot be done.
    fn poll_fill(&mut self, cx: &mut Context<'_>, little: u32) -> Option<Poll<io::Result<usize>>> {
        if !matches!(self.held, Held::Pipe(_)) {
            self.held = Held::Pipe(Pipe::take().ok()?);
        }
        let Held::Pipe(pipe) = &mut self.held else { unreachable!("just put there") };
        let filled = match self.from.poll_read_with(cx, || pipe.fill(self.from)) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => return None,
            Poll::Ready(Ok(filled)) => filled,
            other => return Some(other),
        };
        let little = if filled < LITTLE { little + 1 } else { 0 };
        self.by = if little < LITTLE_TIMES { By::Splice { little } } else { By::Copy { full: 0 } };
        Some(Poll::Ready(Ok(filled)))
    }

    /// Writes what is held.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let sent = match &mut self.held {
                Held::Buffer { buffer, written, read } if *written < *read => {
                    let bytes = &buffer[*written..*read];
                    let sent = self.to.poll_write_with(cx, || self.to.try_send(bytes));
                    if let Poll::Ready(Ok(sent)) = &sent {
                        *written += *sent;
                    }
                    sent
                }
                Held::Pipe(pipe) if pipe.len() > 0 => self.to.poll_write_with(cx, || pipe.empty(self.to)),
                _ => return Poll::Ready(Ok(())),
            };
            self.stuck = sent.is_pending();
            match ready!(sent)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => {
                    self.carried.fetch_add(sent as u64, Ordering::Relaxed);
                    if let Some(graft) = &mut self.graft {
                        graft.relayed(sent);
                    }
                }
            }
        }
    }

    /// Whether the side it reads from is in error, while it does not read.
    fn poll_failed(&self, cx: &Context<'_>) -> Poll<io::ErrorKind> {
        if self.stuck || self.done { self.from.poll_failed(cx) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests;
