//! Many connections at once, on one thread: the server of `bench relay`.
//!
//! A connection is any number of requests (see [`bench_wire`](crate::bench_wire)), one after the other, until the client's
//! end of stream. While a stream is sent or read nothing else is served: streams are measured one at a time.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;

use super::Counts;
use crate::bench_client::REQUEST;
use crate::bench_wire::{Request, Stream, response};

/// No stream stands still that long, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener, its port, and what it has served.
pub type Listening = (TcpListener, u16, Arc<Counts>);

/// Serves the listeners' connections, until the process ends.
pub fn serve(listeners: Vec<Listening>) -> Result<()> {
    let mut server = Server {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        listeners,
        connections: Vec::new(),
        free: Vec::new(),
        stream: Stream::new(),
    };
    for (number, (listener, ..)) in server.listeners.iter().enumerate() {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&server.epoll, listener, data, epoll::EventFlags::IN)?;
    }
    let mut events = Vec::with_capacity(64);
    loop {
        epoll::wait(&server.epoll, spare_capacity(&mut events), None).context("waiting for connections")?;
        for event in events.drain(..) {
            let number = usize::try_from(event.data.u64())?;
            match number.checked_sub(server.listeners.len()) {
                None => server.accept(number)?,
                Some(place) => server.ready(place),
            }
        }
    }
}

struct Server {
    epoll: OwnedFd,
    listeners: Vec<Listening>,
    connections: Vec<Option<Connection>>,
    /// Places without a connection.
    free: Vec<usize>,
    stream: Stream,
}

struct Connection {
    stream: TcpStream,
    /// Which one took it.
    listener: usize,
    /// The beginning of a request, if it came in pieces.
    partial: Vec<u8>,
    has_asked: bool,
}

impl Server {
    fn accept(&mut self, listener: usize) -> Result<()> {
        // Readable, and nobody else accepts here: this does not wait, unless the client has taken its connection back.
        let (stream, _) = self.listeners[listener].0.accept().context("accepting")?;
        stream.set_nodelay(true)?;
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let data = epoll::EventData::new_u64((self.listeners.len() + place) as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        self.connections[place] =
            Some(Connection { stream, listener, partial: Vec::new(), has_asked: false });
        Ok(())
    }

    fn ready(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else { return };
        let (_, port, counts) = &self.listeners[connection.listener];
        let served = connection.serve(*port, &self.stream);
        if let Ok(Served::Request) = served {
            if !connection.has_asked {
                connection.has_asked = true;
                counts.without.fetch_add(1, Ordering::SeqCst);
            }
            return;
        }
        if let Err(error) = &served {
            counts.bad.fetch_add(1, Ordering::SeqCst);
            eprintln!("port {port}: {error:#}");
        }
        if !matches!(served, Ok(Served::Part)) {
            self.connections[place] = None;
            self.free.push(place);
        }
    }
}

enum Served {
    Request,
    /// Not a whole request yet.
    Part,
    End,
}

impl Connection {
    /// Reads what is there, and does what it says.
    fn serve(&mut self, port: u16, stream: &Stream) -> Result<Served> {
        let mut buf = [0; REQUEST];
        let before = self.partial.len();
        buf[..before].copy_from_slice(&self.partial);
        let filled = before + self.stream.read(&mut buf[before..]).context("reading a request")?;
        if filled == before {
            return if before == 0 { Ok(Served::End) } else { bail!("a request ended after {before} bytes") };
        }
        if filled < REQUEST {
            self.partial = buf[..filled].to_vec();
            return Ok(Served::Part);
        }
        self.partial = Vec::new();
        let Some(request) = Request::of(&buf) else { bail!("no request begins with {:?}", &buf[..32]) };
        match request {
            Request::Exchange => {}
            Request::Upload(length) => {
                self.stream.set_read_timeout(Some(PATIENCE))?;
                stream.receive(&self.stream, length)?;
            }
            Request::Download(length) => {
                self.stream.set_write_timeout(Some(PATIENCE))?;
                stream.send(&self.stream, length)?;
                return Ok(Served::Request);
            }
        }
        self.stream.write_all(&response(port)).context("answering")?;
        Ok(Served::Request)
    }
}
