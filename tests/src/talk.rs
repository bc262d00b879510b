//! A program in a pod whose sockets a test uses step by step: each step is done before the next one is asked for, so a
//! test says what happens in which order, at both ends of a connection, and needs no pause anywhere.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::hex;
use crate::locate::hop_bin;
use crate::pod::Pod;
use crate::process::Proc;
use crate::wait::{patience, wait_until};

mod deed;

pub use deed::{Deed, Form};

/// One step of `hop talk`. Sockets have the numbers in which they were made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Connects.
    Open(Target),
    /// Listens.
    Listen(SocketAddr),
    /// Accepts a connection of this listener.
    Accept(usize),
    /// Asks `getpeername` and `getsockname`.
    Names(usize),
    /// Sends bytes, in hexadecimal.
    Send(usize, String),
    /// Reads so many bytes, or up to the end.
    Receive(usize, usize),
    /// Shuts down the write side.
    Finish(usize),
    /// Closes.
    Close(usize),
    /// Closes with a reset.
    Reset(usize),
    /// Makes a TCP socket that is not connected; IPv6 if so asked.
    Raw(bool),
    /// Something of a socket that only some tests want.
    Do(usize, Deed),
}

/// Where to connect, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The address.
    pub to: SocketAddr,
    /// By an IPv6 socket, to the v4-mapped address.
    pub mapped: bool,
    /// A UDP socket.
    pub udp: bool,
    /// Bound to this interface.
    pub device: Option<String>,
    /// Bound on this and every later wait of the socket, in milliseconds.
    pub timeout_ms: u64,
}

/// What came of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The `std::io::ErrorKind`'s name, if it failed.
    pub error: Option<String>,
    /// The socket that was made.
    pub socket: Option<usize>,
    /// The socket's own address.
    pub local: Option<SocketAddr>,
    /// What `getpeername` says it is connected to.
    pub peer: Option<SocketAddr>,
    /// What was read, in hexadecimal, also before an error.
    pub hex: String,
    /// Whether the end of the stream was met.
    pub eof: bool,
    /// The error's number, if the system gave it one.
    #[serde(default)]
    pub errno: Option<i32>,
    /// What a [`Deed`] that asks for a number was answered.
    #[serde(default)]
    pub value: Option<u64>,
}

impl Target {
    /// A TCP connection to `to`.
    pub fn new(to: SocketAddr) -> Self {
        let target = Self { to, mapped: false, udp: false, device: None, timeout_ms: 0 };
        target.timeout(patience(Duration::from_secs(10)))
    }

    /// Through an IPv6 socket, to the v4-mapped address.
    #[must_use]
    pub fn mapped(self) -> Self {
        Self { mapped: true, ..self }
    }

    /// By UDP.
    #[must_use]
    pub fn udp(self) -> Self {
        Self { udp: true, ..self }
    }

    /// From a socket that is bound to this interface.
    #[must_use]
    pub fn device(self, name: &str) -> Self {
        Self { device: Some(name.to_owned()), ..self }
    }

    /// Bounds connecting and each later wait.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX), ..self }
    }
}

impl From<SocketAddr> for Target {
    fn from(to: SocketAddr) -> Self {
        Self::new(to)
    }
}

impl Said {
    /// What was read, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&hex::decode(&self.hex).unwrap_or_default()).into_owned()
    }
}

/// A running `hop talk`. Its sockets close when this is dropped.
#[derive(Debug)]
pub struct Talker {
    proc: Proc,
    /// Where it is asked, and how much of its answers has been read.
    pipe: Mutex<(ChildStdin, u64)>,
    deadline: Duration,
}

impl Talker {
    /// Starts one in `pod`: in its namespace and its cgroup.
    pub fn in_pod(pod: &Pod) -> Result<Self> {
        Self::start(pod, pod.hop(["talk"])?)
    }

    /// Starts one in the cgroup of `pod`, but in the network namespace of `netns`.
    pub fn across(pod: &Pod, netns: &Pod) -> Result<Self> {
        let mut command = Command::new(hop_bin()?);
        command.arg("enter").arg("--cgroup").arg(pod.cgroup_dir()).arg("--netns").arg(netns.netns_path());
        command.arg("--").arg(hop_bin()?).arg("talk");
        Self::start(pod, command)
    }

    fn start(pod: &Pod, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped());
        let mut proc = pod.spawn("talk", command)?;
        let stdin = proc.take_stdin().context("its standard input was asked to be a pipe")?;
        Ok(Self { proc, pipe: Mutex::new((stdin, 0)), deadline: patience(Duration::from_secs(60)) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.proc.pid()
    }

    /// Has one step done.
    ///
    /// # Errors
    /// When the program cannot be asked; what the step itself met is in the answer.
    pub fn ask(&self, ask: &Ask) -> Result<Said> {
        let (stdin, offset) = &mut *self.pipe.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(stdin, "{}", serde_json::to_string(ask)?).context("asking a talker")?;
        let answer = wait_until("a talker's answer", self.deadline, || {
            let text = self.output_from(*offset).ok()?;
            text.ends_with('\n').then_some(text)
        });
        let answer = answer.with_context(|| format!("{ask:?}: {}", self.proc.stderr()))?;
        *offset += answer.len() as u64;
        Ok(serde_json::from_str(&answer)?)
    }

    fn output_from(&self, offset: u64) -> io::Result<String> {
        let mut file = File::open(self.proc.stdout_path())?;
        file.seek(SeekFrom::Start(offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Connects, whatever comes of it.
    pub fn try_open(&self, target: impl Into<Target>) -> Result<Said> {
        self.ask(&Ask::Open(target.into()))
    }

    /// Connects.
    ///
    /// # Errors
    /// When the connection is not made.
    pub fn open(&self, target: impl Into<Target>) -> Result<Talk<'_>> {
        let said = self.try_open(target)?;
        self.made(&said)
    }

    /// Listens; see [`accept`](Self::accept).
    pub fn listen(&self, at: SocketAddr) -> Result<usize> {
        Ok(self.made(&self.ask(&Ask::Listen(at))?)?.socket)
    }

    /// Accepts a connection at a listener of [`listen`](Self::listen).
    pub fn accept(&self, listener: usize) -> Result<Talk<'_>> {
        self.made(&self.ask(&Ask::Accept(listener))?)
    }

    /// Makes a TCP socket that is not connected yet.
    pub fn raw(&self, v6: bool) -> Result<Talk<'_>> {
        self.made(&self.ask(&Ask::Raw(v6))?)
    }

    /// The socket that a successful answer tells of.
    pub fn made(&self, said: &Said) -> Result<Talk<'_>> {
        match (said.socket, &said.error) {
            (Some(socket), None) => Ok(Talk { talker: self, socket }),
            _ => bail!("no socket was made: {said:?}"),
        }
    }
}

/// A socket of a [`Talker`]'s. It stays open until it is closed here, or the talker is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Talk<'a> {
    talker: &'a Talker,
    socket: usize,
}

impl Talk<'_> {
    /// Sends all of `bytes`.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        let said = self.try_send(bytes)?;
        ensure!(said.error.is_none(), "sending failed: {said:?}");
        Ok(())
    }

    /// Sends `bytes`, whatever comes of it.
    pub fn try_send(&self, bytes: &[u8]) -> Result<Said> {
        self.talker.ask(&Ask::Send(self.socket, hex::encode(bytes)))
    }

    /// Reads `count` bytes, or what there is before the end or an error.
    pub fn receive(&self, count: usize) -> Result<Said> {
        self.talker.ask(&Ask::Receive(self.socket, count))
    }

    /// Reads everything up to the end of the stream or an error.
    pub fn receive_all(&self) -> Result<Said> {
        self.receive(usize::MAX)
    }

    /// Sends a text, which an echo server is to return.
    ///
    /// # Errors
    /// When anything else happens.
    pub fn echo(&self, text: &str) -> Result<()> {
        self.send(text.as_bytes())?;
        let said = self.receive(text.len())?;
        ensure!(said.error.is_none() && said.text() == text, "{text:?} came back as {said:?}");
        Ok(())
    }

    /// What `getsockname` and `getpeername` say.
    pub fn names(&self) -> Result<Said> {
        self.talker.ask(&Ask::Names(self.socket))
    }

    /// Does something that only some tests want, whatever comes of it.
    pub fn try_to(&self, deed: Deed) -> Result<Said> {
        self.talker.ask(&Ask::Do(self.socket, deed))
    }

    /// Does something that only some tests want.
    ///
    /// # Errors
    /// When it fails.
    pub fn to(&self, deed: Deed) -> Result<Said> {
        let asked = format!("{deed:?}");
        let said = self.try_to(deed)?;
        ensure!(said.error.is_none(), "{asked}: {said:?}");
        Ok(said)
    }

    /// Shuts down the write side.
    pub fn finish(&self) -> Result<()> {
        self.done(&Ask::Finish(self.socket))
    }

    /// Closes.
    pub fn close(self) -> Result<()> {
        self.done(&Ask::Close(self.socket))
    }

    /// Closes with a reset.
    pub fn reset(self) -> Result<()> {
        self.done(&Ask::Reset(self.socket))
    }

    fn done(self, ask: &Ask) -> Result<()> {
        let said = self.talker.ask(ask)?;
        ensure!(said.error.is_none(), "{ask:?}: {said:?}");
        Ok(())
    }
}
