//! The benchmarks' client: one process for every variant, which does what it is told in the cgroup it is told, so that
//! neither a process's start nor its place in memory is in what is measured.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};
use serde_json::json;

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
    /// A Unix socket to connect to: a line from there is a block of connections to make, and is answered with times
    #[arg(long)]
    control: PathBuf,
    /// Run on this CPU only
    #[arg(long)]
    cpu: usize,
}

/// Connections to make, one after the other.
#[derive(Debug, Deserialize)]
struct Block {
    /// From this cgroup.
    cgroup: PathBuf,
    /// Where to, each.
    to: Vec<SocketAddr>,
    /// The header to send before the request, in hexadecimal.
    #[serde(default)]
    header: String,
    /// So many of them, the first, are not timed.
    warm_up: usize,
}

/// Nanoseconds, a value for each connection.
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
}

pub fn run(args: &Args) -> Result<()> {
    pin(args.cpu)?;
    let control = UnixStream::connect(&args.control).context("connecting to the benchmark")?;
    let mut cgroup = PathBuf::new();
    for line in BufReader::new(&control).lines() {
        let line = line.context("reading from the benchmark")?;
        let answer = match block(&line, &mut cgroup) {
            Ok(times) => serde_json::to_value(times)?,
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        // In one piece: a system call for each number would be on this process's account.
        (&control).write_all(format!("{answer}\n").as_bytes()).context("answering the benchmark")?;
    }
    Ok(())
}

/// Keeps this process on one CPU, and ahead of what else wants to run there. Before it starts a thread: they inherit both.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("keeping to CPU {cpu}"))?;
    setpriority_process(None, MOST_URGENT).context("asking for priority")
}

/// Makes a block's connections. `cgroup` is where this process is.
fn block(line: &str, cgroup: &mut PathBuf) -> Result<Times> {
    let block: Block = serde_json::from_str(line).context("the block to make")?;
    if block.cgroup != *cgroup {
        join(&block.cgroup)?;
        cgroup.clone_from(&block.cgroup);
    }
    let mut request = testbed::hex::decode(&block.header)?;
    request.resize(request.len() + REQUEST, b'q');
    let mut times = Times::default();
    for (number, to) in block.to.iter().enumerate() {
        let into = (number >= block.warm_up).then_some(&mut times);
        exchange(*to, &request, into).with_context(|| format!("connection {number} to {to}"))?;
    }
    Ok(times)
}

fn exchange(to: SocketAddr, request: &[u8], times: Option<&mut Times>) -> Result<()> {
    let start = Instant::now();
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    let connecting = Instant::now();
    socket.connect(&to.into()).context("connecting")?;
    let connected = Instant::now();
    let mut stream = TcpStream::from(socket);
    stream.write_all(request).context("sending")?;
    let mut response = [0; RESPONSE + 1];
    let mut filled = stream.read(&mut response).context("reading")?;
    let first_byte = Instant::now();
    while filled < RESPONSE {
        let count = stream.read(&mut response[filled..]).context("reading on")?;
        ensure!(count > 0, "the response ended after {filled} bytes");
        filled += count;
    }
    ensure!(filled == RESPONSE, "more than the response came");
    let closing = Instant::now();
    drop(stream);
    let end = Instant::now();
    ensure!(end - start < PATIENCE, "it took {:?}", end - start);
    if let Some(times) = times {
        times.connect.push(nanos(connected - connecting));
        times.first_byte.push(nanos(first_byte - connected));
        times.close.push(nanos(end - closing));
        times.whole.push(nanos(end - start));
    }
    Ok(())
}

fn nanos(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}
