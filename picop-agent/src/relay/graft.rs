//! The graft of a relayed connection: what the kernel carries past the agent. `picop_common::graft` tells how.
//!
//! The agent's part, per direction: to begin (once, at a moment when it has written out all that it has read), to say what
//! it relays, and to find the way back. Under a continuous writer that does not come by itself: there is always another
//! message behind the one being relayed. So while the target is full, nothing is read: the source, with little room of its
//! own, has to wait as it would for a slow server, and what is left to relay is short when the target has drained.

use std::{
    io,
    os::fd::AsFd as _,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
};

use picop_common::graft::{
    BUDGET, OFF, ON, PASS_WINDOW, RELAY_HIGH, RELAY_SNDBUF, SNDBUF, WINDOW_MIN, Why, overhead,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::RecvFlags,
};

use super::socket::Socket;
use crate::{
    intercept::grafts::{Side, Ticket},
    route::GraftPolicy,
    sys::tcp,
    telemetry::access::AccessRecord,
};

/// `TCP_ESTABLISHED` and `TCP_CLOSE` of the kernel.
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;

/// With `graft: auto`, how many bytes of a direction are relayed before it is grafted. `bench relay --measure sizes` tells when
/// all CPU time together is less for it: down from 16 KiB on; up, where relaying takes the client's loopback segments of 64 KiB
/// and a redirected message is copied in smaller pieces, somewhere between 1 and 4 MiB.
const PAYS_AFTER_UP: u64 = 2 << 20;
const PAYS_AFTER_DOWN: u64 = 16 << 10;

/// The graft of one connection.
#[derive(Debug)]
pub struct Graft {
    ticket: Ticket,
    /// Bytes to be relayed before it begins, up and down.
    after: (u64, u64),
    /// Bytes read so far from client and server.
    read: (u64, u64),
}

/// One direction of it.
#[derive(Debug)]
pub struct Direction<'a> {
    ticket: &'a Ticket,
    side: Side,
    /// Bytes to be relayed before it begins.
    after: u64,
    /// Bytes of the source that were read, and written out or taken out, until it began.
    relayed: u64,
    is_on: bool,
    /// Nothing is read until the target has drained.
    drains: bool,
}

impl Graft {
    /// A graft, if there is to be one; otherwise the client leaves the map at once.
    pub fn new(ticket: Ticket, policy: GraftPolicy, client: &Socket, upstream: &Socket) -> Option<Self> {
        let after = match policy {
            GraftPolicy::Always => Some((0, 0)),
            GraftPolicy::Auto => Some((PAYS_AFTER_UP, PAYS_AFTER_DOWN)),
            GraftPolicy::Never => None,
        };
        // Asked here, as on some kernels FIONREAD is wrong on a socket that is enrolled as a target.
        let read = consumed(client).and_then(|up| Ok(up.zip(consumed(upstream)?)));
        // At the beginning, as TCP goes by the largest window it has seen.
        let has_window = |end: &Socket| tcp::tcp_info(end.as_fd()).is_ok_and(|i| i.send_window >= WINDOW_MIN);
        let (Some(after), Ok(Some(read)), true) = (after, read, has_window(client) && has_window(upstream))
        else {
            ticket.refuse();
            return None;
        };
        Some(Self { ticket, after, read })
    }

    /// Both directions, up and down.
    pub fn directions(&mut self) -> (Direction<'_>, Direction<'_>) {
        let direction = |side, after, relayed| Direction {
            ticket: &self.ticket,
            side,
            after,
            relayed,
            is_on: false,
            drains: false,
        };
        (direction(Side::Up, self.after.0, self.read.0), direction(Side::Down, self.after.1, self.read.1))
    }

    /// Puts into the record what was grafted.
    pub fn tell(&self, record: &mut AccessRecord) {
        let (up, down) = (self.ticket.counts(Side::Up), self.ticket.counts(Side::Down));
        record.grafted_up = up.redirected;
        record.grafted_down = down.redirected;
        record.bytes_up += up.redirected;
        record.bytes_down += down.redirected;
        let passes = Why::ALL.iter().zip(up.passes.iter().zip(down.passes));
        let told: Vec<_> = passes
            .filter(|(_, (up, down))| **up + down > 0)
            .map(|(why, (up, down))| format!("{}={}+{}", why.as_str(), up, down))
            .collect();
        record.graft_passes = (!told.is_empty()).then(|| told.join(" "));
    }
}

impl Direction<'_> {
    /// Begins, if it is time and has not begun. To be called when all that was read has been written.
    pub fn engage(&mut self, from: &Socket, to: &Socket) {
        if self.is_on || self.after > 0 || self.ticket.source(self.side) == 0 {
            return;
        }
        match self.begin(from, to) {
            Ok(begun) => self.is_on = begun,
            Err(error) => {
                // A side that is gone, most likely; the relay finds out.
                tracing::debug!(%error, side = ?self.side, "cannot graft");
                self.after = u64::MAX;
            }
        }
    }

    fn begin(&self, from: &Socket, to: &Socket) -> io::Result<bool> {
        for end in [from, to] {
            if tcp::tcp_info(end.as_fd())?.state != ESTABLISHED {
                return Ok(false);
            }
        }
        let consumed = self.relayed;
        let (written, queued) = self.written(to)?;
        tcp::set_send_buffer(to.as_fd(), SNDBUF)?;
        tcp::lift_unsent_limit(to.as_fd())?;
        tcp::clamp_window(from.as_fd(), PASS_WINDOW)?;
        self.ticket.enrol_target(self.side, to.as_fd())?;
        self.ticket.relayed(self.side).store(consumed, Ordering::SeqCst);
        self.ticket.offset(self.side).store(written.wrapping_sub(consumed), Ordering::SeqCst);
        // How many writes that was, nobody knows any more: small ones, to be safe.
        let queued_overhead = (queued / 1024 + 1) * overhead(0);
        self.ticket.relay_overhead(self.side).store(queued_overhead.min(BUDGET / 2), Ordering::SeqCst);
        self.ticket.state(self.side).store(ON, Ordering::SeqCst);
        Ok(true)
    }

    /// Bytes of the target's stream that have been written, and how many of them are not acknowledged.
    fn written(&self, to: &Socket) -> io::Result<(u64, u64)> {
        // The SYN of an active socket counts.
        let syn = match self.side {
            Side::Up => 1,
            Side::Down => 0,
        };
        loop {
            let before = tcp::tcp_info(to.as_fd())?.bytes_acked;
            let queued = tcp::unacknowledged(to.as_fd())?;
            if tcp::tcp_info(to.as_fd())?.bytes_acked == before {
                return Ok((before.saturating_sub(syn) + queued, queued));
            }
        }
    }

    /// Says that so many bytes were written out.
    pub fn relayed(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if self.is_on {
            // Overhead first: whoever sees the bytes sees it too.
            self.ticket.relay_overhead(self.side).fetch_add(overhead(bytes), Ordering::SeqCst);
            self.ticket.relayed(self.side).fetch_add(bytes, Ordering::SeqCst);
        } else {
            self.relayed += bytes;
            self.after = self.after.saturating_sub(bytes);
        }
    }

    /// Whether to wait for [`poll_room`](Self::poll_room) before anything is read. An error is one of reading.
    pub fn must_wait(&self, from: &Socket) -> io::Result<bool> {
        Ok(self.drains || (self.is_on && self.outstanding() >= RELAY_HIGH && has_data(from)?))
    }

    /// Waits until the target has drained. As long as there is something to relay, nothing is redirected: the room that
    /// redirected messages count on may go.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<()>> {
        if !self.drains {
            // With less room TCP tells when the queue has shrunk.
            tcp::set_send_buffer(to.as_fd(), RELAY_SNDBUF)?;
            self.drains = true;
        }
        let writable = ready!(to.poll_write_with(cx, || is_writable(to)));
        self.drains = false;
        tcp::set_send_buffer(to.as_fd(), SNDBUF)?;
        Poll::Ready(writable)
    }

    /// Bytes in the target.
    fn outstanding(&self) -> u64 {
        let acked = self.ticket.acked(self.side).load(Ordering::Acquire);
        let relayed = self.ticket.relayed(self.side).load(Ordering::Relaxed);
        let offset = self.ticket.offset(self.side).load(Ordering::Relaxed);
        let redirected = self.ticket.counts(self.side).redirected;
        relayed.wrapping_add(offset).wrapping_add(redirected).saturating_sub(acked)
    }

    /// The stream of the source, `from`, has ended. It may have been a reset: a socket tells of that once, and it may have
    /// told the application that was being redirected into it.
    pub fn end(self, from: &Socket) -> io::Result<()> {
        // Once the other direction has ended, nobody is redirected there any more, and CLOSE is how it ends in order.
        let other = match self.side {
            Side::Up => Side::Down,
            Side::Down => Side::Up,
        };
        let has_ended = self.ticket.state(other).load(Ordering::SeqCst) == OFF;
        if !has_ended && tcp::tcp_info(from.as_fd())?.state == CLOSE {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.ticket.state(self.side).store(OFF, Ordering::SeqCst);
        Ok(())
    }
}

/// Bytes that were read from a socket, whose peer may go on sending; none if it has ended.
fn consumed(from: &Socket) -> io::Result<Option<u64>> {
    loop {
        let before = tcp::tcp_info(from.as_fd())?;
        // The FIN counts as a byte.
        if before.state != ESTABLISHED {
            return Ok(None);
        }
        let waiting = rustix::io::ioctl_fionread(from)?;
        if tcp::tcp_info(from.as_fd())? == before {
            return Ok(Some(before.bytes_received - waiting));
        }
    }
}

/// Whether TCP calls a socket writable. If not, it says so when it is: asking marks the socket.
fn is_writable(socket: &Socket) -> io::Result<()> {
    let mut ready = [PollFd::new(socket, PollFlags::OUT)];
    match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// Whether there is a byte to be read. An error is for the caller to act on: a socket tells of a reset once, and a read after
/// this would find an end in order.
fn has_data(socket: &Socket) -> io::Result<bool> {
    match rustix::net::recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((got, _)) => Ok(got > 0),
        Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
