//! The other end of `hop bench-client` and `hop bench-server`: both run for the whole benchmark and do what a line on a
//! Unix socket says. Waiting for the answer costs nothing while they work.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testbed::{Cluster, Pod, Proc, hex, wait_until};

use super::gateway::How;
use super::web::PAYLOAD;

/// For a program to start, and for a block of connections.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nanoseconds, a value for each connection: see `hop bench-client`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Times {
    pub connect: Vec<u32>,
    pub first_byte: Vec<u32>,
    pub close: Vec<u32>,
    pub whole: Vec<u32>,
    /// From the first one's beginning to the last one's end.
    pub elapsed: u64,
}

/// What requests at a fixed rate met, in nanoseconds: see `hop bench-client`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Paced {
    /// Of each request: from the moment it was meant to be sent to the whole response.
    pub whole: Vec<u32>,
    /// How late the client itself was, where it could have sent.
    pub late: Vec<u32>,
    /// Requests without an answer in time.
    pub missed: u64,
    /// From the first one's moment to the last one's answer.
    pub elapsed: u64,
}

/// Requests at a fixed rate.
#[derive(Debug)]
pub struct Pace<'a> {
    pub cgroup: &'a Path,
    /// What is sent first on each connection, in hexadecimal.
    pub header: &'a str,
    /// Where to, and the body of the response from there: client number n asks target n, modulo their number.
    pub targets: &'a [(SocketAddr, String)],
    /// Requests a second, of all clients together.
    pub rate: f64,
    /// Requests in all.
    pub requests: u64,
    /// How many may be under way at a time.
    pub clients: usize,
    pub keep_alive: bool,
    /// Whether all clients send at the same moment.
    pub at_once: bool,
    /// The HTTP request.
    pub request: &'a str,
}

/// HTTP requests that follow their answers: see `hop bench-client`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Closed {
    /// Of each request, in nanoseconds.
    pub whole: Vec<u32>,
    /// From the first one's beginning to the last one's end.
    pub elapsed: u64,
}

/// A host that is asked for, and what it must answer with.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    name: String,
    body: String,
}

impl Host {
    /// One that an environment answers: as `hop bench-server --web` does.
    pub fn of(name: &str, environment: &str) -> Self {
        let mut body = format!("{environment} ");
        body.extend(std::iter::repeat_n('a', PAYLOAD.saturating_sub(body.len())));
        Self { name: name.to_owned(), body }
    }
}

/// HTTP requests, as many as are answered.
#[derive(Debug)]
pub struct Web<'a> {
    pub cgroup: &'a Path,
    pub to: SocketAddr,
    /// In turn.
    pub hosts: &'a [Host],
    /// What is done with connections.
    pub how: How,
    /// Connections at once.
    pub connections: usize,
    /// Requests at once on each.
    pub streams: usize,
    /// Requests in all.
    pub requests: usize,
}

/// A listener of the server for HTTP.
#[derive(Clone, Debug)]
pub struct WebListener {
    /// What its answers begin with, unless a connection's header has an environment.
    pub name: String,
    pub cgroup: PathBuf,
    pub address: SocketAddr,
}

/// When a change was met.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Reached {
    /// When the first connection began that was routed by it: nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
    /// Connections before that.
    pub before: u64,
}

/// What one of the server's listeners has served.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Served {
    /// Connections that began with a PiCoP header.
    pub with_header: u64,
    /// Connections that did not.
    pub without: u64,
    /// What came to a listener of many connections and was no request.
    pub bad: u64,
}

/// A running program and the line to it.
#[derive(Debug)]
struct Remote {
    // Before the program: it ends by itself when the line does.
    reader: BufReader<UnixStream>,
    proc: Proc,
}

impl Remote {
    fn start(cluster: &Cluster, pod: &Pod, name: &str, args: &[String]) -> Result<Self> {
        let path = cluster.dir().join(format!("{name}-{}.sock", pod.name()));
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listening at {}", path.display()))?;
        listener.set_nonblocking(true)?;
        let mut command = pod.hop([name, "--control"])?;
        command.arg(&path).args(args);
        let proc = pod.spawn(name, command)?;
        let accepted = wait_until(&format!("hop {name}"), PATIENCE, || listener.accept().ok());
        let (stream, _) = accepted.with_context(|| proc.stderr())?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), proc })
    }

    fn ask<T: DeserializeOwned>(&mut self, line: &Value) -> Result<T> {
        self.send(line)?;
        self.answer()
    }

    fn send(&mut self, line: &Value) -> Result<()> {
        let line = format!("{line}\n");
        let sent = self.reader.get_ref().write_all(line.as_bytes());
        sent.with_context(|| format!("it takes no more lines: {}", self.proc.stderr()))
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut answer = String::new();
        self.reader.read_line(&mut answer).with_context(|| format!("no answer: {}", self.proc.stderr()))?;
        let answer: Value = serde_json::from_str(&answer)
            .with_context(|| format!("not an answer: {answer:?} {}", self.proc.stderr()))?;
        if let Some(error) = answer.get("error") {
            bail!("{error}");
        }
        Ok(serde_json::from_value(answer)?)
    }
}

/// The client.
#[derive(Debug)]
pub struct Client(Remote);

/// A block of connections to make, one after the other.
#[derive(Debug)]
pub struct Block<'a> {
    pub cgroup: &'a Path,
    pub to: Vec<SocketAddr>,
    /// What is sent before the request, in hexadecimal.
    pub header: &'a str,
    /// So many, the first, are not timed.
    pub warm_up: usize,
    /// Where the answers say they are from. (Listeners of one connection at a time do not say.)
    pub port: Option<u16>,
}

/// A way through which connections are made.
#[derive(Clone, Debug)]
pub struct Way {
    /// The cgroup the client is in.
    pub cgroup: PathBuf,
    /// Where it connects to.
    pub to: SocketAddr,
    /// What is sent first on each connection, in hexadecimal.
    pub header: String,
    /// The server's port, where all of them must arrive.
    pub port: u16,
}

/// Which way a stream goes, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];

    /// As in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Where on the machine a program runs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// On this CPU only.
    pub cpu: usize,
    /// Ahead of what else wants to run there.
    pub urgent: bool,
}

impl Place {
    fn args(self) -> Vec<String> {
        let mut args = vec!["--cpu".to_owned(), self.cpu.to_string()];
        args.extend(self.urgent.then(|| "--urgent".to_owned()));
        args
    }
}

impl Client {
    /// Starts it.
    pub fn start(cluster: &Cluster, pod: &Pod, place: Place) -> Result<Self> {
        Remote::start(cluster, pod, "bench-client", &place.args()).map(Self)
    }

    /// Makes connections and returns how long they took.
    pub fn run(&mut self, block: &Block<'_>) -> Result<Times> {
        let Block { cgroup, to, header, warm_up, port } = block;
        let times: Times = self.0.ask(&json!({
            "job": "one_by_one", "cgroup": cgroup, "to": to, "header": header, "warm_up": warm_up, "port": port,
        }))?;
        ensure!(times.whole.len() + warm_up == to.len(), "{} of {} connections", times.whole.len(), to.len());
        Ok(times)
    }

    /// Makes connections with one request each, so many at a time.
    pub fn connections(&mut self, way: &Way, connections: usize, clients: usize) -> Result<Times> {
        if clients == 1 {
            let Way { cgroup, to, header, port } = way;
            let to = vec![*to; connections];
            return self.run(&Block { cgroup, to, header, warm_up: 0, port: Some(*port) });
        }
        self.job(way, "crowd", json!({ "connections": connections, "clients": clients }))
    }

    /// Makes requests over the connections that are held, all at a time.
    pub fn requests(&mut self, way: &Way, requests: usize) -> Result<Times> {
        self.job(way, "keep_alive", json!({ "requests": requests }))
    }

    /// Carries so many bytes over one connection; says how many nanoseconds it took.
    pub fn stream(&mut self, way: &Way, bytes: u64, direction: Direction) -> Result<u64> {
        let answer: Value = self.job(way, "stream", json!({ "bytes": bytes, "way": direction.name() }))?;
        answer["elapsed"].as_u64().context("the client did not say how long it took")
    }

    /// Opens connections that stay open until the next job but [`requests`](Self::requests).
    pub fn hold(&mut self, way: &Way, connections: usize) -> Result<()> {
        self.job::<Value>(way, "hold", json!({ "connections": connections })).map(drop)
    }

    /// Makes HTTP requests at a fixed rate, after one by each client that does not count.
    pub fn paced(&mut self, pace: &Pace<'_>) -> Result<Paced> {
        let Pace { cgroup, header, rate, requests, clients, keep_alive, at_once, request, .. } = pace;
        let targets: Vec<_> =
            pace.targets.iter().map(|(to, body)| json!({ "to": to, "body": body })).collect();
        self.0.ask(&json!({
            "job": "paced", "cgroup": cgroup, "header": header, "targets": targets, "rate": rate,
            "requests": requests, "clients": clients, "keep_alive": keep_alive, "at_once": at_once,
            "request": request,
        }))
    }

    /// Makes HTTP requests as fast as they are answered.
    pub fn web(&mut self, web: &Web<'_>) -> Result<Closed> {
        let Web { cgroup, to, hosts, how, connections, streams, requests } = web;
        self.0.ask(&json!({
            "job": "web", "cgroup": cgroup, "to": to, "hosts": hosts, "how": how, "connections": connections,
            "streams": streams, "requests": requests,
        }))
    }

    /// Connects without a pause until the server at the way's port answers, while `change` is made.
    pub fn until<T>(&mut self, way: &Way, change: impl FnOnce() -> Result<T>) -> Result<(Reached, T)> {
        let Way { cgroup, to, header, port } = way;
        self.0.send(&json!({
            "job": "until", "cgroup": cgroup, "to": to, "header": header, "port": port,
        }))?;
        let changed = change();
        let reached = self.0.answer()?;
        Ok((reached, changed?))
    }

    /// Closes them.
    pub fn release(&mut self, way: &Way) -> Result<()> {
        self.job::<Value>(way, "release", json!({})).map(drop)
    }

    fn job<T: DeserializeOwned>(&mut self, way: &Way, name: &str, mut line: Value) -> Result<T> {
        let Way { cgroup, to, header, port } = way;
        let common = [
            ("job", json!(name)),
            ("cgroup", json!(cgroup)),
            ("to", json!(to)),
            ("header", json!(header)),
            ("port", json!(port)),
        ];
        for (key, value) in common {
            line[key] = value;
        }
        self.0.ask(&line)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.proc.pid()
    }
}

/// The header of a client in an environment, in hexadecimal.
pub fn header(environment: &str) -> String {
    let body = format!("Env-Id:{environment}");
    let length = u8::try_from(body.len()).expect("a short name");
    hex::encode(&[b"\r\n\r\n\0\r\nQUIT\n\x01", &[length][..], body.as_bytes()].concat())
}

/// How the server's listeners serve.
#[derive(Clone, Copy, Debug)]
pub enum Serve {
    /// One connection at a time, with one request.
    One,
    /// Many, with any number of requests: one thread for all of them.
    Many,
}

/// The server.
#[derive(Debug)]
pub struct Server(Remote);

impl Server {
    /// Starts it, with listeners that are sockets of these cgroups.
    pub fn start(
        cluster: &Cluster,
        pod: &Pod,
        place: Place,
        serve: Serve,
        listeners: &[(PathBuf, SocketAddr)],
    ) -> Result<Self> {
        let mut args = place.args();
        let option = match serve {
            Serve::One => "--listen",
            Serve::Many => "--serve",
        };
        for (cgroup, address) in listeners {
            args.extend([option.into(), format!("{}@{address}", cgroup.display())]);
        }
        Remote::start(cluster, pod, "bench-server", &args).map(Self)
    }

    /// Starts it as a server for HTTP.
    pub fn start_web(cluster: &Cluster, pod: &Pod, place: Place, listeners: &[WebListener]) -> Result<Self> {
        let mut args = place.args();
        for WebListener { name, cgroup, address } in listeners {
            args.extend(["--web".to_owned(), format!("{name}={}@{address}", cgroup.display())]);
        }
        Remote::start(cluster, pod, "bench-server", &args).map(Self)
    }

    /// What each port has served.
    pub fn served(&mut self) -> Result<BTreeMap<u16, Served>> {
        self.0.ask(&json!("served"))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.proc.pid()
    }
}
