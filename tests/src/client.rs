//! The testbed's client, which runs as a process in a pod: how to ask it, and what it answers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::hex;
use crate::pod::Pod;
use crate::process::Proc;

/// What one connection of the client met.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClientReport {
    /// Whether everything asked for happened.
    pub ok: bool,
    /// What went wrong: the `std::io::ErrorKind`'s name, or `Short`, `Mismatch`, `Address`.
    pub error: Option<String>,
    /// The system's words for it.
    pub detail: Option<String>,
    /// Where it went wrong: `connect`, `write`, `shutdown`, `read`, `check`.
    pub stage: Option<String>,
    /// The client's own address.
    pub local: Option<SocketAddr>,
    /// What `getpeername` says the client is connected to.
    pub peer: Option<SocketAddr>,
    /// Bytes written, header included.
    pub sent: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Whether the server's end of stream was seen.
    pub eof: bool,
    /// The first 64 bytes read, in hexadecimal.
    pub first_hex: String,
    /// The first 4096 bytes read, as text.
    pub text: String,
    /// Where the bytes read first differ from the [`blob`](crate::blob), if that was asked for.
    pub mismatch_at: Option<u64>,
    /// How long `connect` took, in microseconds.
    pub connect_us: u64,
    /// When the first byte arrived, from the start, in microseconds.
    pub first_byte_us: Option<u64>,
    /// How long it took in all, in microseconds.
    pub elapsed_us: u64,
}

/// What many connections of the client met.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClientSummary {
    /// Whether every connection was fine.
    pub ok: bool,
    /// How many were fine.
    pub succeeded: usize,
    /// How many were not.
    pub failed: usize,
    /// How often each error came, by stage and kind (`connect ConnectionRefused`).
    pub errors: BTreeMap<String, usize>,
    /// Bytes read, over all.
    pub bytes: u64,
    /// The median time of a connection, in microseconds.
    pub p50_us: u64,
    /// The 99th percentile, in microseconds.
    pub p99_us: u64,
    /// The slowest, in microseconds.
    pub max_us: u64,
    /// From the first start to the last end, in microseconds.
    pub elapsed_us: u64,
    /// The first connection that failed.
    pub first_failure: Option<ClientReport>,
}

/// A client to run. It connects, writes the header (if any) and the payload, and reads.
#[derive(Clone, Debug)]
pub struct Client {
    args: Vec<String>,
    deadline: Duration,
}

impl Client {
    /// A client that connects to `to`, sends nothing and reads nothing.
    pub fn to(to: SocketAddr) -> Self {
        Self {
            args: vec!["client".to_owned(), "--to".to_owned(), to.to_string()],
            deadline: Duration::from_secs(10),
        }
    }

    /// Any argument of `hop client`; see `hop client --help`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    fn option(self, name: &str, value: &impl ToString) -> Self {
        self.arg(name).arg(value.to_string())
    }

    /// Starts with a PiCoP header that holds this entry (also).
    #[must_use]
    pub fn header(self, key: &str, value: &str) -> Self {
        self.option("--header", &format!("{key}={value}"))
    }

    /// Sends text, after the header.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.option("--send-text", &text)
    }

    /// Sends bytes, after the header.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.option("--send-hex", &hex::encode(bytes))
    }

    /// Sends `count` bytes of the [`blob`](crate::blob), after everything else.
    #[must_use]
    pub fn upload(self, count: u64) -> Self {
        self.option("--upload", &count)
    }

    /// Writes the first `at` bytes (header included) apart from the rest, with a pause between.
    #[must_use]
    pub fn split_at(self, at: usize) -> Self {
        self.option("--split-at", &at)
    }

    /// Writes every byte (of header, text and bytes) apart.
    #[must_use]
    pub fn split_every_byte(self) -> Self {
        self.arg("--split-every-byte")
    }

    /// Of many connections: sends only when all of the first batch are connected.
    #[must_use]
    pub fn together(self) -> Self {
        self.arg("--together")
    }

    /// Stays connected for so long at the end.
    #[must_use]
    pub fn hold(self, time: Duration) -> Self {
        self.option("--hold-ms", &time.as_millis())
    }

    /// Stays silent for so long after connecting.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        self.option("--delay-ms", &delay.as_millis())
    }

    /// Shuts down its write side after sending.
    #[must_use]
    pub fn half_close(self) -> Self {
        self.arg("--half-close")
    }

    /// Closes with a reset, after whatever it was to read.
    #[must_use]
    pub fn reset(self) -> Self {
        self.arg("--reset")
    }

    /// Reads exactly `count` bytes.
    #[must_use]
    pub fn expect_bytes(self, count: u64) -> Self {
        self.option("--expect-bytes", &count)
    }

    /// Reads until the server's end of stream.
    #[must_use]
    pub fn read_all(self) -> Self {
        self.arg("--read-all")
    }

    /// Checks that what it reads is the [`blob`](crate::blob).
    #[must_use]
    pub fn expect_blob(self) -> Self {
        self.arg("--expect-blob")
    }

    /// Binds to an address before connecting.
    #[must_use]
    pub fn bind(self, ip: IpAddr) -> Self {
        self.option("--bind", &ip)
    }

    /// Connects to an IPv4 address by an IPv6 socket (`::ffff:a.b.c.d`), as Go and Java do.
    #[must_use]
    pub fn mapped(self) -> Self {
        self.arg("--mapped")
    }

    /// Connects, reads and writes without blocking.
    #[must_use]
    pub fn nonblocking(self) -> Self {
        self.arg("--nonblocking")
    }

    /// One event loop for all connections, by edges: it connects, reads and writes without blocking until `EAGAIN`, as Go's
    /// runtime does. Connection `n`'s [`upload`](Self::upload) is the [`blob`](crate::blob) from `n << 32` on, which is also
    /// what [`expect_blob`](Self::expect_blob) wants back.
    #[must_use]
    pub fn edge_triggered(self) -> Self {
        self.arg("--edge-triggered")
    }

    /// With [`edge_triggered`](Self::edge_triggered): so small a send buffer that writes are cut short.
    #[must_use]
    pub fn send_buffer(self, bytes: usize) -> Self {
        self.option("--send-buffer", &bytes)
    }

    /// Bounds each wait of a connection; the process as a whole gets twice that and 10 s more.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.deadline = timeout;
        self.option("--timeout-ms", &timeout.as_millis())
    }

    /// Runs one connection in `pod`.
    ///
    /// # Errors
    /// Only when the client itself could not run; what the connection met is in the report.
    pub fn run(&self, pod: &Pod) -> Result<ClientReport> {
        self.output(pod, &[])
    }

    /// Runs `count` connections in `pod`, up to `concurrency` at once.
    ///
    /// # Errors
    /// Only when the client itself could not run; what the connections met is in the summary.
    pub fn run_many(&self, pod: &Pod, count: usize, concurrency: usize) -> Result<ClientSummary> {
        self.output(
            pod,
            &["--count".into(), count.to_string(), "--concurrency".into(), concurrency.to_string()],
        )
    }

    /// Starts one connection in `pod`, without waiting for it: see [`report`](Self::report).
    pub fn spawn(&self, pod: &Pod) -> Result<Proc> {
        pod.spawn("client", pod.hop(&self.args)?)
    }

    /// Waits for a client started by [`spawn`](Self::spawn) and returns its report.
    pub fn report(proc: &mut Proc, deadline: Duration) -> Result<ClientReport> {
        proc.wait(deadline)?;
        parse(&proc.stdout(), &proc.stderr())
    }

    fn output<T: for<'a> Deserialize<'a>>(&self, pod: &Pod, more: &[String]) -> Result<T> {
        let mut command = pod.hop(&self.args)?;
        command.args(more);
        let output = pod.run(command, self.deadline * 2 + Duration::from_secs(10))?;
        parse(&output.stdout, &output.stderr)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(stdout: &str, stderr: &str) -> Result<T> {
    serde_json::from_str(stdout).with_context(|| format!("the client gave no report: {stdout}{stderr}"))
}
