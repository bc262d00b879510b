//! One event loop for all connections, edge-triggered: each socket is registered once, for everything, as soon as its
//! connect is under way. From there on it is read and written until `EAGAIN`, and then only when an edge has come; whoever
//! loses one waits for ever. Go's runtime, tokio and nginx are like this.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use socket2::{Domain, Protocol, Socket, Type};
use testbed::{ClientReport, blob, hex};

use super::Args;
use super::exchange::{Fault, HEX_MAX, TEXT_MAX, micros};
use crate::conn;

const CHUNK: usize = 64 * 1024;
/// Where connection `n`'s computable stream starts: at `n` times this. Two of them have no bytes in common.
const STREAM_SHIFT: u32 = 32;

/// Makes all connections and reports each.
pub fn run(args: &Args, opening: &[u8]) -> Result<Vec<ClientReport>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("making an event loop")?;
    let timeout = Timespec::try_from(Duration::from_millis(args.timeout_ms)).context("a timeout")?;
    let at_once = args.concurrency.clamp(1, args.count);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let (mut reports, mut buf) = (Vec::new(), vec![0; CHUNK]);
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    while reports.len() < args.count {
        while connections.len() < args.count && connections.len() - reports.len() < at_once {
            let number = connections.len() as u64;
            match Connection::open(args, &epoll, number) {
                Ok(connection) => connections.push(Some(connection)),
                Err(report) => {
                    connections.push(None);
                    reports.push(*report);
                }
            }
        }
        if reports.len() == args.count {
            break;
        }
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            // Nothing has moved for so long: every one of them has waited too long.
            Ok(0) => {
                let stuck = connections.iter_mut().filter_map(Option::take);
                reports.extend(stuck.map(|connection| {
                    connection.finish(Err(Fault::io("wait")(io::ErrorKind::TimedOut.into())))
                }));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for events"),
        }
        for event in &events {
            let (number, flags) = (event.data.u64(), event.flags);
            let slot = connections.get_mut(usize::try_from(number)?).context("an event of no connection")?;
            let Some(connection) = slot else { continue };
            if let Some(outcome) = connection.go_on(args, opening, flags, &mut buf) {
                reports.extend(slot.take().map(|connection| connection.finish(outcome)));
            }
        }
    }
    Ok(reports)
}

#[expect(clippy::struct_excessive_bools, reason = "both directions go their own ways")]
struct Connection {
    socket: Socket,
    started: Instant,
    report: ClientReport,
    /// Where its computable stream starts.
    base: u64,
    connected: bool,
    readable: bool,
    writable: bool,
    /// Everything is written, and the end of the stream if asked for.
    sent: bool,
    /// Everything is read.
    received: bool,
    head: Vec<u8>,
}

impl Connection {
    fn open(args: &Args, epoll: &OwnedFd, number: u64) -> Result<Self, Box<ClientReport>> {
        let started = Instant::now();
        let connect = || {
            let to = if args.mapped { conn::map(args.to) } else { args.to };
            let socket =
                Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
            if args.mapped {
                socket.set_only_v6(false)?;
            }
            socket.set_tcp_nodelay(true)?;
            if let Some(bytes) = args.send_buffer {
                socket.set_send_buffer_size(bytes)?;
            }
            match socket.connect(&to.into()) {
                Err(error) if !conn::in_progress(&error) => return Err(error),
                // Even when it is connected already, an edge says so.
                _ => {}
            }
            let all = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            epoll::add(epoll, &socket, epoll::EventData::new_u64(number), all)?;
            Ok(socket)
        };
        match connect() {
            Ok(socket) => Ok(Self {
                socket,
                started,
                report: ClientReport::default(),
                base: number << STREAM_SHIFT,
                connected: false,
                readable: false,
                writable: false,
                sent: false,
                received: false,
                head: Vec::new(),
            }),
            Err(error) => {
                let mut report = ClientReport { elapsed_us: micros(started), ..ClientReport::default() };
                Fault::io("connect")(error).tell(&mut report);
                Err(Box::new(report))
            }
        }
    }

    /// Does what can be done without waiting; says how the connection went when it is over.
    fn go_on(
        &mut self,
        args: &Args,
        opening: &[u8],
        flags: epoll::EventFlags,
        buf: &mut [u8],
    ) -> Option<Result<(), Fault>> {
        use epoll::EventFlags as Is;
        let gone = flags.intersects(Is::ERR | Is::HUP);
        self.readable |= gone || flags.intersects(Is::IN | Is::RDHUP);
        self.writable |= gone || flags.intersects(Is::OUT);
        self.step(args, opening, buf).map(|over| over.then_some(())).transpose()
    }

    /// Says whether it is over.
    fn step(&mut self, args: &Args, opening: &[u8], buf: &mut [u8]) -> Result<bool, Fault> {
        if !self.connected && self.writable {
            self.connect_ended().map_err(Fault::io("connect"))?;
        }
        if self.connected {
            self.send(args, opening, buf)?;
            self.receive(args, buf)?;
        }
        Ok(self.sent && self.received)
    }

    fn connect_ended(&mut self) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        // Fails if it is not connected after all, which Go's runtime has met and asks for, too.
        self.report.peer = self.socket.peer_addr()?.as_socket();
        self.report.local = self.socket.local_addr()?.as_socket();
        self.report.connect_us = micros(self.started);
        self.connected = true;
        Ok(())
    }

    fn send(&mut self, args: &Args, opening: &[u8], buf: &mut [u8]) -> Result<(), Fault> {
        let total = opening.len() as u64 + args.upload;
        while self.writable && self.report.sent < total {
            let written = match usize::try_from(self.report.sent).ok().and_then(|at| opening.get(at..)) {
                Some(rest) if !rest.is_empty() => self.socket.write(rest),
                _ => {
                    let at = self.report.sent - opening.len() as u64;
                    let count = CHUNK.min(usize::try_from(args.upload - at).unwrap_or(CHUNK));
                    blob::fill(self.base + at, &mut buf[..count]);
                    self.socket.write(&buf[..count])
                }
            };
            match written {
                Ok(count) => self.report.sent += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(Fault::io("write")(error)),
            }
        }
        if !self.sent && self.report.sent == total {
            if args.half_close {
                self.socket.shutdown(Shutdown::Write).map_err(Fault::io("shutdown"))?;
            }
            self.sent = true;
        }
        Ok(())
    }

    fn receive(&mut self, args: &Args, buf: &mut [u8]) -> Result<(), Fault> {
        let wanted = args.wanted();
        while !self.received && self.report.bytes < wanted && self.readable {
            let room = buf.len().min(usize::try_from(wanted - self.report.bytes).unwrap_or(buf.len()));
            match self.socket.read(&mut buf[..room]) {
                Ok(0) => {
                    self.report.eof = true;
                    self.received = true;
                }
                Ok(count) => self.take(args, &buf[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) => return Err(Fault::io("read")(error)),
            }
        }
        if self.report.bytes == wanted {
            self.received = true;
        }
        if self.received { Fault::of_content(args, &self.report).map_or(Ok(()), Err) } else { Ok(()) }
    }

    fn take(&mut self, args: &Args, bytes: &[u8]) {
        self.report.first_byte_us.get_or_insert_with(|| micros(self.started));
        self.head.extend(&bytes[..bytes.len().min(TEXT_MAX - self.head.len())]);
        if args.expect_blob && self.report.mismatch_at.is_none() {
            let at = blob::mismatch(self.base + self.report.bytes, bytes);
            self.report.mismatch_at = at.map(|at| at - self.base);
        }
        self.report.bytes += bytes.len() as u64;
    }

    fn finish(mut self, outcome: Result<(), Fault>) -> ClientReport {
        self.report.elapsed_us = micros(self.started);
        self.report.first_hex = hex::encode(&self.head[..self.head.len().min(HEX_MAX)]);
        self.report.text = String::from_utf8_lossy(&self.head).into_owned();
        self.report.ok = outcome.is_ok();
        if let Err(fault) = outcome {
            fault.tell(&mut self.report);
        }
        self.report
    }
}
