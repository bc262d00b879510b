//! The other end of `hop bench-client` and `hop bench-server`: both run for the whole benchmark and do what a line on a
//! Unix socket says. Waiting for the answer costs nothing while they work.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::{Cluster, Pod, Proc, wait_until};

/// For a program to start, and for a block of connections.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nanoseconds, a value for each connection: see `hop bench-client`.
#[derive(Debug, Deserialize)]
pub struct Times {
    pub connect: Vec<u32>,
    pub first_byte: Vec<u32>,
    pub close: Vec<u32>,
    pub whole: Vec<u32>,
}

/// What one of the server's listeners has served.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Served {
    /// Connections that began with a PiCoP header.
    pub with_header: u64,
    /// Connections that did not.
    pub without: u64,
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
        let path = cluster.dir().join(format!("{name}.sock"));
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
        let mut answer = String::new();
        let line = format!("{line}\n");
        self.reader
            .get_ref()
            .write_all(line.as_bytes())
            .and_then(|()| self.reader.read_line(&mut answer))
            .with_context(|| format!("no answer: {}", self.proc.stderr()))?;
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
}

impl Client {
    /// Starts it.
    pub fn start(cluster: &Cluster, pod: &Pod, cpu: usize) -> Result<Self> {
        Remote::start(cluster, pod, "bench-client", &["--cpu".into(), cpu.to_string()]).map(Self)
    }

    /// Makes connections and returns how long they took.
    pub fn run(&mut self, block: &Block<'_>) -> Result<Times> {
        let Block { cgroup, to, header, warm_up } = block;
        let line = json!({ "cgroup": cgroup, "to": to, "header": header, "warm_up": warm_up });
        let times: Times = self.0.ask(&line)?;
        ensure!(times.whole.len() + warm_up == to.len(), "{} of {} connections", times.whole.len(), to.len());
        Ok(times)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.proc.pid()
    }
}

/// The server.
#[derive(Debug)]
pub struct Server(Remote);

impl Server {
    /// Starts it, with listeners that are sockets of these cgroups.
    pub fn start(
        cluster: &Cluster,
        pod: &Pod,
        cpu: usize,
        listeners: &[(PathBuf, SocketAddr)],
    ) -> Result<Self> {
        let mut args = vec!["--cpu".into(), cpu.to_string()];
        for (cgroup, address) in listeners {
            args.extend(["--listen".into(), format!("{}@{address}", cgroup.display())]);
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
