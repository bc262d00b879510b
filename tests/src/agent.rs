//! The real agent over a cluster.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, create_cgroup};
use crate::locate::{hop_bin, picop_bin};
use crate::process::Proc;
use crate::wait::{emulated, eventually, patience, wait_until};

/// How long the agent may take to load its programs, or to take over a route file.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the agent logs when a table has reached the relay and the kernel.
const IN_EFFECT: &str = "routes in effect";
/// What it logs when a file says what the last one did.
const UNCHANGED: &str = "routes read again: no difference";
/// What it logs when headers may be written by the kernel.
const PROVEN: &str = "the kernel writes headers: connections to services with `header: propagate` are direct";
/// How its line begins when it refuses a file.
const REFUSED: &str = "routes refused";

/// How to start the agent.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// The first content of its route file (YAML).
    pub routes: String,
    /// Routes from a cluster instead: its kubeconfig, and the name of the node.
    pub kubernetes: Option<(PathBuf, String)>,
    /// Do not wait until it is ready.
    pub unready: bool,
    /// The cgroup it attaches to, if not the cluster's.
    pub cgroup: Option<PathBuf>,
    /// Further arguments of `picop run`.
    pub args: Vec<String>,
    /// Variables of its environment, besides those of whoever starts it.
    pub env: Vec<(String, String)>,
    /// A program, and its arguments, that runs what is behind them; the agent is started by it.
    pub through: Vec<String>,
    /// As users run it: without a line for each direct connection, which tests want and which costs time.
    pub plain: bool,
}

impl AgentOptions {
    /// An agent that follows a cluster.
    pub fn kubernetes(kubeconfig: PathBuf, node: &str) -> Self {
        Self { kubernetes: Some((kubeconfig, node.to_owned())), ..Self::default() }
    }
}

/// A running `picop run`. It is killed when this is dropped.
#[derive(Debug)]
pub struct Agent {
    proc: Proc,
    routes: PathBuf,
    admin: PathBuf,
    ready: PathBuf,
    log: Mutex<Log>,
}

impl Agent {
    /// Starts the agent on the cluster's cgroup and waits until it is ready.
    pub fn start(cluster: &Cluster, routes: &str) -> Result<Self> {
        Self::start_with(cluster, AgentOptions { routes: routes.to_owned(), ..AgentOptions::default() })
    }

    /// Starts the agent and waits until it is ready.
    ///
    /// # Errors
    /// Shows the agent's output when it ends, or is not ready in time.
    pub fn start_with(cluster: &Cluster, options: AgentOptions) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let routes = cluster.dir().join(format!("routes-{serial}.yaml"));
        let ready = cluster.dir().join(format!("ready-{serial}"));
        let admin = cluster.dir().join(format!("admin-{serial}.sock"));
        fs::write(&routes, &options.routes).with_context(|| format!("writing {}", routes.display()))?;
        // Outside of the pods' cgroup, as on a real node, but under a name by which `sweep` finds and ends it.
        let own_cgroup = cluster.v2_mount().join(format!("{}-agent", cluster.id()));
        create_cgroup(&own_cgroup)?;
        let mut command = Command::new(hop_bin()?);
        command
            .arg("enter")
            .arg("--cgroup")
            .arg(&own_cgroup)
            .arg("--")
            .args(&options.through)
            .arg(picop_bin()?)
            .envs(options.env)
            .stdin(Stdio::null());
        command.arg("run");
        match &options.kubernetes {
            None => command.arg("--routes").arg(&routes),
            Some((kubeconfig, node)) => {
                command.args(["--kubernetes", "--node-name", node]).arg("--kubeconfig").arg(kubeconfig)
            }
        };
        command.arg("--cgroup").arg(options.cgroup.unwrap_or_else(|| cluster.cgroup_dir()));
        command
            .args(["--log-format", "json"])
            .args((!options.plain).then_some("--log-direct"))
            .arg("--ready-file")
            .arg(&ready)
            .arg("--admin-socket")
            .arg(&admin)
            .args(&options.args);
        let mut proc = Proc::spawn("agent", command, cluster.dir(), None)?;
        let mut ended = None;
        let deadline = patience(PATIENCE);
        let is_ready = options.unready
            || eventually(deadline, || {
                ended = proc.try_wait().ok().flatten();
                ended.is_some() || ready.exists()
            });
        if let Some(status) = ended {
            bail!("the agent ended ({status}) before it was ready:\n{}", proc.stderr());
        }
        ensure!(is_ready, "the agent is not ready after {deadline:?}:\n{}", proc.stderr());
        let log = Mutex::new(Log { path: proc.stderr_path().to_path_buf(), ..Log::default() });
        let agent = Self { proc, routes, admin, ready, log };
        if emulated() {
            // The canary's first round may last longer than it allows itself, and another one prove that the kernel writes
            // headers. An agent that never says so is one that a test wants.
            eventually(deadline, || agent.log_lines().iter().any(|line| line["message"] == PROVEN));
        }
        Ok(agent)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.proc.pid()
    }

    /// Its route file.
    pub fn routes_path(&self) -> &Path {
        &self.routes
    }

    /// The Unix socket it answers at.
    pub fn admin_socket(&self) -> &Path {
        &self.admin
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.ready.exists()
    }

    /// Its memory at present, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).context("reading its status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kb: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is a number of kB")?;
        Ok(kb * 1024)
    }

    /// The file its log goes to.
    pub fn log_path(&self) -> &Path {
        self.proc.stderr_path()
    }

    /// Replaces the route file at once (by rename), without waiting for the agent.
    pub fn write_routes(&self, yaml: &str) -> Result<()> {
        let staged = self.routes.with_extension("staged");
        fs::write(&staged, yaml).with_context(|| format!("writing {}", staged.display()))?;
        fs::rename(&staged, &self.routes).with_context(|| format!("replacing {}", self.routes.display()))
    }

    /// Replaces the route file and waits until the agent says that it routes by the new one.
    ///
    /// # Errors
    /// When it refuses the file (with its reason), or says nothing in time.
    pub fn routes(&self, yaml: &str) -> Result<()> {
        match self.offer_routes(yaml)? {
            None => Ok(()),
            Some(refusal) => bail!("the agent refused the routes: {refusal}"),
        }
    }

    /// Replaces the route file and waits for the agent's verdict: `None` when it took it, else its line of refusal.
    pub fn offer_routes(&self, yaml: &str) -> Result<Option<Value>> {
        let before = self.log_lines().len();
        self.write_routes(yaml)?;
        self.verdict_since(before)
    }

    /// Waits for the agent's verdict on its route file in the log lines from number `from` on.
    pub fn verdict_since(&self, from: usize) -> Result<Option<Value>> {
        wait_until("the agent's verdict on its route file", patience(PATIENCE), || {
            self.log_lines().into_iter().skip(from).find_map(|line| match line["message"].as_str()? {
                IN_EFFECT | UNCHANGED => Some(None),
                message if message.starts_with(REFUSED) => Some(Some(line)),
                _ => None,
            })
        })
        .with_context(|| format!("the agent's log:\n{}", self.proc.stderr()))
    }

    /// All lines it has logged so far, parsed. A line that is not JSON (a panic's, say) is given as a string.
    pub fn log_lines(&self) -> Vec<Value> {
        let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        log.read_on();
        log.lines.clone()
    }

    /// The access lines so far: one per finished connection, oldest first.
    pub fn access_lines(&self) -> Vec<Value> {
        let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        log.read_on();
        log.lines.iter().filter(|line| line["target"] == "access").cloned().collect()
    }

    /// Waits until there are at least `count` access lines that `wanted` accepts, and returns those.
    pub fn wait_access(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        wait_until(&format!("{count} access lines"), patience(PATIENCE), || {
            let lines: Vec<_> = self.access_lines().into_iter().filter(|line| wanted(line)).collect();
            (lines.len() >= count).then_some(lines)
        })
        .with_context(|| format!("the agent's log:\n{}", self.proc.stderr()))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.proc.signal(signal)
    }

    /// Kills it without warning and waits for its end.
    pub fn kill9(&mut self) -> Result<()> {
        self.proc.kill()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.proc.try_wait()?.is_none())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.proc.wait(deadline)
    }

    /// Asks it to end (SIGTERM), and waits for its end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.proc.wait(Duration::from_secs(30))
    }

    /// Lets it run on when this process ends.
    pub fn detach(self) {
        self.proc.detach();
    }
}

/// The agent's log, read as it grows.
#[derive(Debug, Default)]
struct Log {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
    lines: Vec<Value>,
}

impl Log {
    fn read_on(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        if file.seek(SeekFrom::Start(self.offset)).is_err() {
            return;
        }
        // What was read before an error still counts.
        let mut fresh = Vec::new();
        file.read_to_end(&mut fresh).ok();
        self.offset += fresh.len() as u64;
        self.take(&fresh);
    }

    fn take(&mut self, fresh: &[u8]) {
        self.partial.extend_from_slice(fresh);
        let Some(end) = self.partial.iter().rposition(|b| *b == b'\n') else { return };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let lines = whole.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        self.lines.extend(lines.map(|line| {
            serde_json::from_slice(line).unwrap_or_else(|_| String::from_utf8_lossy(line).into_owned().into())
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_whole_however_the_file_grows() {
        let text = b"{\"target\":\"access\",\"n\":1}\nthread panicked\n{\"n\":2}\n{\"n\":";
        for cut in 0..text.len() {
            let mut log = Log::default();
            log.take(&text[..cut]);
            log.take(&text[cut..]);
            assert_eq!(log.lines.len(), 3, "cut at {cut}");
            assert_eq!(log.lines[0]["target"], "access");
            assert_eq!(log.lines[1], "thread panicked");
            log.take(b"3}\n");
            assert_eq!(log.lines[3]["n"], 3);
        }
    }
}
