//! HTTP requests as fast as they are answered: each of so many clients asks again once it has its answer. What is between client
//! and server is then as busy as it can be, and how many requests it carries is what it can carry.
//!
//! Requests go to hosts in turn, over one connection; each answer must be that of its host.

mod one;
mod two;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};

use super::{PATIENCE, long_nanos, nanos};

/// What to ask.
#[derive(Debug, Deserialize)]
pub struct Plan {
    to: SocketAddr,
    hosts: Vec<Host>,
    how: How,
    /// Connections at once.
    connections: usize,
    /// Requests at once on each, which HTTP/2 can have.
    streams: usize,
    /// Requests in all.
    requests: usize,
}

/// A host that is asked for.
#[derive(Debug, Deserialize)]
pub struct Host {
    name: String,
    /// The whole body that it must answer with.
    body: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    /// A connection for each request.
    PerRequest,
    /// HTTP/1.1 over lasting connections.
    KeepAlive,
    /// HTTP/2, the client knowing that it will be understood.
    Http2,
}

/// Nanoseconds.
#[derive(Debug, Default, Serialize)]
pub struct Closed {
    /// Of each request: from before it was sent (or its connection made) to the whole response.
    whole: Vec<u32>,
    /// From the first one's beginning to the last one's end.
    elapsed: u64,
    /// Connections that were made.
    connections: u64,
}

/// One connection's side of a protocol.
trait Protocol {
    /// Sent on a new connection.
    fn greeting(&self) -> Vec<u8>;
    /// Puts another request behind what is to be sent. `number` is told by [`took`](Self::took) when it is answered.
    fn ask(&mut self, out: &mut Vec<u8>, host: usize, number: usize);
    /// Takes what came, and what is to be sent for it; tells of each request that is answered.
    fn took(&mut self, bytes: &[u8], hosts: &[Host], out: &mut Vec<u8>) -> Result<Vec<usize>>;
    /// Whether the connection can have another request.
    fn goes_on(&self) -> bool;
}

struct Connection {
    stream: TcpStream,
    protocol: Box<dyn Protocol>,
    out: Vec<u8>,
}

/// Makes the requests.
pub fn run(plan: &Plan) -> Result<Closed> {
    ensure!(plan.requests > 0 && plan.connections > 0 && plan.streams > 0, "nothing to do: {plan:?}");
    ensure!(!plan.hosts.is_empty(), "nobody to ask");
    let mut run = Run {
        plan,
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        connections: Vec::new(),
        began: Vec::with_capacity(plan.requests),
        closed: Closed::default(),
    };
    let start = Instant::now();
    for place in 0..plan.connections.min(plan.requests) {
        run.connect(place)?;
    }
    let mut events = Vec::with_capacity(256);
    let patience = Timespec::try_from(PATIENCE).context("a time")?;
    while run.closed.whole.len() < plan.requests {
        let count = epoll::wait(&run.epoll, spare_capacity(&mut events), Some(&patience))?;
        ensure!(count > 0, "no answer within {PATIENCE:?}");
        for event in events.drain(..) {
            run.ready(usize::try_from(event.data.u64())?)?;
        }
    }
    run.closed.elapsed = long_nanos(start.elapsed());
    Ok(run.closed)
}

struct Run<'a> {
    plan: &'a Plan,
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Option<Connection>>,
    /// When each request did.
    began: Vec<Instant>,
    closed: Closed,
}

impl Run<'_> {
    /// Connects, and asks as often as may be at once.
    fn connect(&mut self, place: usize) -> Result<()> {
        let began = Instant::now();
        // Within one machine the handshake takes no time that a client could use otherwise.
        let stream =
            TcpStream::connect(self.plan.to).with_context(|| format!("connecting to {}", self.plan.to))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN)?;
        self.closed.connections += 1;
        let protocol: Box<dyn Protocol> = match self.plan.how {
            How::Http2 => Box::new(two::Http2::new(&self.plan.hosts)),
            how => Box::new(one::Http1::new(&self.plan.hosts, how == How::KeepAlive)),
        };
        let out = protocol.greeting();
        if self.connections.len() <= place {
            self.connections.resize_with(place + 1, || None);
        }
        self.connections[place] = Some(Connection { stream, protocol, out });
        for _ in 0..self.plan.streams {
            self.ask(place, began);
        }
        self.send(place)
    }

    /// If there are requests left.
    fn ask(&mut self, place: usize, began: Instant) {
        let number = self.began.len();
        if let (Some(connection), true) = (&mut self.connections[place], number < self.plan.requests) {
            self.began.push(began);
            connection.protocol.ask(&mut connection.out, number % self.plan.hosts.len(), number);
        }
    }

    fn send(&mut self, place: usize) -> Result<()> {
        let Some(connection) = &mut self.connections[place] else { return Ok(()) };
        // A few requests: there is room for them.
        connection
            .stream
            .write_all(&connection.out)
            .with_context(|| format!("sending to {}", self.plan.to))?;
        connection.out.clear();
        Ok(())
    }

    fn ready(&mut self, place: usize) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        let Some(connection) = &mut self.connections[place] else { return Ok(()) };
        let count = match connection.stream.read(&mut buffer) {
            Ok(0) => bail!("{} ended a connection before its response", self.plan.to),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("reading from {}", self.plan.to)),
        };
        let Connection { protocol, out, .. } = connection;
        let answered = protocol.took(&buffer[..count], &self.plan.hosts, out)?;
        let goes_on = protocol.goes_on();
        for number in &answered {
            self.closed.whole.push(nanos(self.began[*number].elapsed()));
        }
        if answered.is_empty() || goes_on {
            for _ in &answered {
                self.ask(place, Instant::now());
            }
            return self.send(place);
        }
        self.connections[place] = None;
        if self.began.len() < self.plan.requests { self.connect(place) } else { Ok(()) }
    }
}
