//! The least that a proxy of small connections does, for `bench relay`: accept, connect, pass on, close. One thread, one event
//! loop, no header, no table, no limits, no line. What it costs beyond no proxy is the price of a second connection; what a real
//! proxy costs beyond it is its own.
//!
//! It holds nothing back: what the other side does not take at once is an error. Not for streams.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::server;

#[derive(clap::Args)]
pub struct Args {
    /// Where clients connect to
    #[arg(long)]
    listen: SocketAddr,
    /// Where they are connected on to
    #[arg(long)]
    to: SocketAddr,
}

const LISTENER: u64 = u64::MAX;
const CLIENT: usize = 0;
const SERVER: usize = 1;
/// Edges of everything, asked for once: nothing is asked for or changed later.
const EDGES: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

pub fn run(args: &Args) -> Result<()> {
    let listener = server::listen(args.listen)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut relay =
        Relay { epoll, listener, to: args.to, pairs: Vec::new(), free: Vec::new(), buffer: vec![0; 1 << 16] };
    let mut events = Vec::with_capacity(256);
    loop {
        match epoll::wait(&relay.epoll, spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            waited => waited.context("waiting for connections")?,
        };
        for event in events.drain(..) {
            match event.data.u64() {
                LISTENER => relay.accept()?,
                token => relay.ready(usize::try_from(token)?, event.flags),
            }
        }
    }
}

struct Relay {
    epoll: OwnedFd,
    listener: TcpListener,
    to: SocketAddr,
    pairs: Vec<Option<Pair>>,
    /// Places without a pair.
    free: Vec<usize>,
    buffer: Vec<u8>,
}

/// A connection and the one it is passed on by.
struct Pair {
    ends: [TcpStream; 2],
    ended: [bool; 2],
    is_connected: bool,
    /// The client's edge came before the server was there.
    is_owed: Option<EventFlags>,
}

impl Relay {
    fn accept(&mut self) -> Result<()> {
        let client =
            match rustix::net::accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(client) => TcpStream::from(client),
                Err(Errno::AGAIN | Errno::CONNABORTED) => return Ok(()),
                Err(error) => return Err(error).context("accepting"),
            };
        let family = if self.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let server = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&server, &self.to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("connecting"),
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let ends = [client, TcpStream::from(server)];
        for (end, side) in ends.iter().zip([CLIENT, SERVER]) {
            epoll::add(&self.epoll, end, epoll::EventData::new_u64((place * 2 + side) as u64), EDGES)?;
        }
        self.pairs[place] = Some(Pair { ends, ended: [false; 2], is_connected: false, is_owed: None });
        Ok(())
    }

    fn ready(&mut self, token: usize, edges: EventFlags) {
        let (place, side) = (token / 2, token % 2);
        let Some(pair) = &mut self.pairs[place] else { return };
        let done = pair.ready(side, edges, &mut self.buffer);
        // Whatever it was: both ends are closed, and the benchmark sees what is missing.
        if done.unwrap_or(true) {
            self.pairs[place] = None;
            self.free.push(place);
        }
    }
}

impl Pair {
    /// Passes on what is there. True: both have ended.
    fn ready(&mut self, side: usize, edges: EventFlags, buffer: &mut [u8]) -> io::Result<bool> {
        if side == CLIENT && !self.is_connected {
            self.is_owed = Some(self.is_owed.unwrap_or(EventFlags::empty()) | edges);
            return Ok(false);
        }
        if side == SERVER && !self.is_connected && edges.contains(EventFlags::OUT) {
            self.is_connected = true;
            if let Some(owed) = self.is_owed.take()
                && self.pass(CLIENT, owed, buffer)?
            {
                return Ok(true);
            }
        }
        self.pass(side, edges, buffer)
    }

    fn pass(&mut self, side: usize, edges: EventFlags, buffer: &mut [u8]) -> io::Result<bool> {
        if self.ended[side] {
            return Ok(false);
        }
        let mut ended = false;
        if edges.contains(EventFlags::IN) {
            loop {
                match self.ends[side].read(buffer) {
                    Ok(0) => ended = true,
                    Ok(count) => {
                        self.ends[1 - side].write_all(&buffer[..count])?;
                        if count == buffer.len() {
                            continue;
                        }
                        // A short read has emptied it; an end that came with it is in the edges.
                        ended = edges.contains(EventFlags::RDHUP);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ended = edges.contains(EventFlags::RDHUP);
                    }
                    Err(error) => return Err(error),
                }
                break;
            }
        }
        if !ended {
            return Ok(false);
        }
        self.ended[side] = true;
        if self.ended[1 - side] {
            return Ok(true);
        }
        self.ends[1 - side].shutdown(Shutdown::Write)?;
        Ok(false)
    }
}
