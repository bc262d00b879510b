//! Many connections at once, on one thread.
//!
//! Sockets wait (`connect` and `send` of a kilobyte hardly ever do, within one machine), but are only read when epoll says
//! that there is something. So a connection costs the client little more than one of [`one`](super::one).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use super::{PATIENCE, RESPONSE, Times, long_nanos, nanos};
use crate::bench_wire::{Request, check_response};

/// Makes connections with one request each, `clients` at a time.
pub fn connections(
    to: SocketAddr,
    header: &[u8],
    port: u16,
    connections: usize,
    clients: usize,
) -> Result<Times> {
    let request = [header, &Request::Exchange.bytes()].concat();
    let mut crowd = Crowd::new(port)?;
    let mut times = Times::default();
    let began = Instant::now();
    let mut started = clients.min(connections);
    for place in 0..started {
        let talk = crowd.connect(place, to, &request)?;
        crowd.talks.push(Some(talk));
    }
    while times.whole.len() < connections {
        crowd.answered(|crowd, place| {
            let Some(talk) = crowd.talks[place].take() else { return Ok(()) };
            talk.finish(&mut times);
            if started < connections {
                started += 1;
                let talk = crowd.connect(place, to, &request)?;
                crowd.talks[place] = Some(talk);
            }
            Ok(())
        })?;
    }
    times.elapsed = long_nanos(began.elapsed());
    Ok(times)
}

/// Makes requests over open connections, each as soon as its connection's last one was answered. Gives them back.
pub fn requests(streams: Vec<TcpStream>, port: u16, requests: usize) -> Result<(Times, Vec<TcpStream>)> {
    let mut started = streams.len();
    ensure!(started > 0 && requests >= started, "{requests} requests over {started} connections");
    let request = Request::Exchange.bytes();
    let mut crowd = Crowd::new(port)?;
    let mut times = Times::default();
    let began = Instant::now();
    for (place, mut stream) in streams.into_iter().enumerate() {
        let start = Instant::now();
        stream.write_all(&request).context("sending")?;
        let talk = crowd.talk(place, stream, start, start)?;
        crowd.talks.push(Some(talk));
    }
    while times.whole.len() < requests {
        crowd.answered(|crowd, place| {
            let Some(talk) = &mut crowd.talks[place] else { return Ok(()) };
            let now = Instant::now();
            times.whole.push(nanos(now - talk.start));
            if started >= requests {
                // None is under way at the end.
                return Ok(());
            }
            started += 1;
            talk.start = now;
            talk.filled = 0;
            talk.stream.write_all(&request).context("sending")
        })?;
    }
    times.elapsed = long_nanos(began.elapsed());
    Ok((times, crowd.talks.into_iter().flatten().map(|talk| talk.stream).collect()))
}

/// Opens connections one after the other, each with one request: then all of the way is known to exist.
pub fn hold(to: SocketAddr, header: &[u8], port: u16, connections: usize) -> Result<Vec<TcpStream>> {
    let request = [header, &Request::Exchange.bytes()].concat();
    let mut response = [0; RESPONSE];
    let open = |number| {
        let mut stream = TcpStream::connect(to).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request).context("sending")?;
        stream.read_exact(&mut response).context("reading")?;
        check_response(&response, port)?;
        let opened: Result<_> = Ok(stream);
        opened.with_context(|| format!("connection {number} to {to}"))
    };
    (0..connections).map(open).collect()
}

struct Crowd {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    talks: Vec<Option<Talk>>,
    port: u16,
}

/// A request under way.
struct Talk {
    stream: TcpStream,
    start: Instant,
    /// In `connect(2)`.
    connect: u32,
    connected: Instant,
    first_byte: Option<Instant>,
    response: [u8; RESPONSE + 1],
    filled: usize,
}

impl Crowd {
    fn new(port: u16) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(64), talks: Vec::new(), port })
    }

    fn connect(&self, place: usize, to: SocketAddr, request: &[u8]) -> Result<Talk> {
        let start = Instant::now();
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        let connecting = Instant::now();
        socket.connect(&to.into()).with_context(|| format!("connecting to {to}"))?;
        let connected = Instant::now();
        let mut stream = TcpStream::from(socket);
        stream.write_all(request).context("sending")?;
        let mut talk = self.talk(place, stream, start, connected)?;
        talk.connect = nanos(connected - connecting);
        Ok(talk)
    }

    fn talk(&self, place: usize, stream: TcpStream, start: Instant, connected: Instant) -> Result<Talk> {
        let data = epoll::EventData::new_u64(place as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        Ok(Talk {
            stream,
            start,
            connect: 0,
            connected,
            first_byte: None,
            response: [0; RESPONSE + 1],
            filled: 0,
        })
    }

    /// Waits for responses, and says which places have one, whole and of the right server.
    fn answered(&mut self, mut then: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<()> {
        let patience = Timespec::try_from(PATIENCE).context("a time")?;
        let mut events = std::mem::take(&mut self.events);
        let count = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience))?;
        ensure!(count > 0, "none of the connections was answered within {PATIENCE:?}");
        for event in events.drain(..) {
            let place = usize::try_from(event.data.u64())?;
            let Some(talk) = &mut self.talks[place] else { continue };
            if talk.read()? {
                check_response(&talk.response[..RESPONSE], self.port)?;
                then(self, place)?;
            }
        }
        self.events = events;
        Ok(())
    }
}

impl Talk {
    /// Reads on; says whether the response is whole.
    fn read(&mut self) -> Result<bool> {
        let count = self.stream.read(&mut self.response[self.filled..]).context("reading")?;
        ensure!(count > 0, "the response ended after {} bytes", self.filled);
        self.first_byte.get_or_insert_with(Instant::now);
        self.filled += count;
        ensure!(self.filled <= RESPONSE, "more than the response came");
        Ok(self.filled == RESPONSE)
    }

    /// Closes it.
    fn finish(self, times: &mut Times) {
        let closing = Instant::now();
        drop(self.stream);
        let end = Instant::now();
        times.connect.push(self.connect);
        times.first_byte.push(nanos(self.first_byte.unwrap_or(closing) - self.connected));
        times.close.push(nanos(end - closing));
        times.whole.push(nanos(end - self.start));
    }
}
