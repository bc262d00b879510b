//! Pods: a network namespace and a cgroup.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::locate::hop_bin;
use crate::net::in_netns;
use crate::process::{self, Output, Proc};

/// What a pod shall be like.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub(crate) name: String,
    pub(crate) cgroup: PathBuf,
}

impl PodSpec {
    /// A pod of this name (letters, digits and dashes), in a cgroup of the same name.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { cgroup: PathBuf::from(&name), name }
    }

    /// Its cgroup, relative to the cluster's; may be nested, as a kubelet's are.
    #[must_use]
    pub fn cgroup(mut self, relative: impl Into<PathBuf>) -> Self {
        self.cgroup = relative.into();
        self
    }
}

impl From<&str> for PodSpec {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A pod of a [`Cluster`](crate::Cluster), which also ends it: a clone, or one that outlives its cluster, is only a name.
#[derive(Clone, Debug)]
pub struct Pod {
    pub(crate) name: String,
    pub(crate) netns: PathBuf,
    pub(crate) cgroup_dir: PathBuf,
    pub(crate) cgroup_rel: String,
    pub(crate) logs: PathBuf,
    pub(crate) addr4: Ipv4Addr,
    pub(crate) addr6: Ipv6Addr,
}

impl Pod {
    /// Its name within the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    pub fn addr4(&self) -> Ipv4Addr {
        self.addr4
    }

    /// Its IPv6 address.
    pub fn addr6(&self) -> Ipv6Addr {
        self.addr6
    }

    /// A port at its IPv4 address.
    pub fn at4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addr4.into(), port)
    }

    /// A port at its IPv6 address.
    pub fn at6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addr6.into(), port)
    }

    /// Its network namespace, as a path that `setns` takes.
    pub fn netns_path(&self) -> &Path {
        &self.netns
    }

    /// Its cgroup.
    pub fn cgroup_dir(&self) -> &Path {
        &self.cgroup_dir
    }

    /// Its cgroup relative to the cgroup v2 mount, without a leading slash: what a route file names a workload by.
    pub fn cgroup_path_rel(&self) -> &str {
        &self.cgroup_rel
    }

    /// A command that runs `program` in the pod: in its network namespace and in its cgroup.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(hop_bin()?);
        command.arg("enter").arg("--cgroup").arg(&self.cgroup_dir).arg("--netns").arg(&self.netns);
        command.arg("--").arg(program).stdin(Stdio::null());
        Ok(command)
    }

    /// A command that runs one of the helper program's subcommands in the pod.
    pub fn hop<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = self.command(hop_bin()?)?;
        command.args(args);
        Ok(command)
    }

    /// Runs a command (of [`command`](Self::command) or [`hop`](Self::hop)) to its end; kills it at the deadline.
    pub fn run(&self, command: Command, deadline: Duration) -> Result<Output> {
        process::run(&format!("{}-run", self.name), command, deadline, &self.logs)
    }

    /// Starts a command (of [`command`](Self::command) or [`hop`](Self::hop)); `label` names it in messages.
    pub fn spawn(&self, label: &str, command: Command) -> Result<Proc> {
        Proc::spawn(&format!("{}-{label}", self.name), command, &self.logs, Some(&self.netns))
    }

    /// Starts a server of the helper program's and waits until it listens on `listen`.
    pub fn serve<S: AsRef<OsStr>>(
        &self,
        kind: &str,
        listen: SocketAddr,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Proc> {
        let mut command = self.hop([kind, "--listen", &listen.to_string()])?;
        command.args(args);
        let mut proc = self.spawn(kind, command)?;
        proc.wait_for_port(listen.port())?;
        Ok(proc)
    }

    /// Runs `job` in the pod's network namespace, on a thread of its own. Its sockets are *not* in the pod's cgroup: a
    /// thread cannot change that alone. Use a process where the cgroup matters.
    pub fn in_netns<T: Send>(&self, job: impl FnOnce() -> T + Send) -> io::Result<T> {
        in_netns(&self.netns, job)
    }

    /// An address of the pod's at which nothing listens (anything may, later).
    pub fn free_port(&self, ip: IpAddr) -> Result<u16> {
        let port = self.in_netns(|| TcpListener::bind((ip, 0))?.local_addr().map(|addr| addr.port()));
        port.and_then(|port| port).with_context(|| format!("finding a free port at {ip}"))
    }
}
