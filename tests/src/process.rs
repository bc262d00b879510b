//! Processes in pods: their output is kept in files, and none outlives its handle.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::gate;
use crate::net::{in_netns, is_listening};
use crate::wait::eventually;

/// What a finished program said.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Proc {
    label: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    netns: Option<PathBuf>,
}

impl Proc {
    /// Starts `command` with its output in files in `dir`; `netns` is where its ports are looked for.
    pub(crate) fn spawn(label: &str, mut command: Command, dir: &Path, netns: Option<&Path>) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let file = |end: &str| dir.join(format!("{serial:03}-{label}.{end}"));
        let (stdout, stderr) = (file("out"), file("err"));
        let create = |path: &Path| File::create(path).with_context(|| format!("creating {}", path.display()));
        command.stdout(create(&stdout)?).stderr(create(&stderr)?);
        let _open = gate::enter()?;
        let child = command.spawn().with_context(|| format!("starting {label}: {command:?}"))?;
        Ok(Self { label: label.to_owned(), child, stdout, stderr, netns: netns.map(Path::to_path_buf) })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// The file its standard error goes to.
    pub fn stderr_path(&self) -> &Path {
        &self.stderr
    }

    /// The file its standard output goes to.
    pub fn stdout_path(&self) -> &Path {
        &self.stdout
    }

    /// The pipe to its standard input, if the command asked for one.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.label))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        match wait_timeout(&mut self.child, deadline)? {
            Some(status) => Ok(status),
            None => bail!("{} still runs after {deadline:?}{}", self.label, self.tail()),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signalling {}", self.label))
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.label))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.label))?;
        Ok(())
    }

    /// Waits until something listens on TCP `port` in its network namespace. The program never sees a connection for it.
    pub fn wait_for_port(&mut self, port: u16) -> Result<()> {
        let netns = self.netns.clone().context("a program without a pod has no namespace to look in")?;
        let (mut ended, mut failed) = (None, None);
        let listens = eventually(Duration::from_secs(20), || {
            ended = self.child.try_wait().ok().flatten();
            match in_netns(&netns, || is_listening(port)) {
                Ok(found) => found || ended.is_some(),
                Err(error) => {
                    failed = Some(error);
                    true
                }
            }
        });
        if let Some(error) = failed {
            return Err(error).with_context(|| format!("looking for {}'s port", self.label));
        }
        if let Some(status) = ended {
            bail!("{} ended ({status}) before it listened on port {port}{}", self.label, self.tail());
        }
        anyhow::ensure!(listens, "{} does not listen on port {port}{}", self.label, self.tail());
        Ok(())
    }

    /// Lets the program run on when this process ends.
    pub fn detach(self) {
        std::mem::forget(self);
    }

    fn tail(&self) -> String {
        let (out, err) = (self.stdout(), self.stderr());
        format!("\n-- {0}'s output --\n{out}-- {0}'s errors --\n{err}", self.label)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs `command` to its end, killing it at the deadline.
pub(crate) fn run(label: &str, command: Command, deadline: Duration, dir: &Path) -> Result<Output> {
    let mut proc = Proc::spawn(label, command, dir, None)?;
    let status = proc.wait(deadline)?;
    Ok(Output { status, stdout: proc.stdout(), stderr: proc.stderr() })
}

/// Waits for a child without reaping others; `None` when it still runs after `deadline`.
pub fn wait_timeout(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = Timespec::try_from(deadline).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => child.try_wait(),
        Err(error) => Err(error.into()),
    }
}

impl Output {
    /// The output of a program that must have succeeded.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let how = self.status.signal().map_or_else(|| self.status.to_string(), |s| format!("signal {s}"));
        bail!("the program failed ({how})\n{}{}", self.stdout, self.stderr)
    }
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
