//! Proof that interception is live: a process in a cgroup of its own, below the one the programs are attached to, that
//! connects once a second to an address nobody listens at. Only through the hooks can it get an answer.
//!
//! It exercises `connect4`, `connect6` (by a v4-mapped address), `sock_ops` and `getpeername4|6`. A link that landed on
//! the wrong cgroup, or was replaced, looks healthy in every other respect.
//!
//! The address is on loopback: while interception is not live, the attempt ends on this machine.

use std::{
    fs,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use picop_common::{
    addr::{Endpoint, PortBe},
    maps::Workload,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::timeout,
};

use super::{
    cgroup::{Cgroup, CgroupError, CgroupMount},
    maps::{Maps, MapsError},
    netns::{Netns, NetnsError, NetnsThread},
};

/// Where the canary connects: port 9 (discard) of an address in 127.0.0.0/8.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 112, 105, 99)), 9);
/// How often.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the agent answers.
const ANSWER: &[u8; 5] = b"picop";
/// Name of the cgroup, before the agent's process id.
const PREFIX: &str = "picop-canary-";

/// What the last attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// None has ended yet.
    Unknown,
    /// Intercepted.
    Live,
    /// Not intercepted, and how that showed.
    Dead(String),
}

/// The canary could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// No cgroup for it.
    #[error(
        "cannot make cgroup {path}; the agent must be able to create cgroups below the one it attaches to"
    )]
    Cgroup {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It cannot be looked up.
    #[error(transparent)]
    Lookup(#[from] CgroupError),
    /// Its process does not start.
    #[error("cannot start the canary process")]
    Spawn(#[source] io::Error),
    /// Its listener cannot be had.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel's maps do not take it.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// The canary, from the agent's side.
#[derive(Debug)]
pub struct Canary {
    cgroup: Cgroup,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    maps: Arc<Maps>,
    answering: tokio::task::JoinHandle<()>,
}

impl Canary {
    /// Makes its cgroup and process, and has its connections answered.
    pub async fn start(
        mount: &CgroupMount,
        root: &Cgroup,
        own: &Cgroup,
        maps: Arc<Maps>,
        netns: &NetnsThread,
    ) -> Result<Self, CanaryError> {
        sweep(&root.dir);
        let path = root.dir.join(format!("{PREFIX}{}", std::process::id()));
        let failed = |source| CanaryError::Cgroup { path: path.clone(), source };
        match fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        let cgroup = mount.cgroup(&path)?;
        let mut child = Command::new("/proc/self/exe")
            .arg("canary")
            .arg("--cgroup")
            .arg(&cgroup.dir)
            .arg("--home")
            .arg(&own.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(CanaryError::Spawn)?;
        let pid = child.id().unwrap_or_default();
        fs::write(cgroup.dir.join("cgroup.procs"), pid.to_string()).map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(CanaryError::Spawn(io::Error::other("its pipes are missing")));
        };

        let listeners = netns.listen(Arc::new(Netns::own()?)).await?;
        let port = listeners.v4.local_addr().map_err(CanaryError::Spawn)?.port();
        let cookie = listeners.cookie;
        let listener = tokio::net::TcpListener::from_std(listeners.v4).map_err(CanaryError::Spawn)?;
        let answering = tokio::spawn(answer(listener, port, cookie, Arc::clone(&maps)));
        let workload =
            Workload { netns_cookie: cookie, listener_v4: PortBe::from_host(port), ..Workload::default() };
        maps.put_workload(cgroup.id, workload)?;
        Ok(Self { cgroup, child, stdin, stdout: BufReader::new(stdout).lines(), maps, answering })
    }

    /// The depth of its cgroup, which the hooks must look at.
    pub fn level(&self) -> u32 {
        self.cgroup.level
    }

    /// One attempt.
    pub async fn attempt(&mut self) -> Status {
        let exchange = async {
            self.stdin.write_all(b"go\n").await?;
            self.stdout.next_line().await
        };
        match timeout(PATIENCE, exchange).await {
            Ok(Ok(Some(line))) if line == "ok" => Status::Live,
            Ok(Ok(Some(line))) => Status::Dead(line),
            Ok(Ok(None)) => Status::Dead("the canary process has ended".into()),
            Ok(Err(error)) => Status::Dead(format!("the canary process cannot be reached: {error}")),
            Err(_) => Status::Dead(format!("the canary got no answer within {PATIENCE:?}")),
        }
    }

    /// Attempts for ever, and tells the last result.
    pub async fn run(&mut self, status_tx: watch::Sender<Status>) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let status = self.attempt().await;
            status_tx.send_if_modified(|last| {
                if *last == status {
                    return false;
                }
                match &status {
                    Status::Live => tracing::info!("interception is live"),
                    Status::Dead(why) => tracing::error!(why, "interception is not live"),
                    Status::Unknown => {}
                }
                *last = status;
                true
            });
        }
    }

    /// Ends the process and removes the cgroup.
    pub async fn stop(mut self) {
        self.answering.abort();
        if let Err(error) = self.maps.remove_workload(self.cgroup.id) {
            tracing::warn!(%error, "cannot remove the canary from the kernel's workloads");
        }
        // Its cgroup can only be removed when it is gone.
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "cannot end the canary process");
        }
        if let Err(error) = fs::remove_dir(&self.cgroup.dir) {
            tracing::warn!(%error, path = %self.cgroup.dir.display(), "cannot remove the canary's cgroup");
        }
    }
}

/// Accepts intercepted attempts. One that names another destination, or none, gets no answer.
async fn answer(listener: tokio::net::TcpListener, port: u16, cookie: u64, maps: Arc<Maps>) {
    loop {
        let Ok((mut stream, from)) = listener.accept().await else { continue };
        let original = maps.take_original(cookie, from, port);
        if original.is_ok_and(|o| o.is_some_and(|o| o.destination == Endpoint::from(ADDRESS))) {
            // The canary tells by itself what it missed.
            drop(stream.write_all(ANSWER).await);
        }
    }
}

/// Removes the cgroups of canaries whose agent died without cleaning up.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|p| p.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            match fs::remove_dir(entry.path()) {
                Ok(()) => {
                    tracing::info!(path = %entry.path().display(), "removed a dead agent's canary cgroup")
                }
                Err(error) => {
                    tracing::warn!(%error, path = %entry.path().display(), "a dead agent's canary cgroup stays")
                }
            }
        }
    }
}

/// The canary process: connects at each line on standard input, until that ends.
pub fn process(cgroup: &Path, home: &Path) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        line?;
        let mapped = SocketAddr::from((Ipv4Addr::new(127, 112, 105, 99).to_ipv6_mapped(), ADDRESS.port()));
        match connect(ADDRESS).and_then(|()| connect(mapped)) {
            Ok(()) => writeln!(stdout, "ok")?,
            Err(why) => writeln!(stdout, "{why}")?,
        }
        stdout.flush()?;
    }
    // The agent is gone, perhaps killed: leave nothing behind. This fails where home is gone too, or holds controllers;
    // the next agent then sweeps.
    fs::write(home.join("cgroup.procs"), std::process::id().to_string())?;
    fs::remove_dir(cgroup)
}

fn connect(to: SocketAddr) -> Result<(), String> {
    let attempt = || -> io::Result<(SocketAddr, [u8; ANSWER.len()])> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE / 3)?;
        stream.set_read_timeout(Some(PATIENCE / 3))?;
        let peer = stream.peer_addr()?;
        let mut answer = [0; ANSWER.len()];
        stream.read_exact(&mut answer)?;
        Ok((peer, answer))
    };
    match attempt() {
        Ok((peer, _)) if peer != to => Err(format!("connected to {to}, but getpeername says {peer}")),
        Ok((_, answer)) if answer != *ANSWER => Err(format!("somebody else answered at {to}")),
        Ok(_) => Ok(()),
        Err(error) => {
            Err(format!("a connection to {to} from the canary's cgroup was not intercepted: {error}"))
        }
    }
}
