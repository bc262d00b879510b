//! Many HTTP connections at once, on one thread: the server behind the gateways of `bench gateway`.
//!
//! Every request gets the same 1,000 bytes, which begin with the environment it arrived in: that of the connection's PiCoP
//! header, or, without one, the name of the listener. Requests have no bodies here.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, bail};
use picop_common::header::{Detected, detect};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;

use super::Counts;

/// Bytes of a body.
const BODY: usize = 1000;

/// A name, and where its listener is.
pub type At = (String, PathBuf, SocketAddr);

/// A listener, its name, and what it has served.
pub struct Listening {
    pub listener: TcpListener,
    pub name: String,
    pub(super) counts: Arc<Counts>,
}

/// `NAME=CGROUP@ADDRESS`
pub fn at(text: &str) -> Result<At, String> {
    let (name, at) = text.split_once('=').ok_or("expected NAME=CGROUP@ADDRESS")?;
    let (cgroup, address) = super::listen_at(at)?;
    Ok((name.to_owned(), cgroup, address))
}

/// The body of a response.
pub fn body(environment: &str) -> String {
    let mut body = format!("{environment} ");
    body.extend(std::iter::repeat_n('a', BODY.saturating_sub(body.len())));
    body
}

fn response(environment: &str) -> Vec<u8> {
    let body = body(environment);
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Serves the listeners' connections, until the process ends.
pub fn serve(listeners: Vec<Listening>) -> Result<()> {
    let mut server = Server {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        listeners,
        connections: Vec::new(),
        free: Vec::new(),
    };
    for (number, listening) in server.listeners.iter().enumerate() {
        listening.listener.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&server.epoll, &listening.listener, data, epoll::EventFlags::IN)?;
    }
    let mut events = Vec::with_capacity(256);
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
}

struct Connection {
    stream: TcpStream,
    listener: usize,
    /// What came and was not a whole request yet.
    came: Vec<u8>,
    /// Known once its first bytes are.
    response: Option<Vec<u8>>,
}

impl Server {
    fn accept(&mut self, listener: usize) -> Result<()> {
        let stream = match self.listeners[listener].listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("accepting"),
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let data = epoll::EventData::new_u64((self.listeners.len() + place) as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
        self.connections[place] = Some(Connection { stream, listener, came: Vec::new(), response: None });
        Ok(())
    }

    fn ready(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else { return };
        let Listening { name, counts, .. } = &self.listeners[connection.listener];
        match connection.serve(name, counts) {
            Ok(true) => {}
            Ok(false) => self.close(place),
            Err(error) => {
                counts.bad.fetch_add(1, Ordering::SeqCst);
                eprintln!("{name}: {error:#}");
                self.close(place);
            }
        }
    }

    fn close(&mut self, place: usize) {
        self.connections[place] = None;
        self.free.push(place);
    }
}

impl Connection {
    /// Reads what is there, and answers it; whether there may be more.
    fn serve(&mut self, name: &str, counts: &Counts) -> Result<bool> {
        let mut buf = [0; 8192];
        let count = match self.stream.read(&mut buf) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            // A gateway may close what it kept however it likes.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && self.came.is_empty() => {
                return Ok(false);
            }
            Err(error) => return Err(error).context("reading a request"),
        };
        if count == 0 {
            return if self.came.is_empty() { Ok(false) } else { bail!("it ended within a request") };
        }
        self.came.extend_from_slice(&buf[..count]);
        if self.response.is_none() {
            let (environment, header) = match detect(&self.came) {
                Detected::Partial { .. } => return Ok(true),
                Detected::Other(_) => (name.to_owned(), 0),
                Detected::Header(header) => {
                    let environment = String::from_utf8_lossy(header.env_id().unwrap_or_default());
                    (environment.into_owned(), header.wire_len())
                }
            };
            let kind = if header == 0 { &counts.without } else { &counts.with_header };
            kind.fetch_add(1, Ordering::SeqCst);
            self.came.drain(..header);
            self.response = Some(response(&environment));
        }
        while let Some(end) = self.came.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = &self.came[..end];
            if !head.starts_with(b"GET ") {
                bail!("no request: {}", head[..head.len().min(40)].escape_ascii());
            }
            let is_last = head.windows(17).any(|line| line.eq_ignore_ascii_case(b"connection: close"));
            // Clients wait for one answer before they ask again, so there is room for it.
            self.stream.write_all(self.response.as_deref().unwrap_or_default()).context("answering")?;
            if is_last {
                return Ok(false);
            }
            self.came.drain(..end + 4);
        }
        Ok(true)
    }
}
