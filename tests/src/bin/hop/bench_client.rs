//! The benchmarks' client: one process for every variant, which does what it is told in the cgroup it is told, so that
//! neither a process's start nor its place in memory is in what is measured.

mod crowd;
mod one;
mod paced;
mod stream;
mod until;
mod web;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bench_server::join;

/// Bytes of a request, without the header.
pub const REQUEST: usize = 1024;
/// Bytes of a response.
pub const RESPONSE: usize = 1024;
/// A nice value.
const MOST_URGENT: i32 = -20;
/// No connection of the benchmark waits that long, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Args {
    /// A Unix socket to connect to: a line from there is a job, and is answered with what was measured
    #[arg(long)]
    control: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Where on the machine a program of the benchmark runs.
#[derive(clap::Args)]
pub struct Place {
    /// Run on this CPU only
    #[arg(long)]
    cpu: usize,
    /// Run ahead of what else wants to run there
    #[arg(long)]
    urgent: bool,
}

impl Place {
    /// Takes it, and as many descriptors as this process may have. Before it starts a thread: they inherit the place.
    pub fn take(&self) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(self.cpu);
        sched_setaffinity(None, &set).with_context(|| format!("keeping to CPU {}", self.cpu))?;
        if self.urgent {
            setpriority_process(None, MOST_URGENT).context("asking for priority")?;
        }
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("asking for descriptors")
    }
}

/// A line of the benchmark's.
#[derive(Debug, Deserialize)]
struct Job {
    /// From this cgroup.
    cgroup: PathBuf,
    /// The header to send at the beginning of each connection, in hexadecimal.
    #[serde(default)]
    header: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
enum What {
    /// Connections with one request each, one after the other.
    OneByOne {
        /// Where to, each.
        to: Vec<SocketAddr>,
        /// So many of them, the first, are not timed.
        warm_up: usize,
        /// The port that the response must say it is from. (`bench-server --listen` does not say.)
        #[serde(default)]
        port: Option<u16>,
    },
    /// Connections with one request each, so many at once.
    Crowd { to: SocketAddr, port: u16, connections: usize, clients: usize },
    /// Requests over the connections that are held, all at once.
    KeepAlive { port: u16, requests: usize },
    /// So many bytes over one connection.
    Stream { to: SocketAddr, port: u16, bytes: u64, way: Way },
    /// Connections, with one request each, that stay open until the next job but [`KeepAlive`](Self::KeepAlive).
    Hold { to: SocketAddr, port: u16, connections: usize },
    /// HTTP requests at a fixed rate.
    Paced(paced::Plan),
    /// HTTP requests, as many as are answered.
    Web(web::Plan),
    /// Connections with one request each, one after the other, until one arrives at the server's port `port`.
    Until { to: SocketAddr, port: u16 },
    /// Closes what is held, and nothing else.
    Release,
}

/// Seen from the client.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Up,
    Down,
}

/// Nanoseconds, a value for each connection (or request).
#[derive(Debug, Default, Serialize)]
struct Times {
    /// In `connect(2)`.
    connect: Vec<u32>,
    /// From then to the first byte of the response.
    first_byte: Vec<u32>,
    /// In `close(2)`.
    close: Vec<u32>,
    /// All of it, and making the socket.
    whole: Vec<u32>,
    /// From the first one's beginning to the last one's end.
    elapsed: u64,
}

pub fn run(args: &Args) -> Result<()> {
    args.place.take()?;
    let control = UnixStream::connect(&args.control).context("connecting to the benchmark")?;
    let mut client = Client::default();
    for line in BufReader::new(&control).lines() {
        let line = line.context("reading from the benchmark")?;
        let answer = client.work(&line).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        // In one piece: a system call for each number would be on this process's account.
        (&control).write_all(format!("{answer}\n").as_bytes()).context("answering the benchmark")?;
    }
    Ok(())
}

#[derive(Default)]
struct Client {
    /// Where this process is.
    cgroup: PathBuf,
    held: Vec<TcpStream>,
    stream: Option<crate::bench_wire::Stream>,
}

impl Client {
    fn work(&mut self, line: &str) -> Result<Value> {
        let job: Job = serde_json::from_str(line).context("the job")?;
        if job.cgroup != self.cgroup {
            join(&job.cgroup)?;
            self.cgroup.clone_from(&job.cgroup);
        }
        if !matches!(job.what, What::KeepAlive { .. }) {
            self.held.clear();
        }
        let header = testbed::hex::decode(&job.header)?;
        Ok(match job.what {
            What::OneByOne { to, warm_up, port } => {
                serde_json::to_value(one::block(&to, &header, warm_up, port)?)?
            }
            What::Crowd { to, port, connections, clients } => {
                serde_json::to_value(crowd::connections(to, &header, port, connections, clients)?)?
            }
            What::KeepAlive { port, requests } => {
                let (times, held) = crowd::requests(std::mem::take(&mut self.held), port, requests)?;
                self.held = held;
                serde_json::to_value(times)?
            }
            What::Stream { to, port, bytes, way } => {
                let stream = self.stream.get_or_insert_with(crate::bench_wire::Stream::new);
                json!({ "elapsed": stream::carry(to, &header, port, bytes, way, stream)? })
            }
            What::Hold { to, port, connections } => {
                self.held = crowd::hold(to, &header, port, connections)?;
                json!({ "held": self.held.len() })
            }
            What::Paced(plan) => serde_json::to_value(paced::run(&plan, &header)?)?,
            What::Web(plan) => serde_json::to_value(web::run(&plan)?)?,
            What::Until { to, port } => serde_json::to_value(until::reached(to, &header, port)?)?,
            What::Release => json!({ "held": 0 }),
        })
    }
}

fn nanos(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

fn long_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
