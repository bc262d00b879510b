//! Proof that interception is live: a process in a cgroup of its own, below the one the programs are attached to, that
//! connects once a second to two addresses nobody listens at. Only through the hooks can it get an answer.
//!
//! One address is relayed, which exercises `connect4`, `connect6` (by a v4-mapped address), `sock_ops` and
//! `getpeername4|6`. The other is direct with a header, which exercises `sk_msg` and the way out of the sockmap. A link
//! that landed on the wrong cgroup, or another sockmap's user, shows here and nowhere else.
//!
//! The addresses are on loopback: while interception is not live, the attempts end on this machine.

mod answer;
mod process;
mod steady;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use picop_common::{
    addr::PortBe,
    maps::Workload,
    route::{
        BASE, ROUTE_GRAFT_NEVER, ROUTE_ITSELF, ROUTE_PROOF, ROUTE_PROPAGATE, ROUTE_SERVER_FIRST, Route,
        RouteKey,
    },
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
use crate::protocol::{Context, EnvId};

pub use process::process;
use steady::Steady;

/// Where relayed attempts go: port 9 (discard) of an address in 127.0.0.0/8.
pub const RELAYED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 112, 105, 99)), 9);
/// Where direct attempts go.
pub const DIRECT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 112, 105, 100)), 9);
/// How often.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long one round may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Name of the cgroup, before the agent's process id.
const PREFIX: &str = "picop-canary-";
/// The environment in its header. No table's entry matters to it.
const ENVIRONMENT: &str = "picop-canary";

/// What the last attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// None has ended yet.
    Unknown,
    /// It works.
    Live,
    /// It does not, and how that showed.
    Dead(String),
    /// There was no answer in time.
    Slow(String),
}

impl Status {
    fn of(line: &str) -> Self {
        match line.strip_prefix(process::SLOW) {
            _ if line == "ok" => Self::Live,
            Some(why) => Self::Slow(why.to_owned()),
            None => Self::Dead(line.to_owned()),
        }
    }
}

/// What a round found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether connections are intercepted.
    pub interception: Status,
    /// Whether headers are written by the kernel, once and whole, and sockets left as they were.
    pub injection: Status,
}

/// The canary could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// No cgroup for it.
    #[error(
        "cannot make cgroup {path}; the agent must be able to create cgroups below the one it attaches to, which in the root of the \
         tree (mode 0555) takes CAP_DAC_OVERRIDE"
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
    /// Its listeners cannot be had.
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
    own: Cgroup,
    process: Process,
    maps: Arc<Maps>,
    answering: [tokio::task::JoinHandle<()>; 2],
    routes: Vec<(RouteKey, Route)>,
}

/// Its process, in its cgroup.
#[derive(Debug)]
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(cgroup: &Cgroup, own: &Cgroup) -> Result<Self, CanaryError> {
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
        // It makes no socket before it is asked to.
        fs::write(cgroup.dir.join("cgroup.procs"), pid.to_string())
            .map_err(|source| CanaryError::Cgroup { path: cgroup.dir.clone(), source })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(CanaryError::Spawn(io::Error::other("its pipes are missing")));
        };
        Ok(Self { child, stdin, stdout: BufReader::new(stdout).lines() })
    }
}

impl Canary {
    /// Makes its cgroup and process, and has its connections answered. What is left is to put its [`routes`](Self::routes)
    /// in effect.
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
        let process = Process::start(&cgroup, own)?;

        let context = Context::for_env(&EnvId::new(ENVIRONMENT).expect("a name"));
        let own_netns = Arc::new(Netns::own()?);
        let (relayed, direct) = (netns.listen(Arc::clone(&own_netns)).await?, netns.listen(own_netns).await?);
        let cookie = relayed.cookie;
        let relayed = tokio::net::TcpListener::from_std(relayed.v4).map_err(CanaryError::Spawn)?;
        let direct = tokio::net::TcpListener::from_std(direct.v4).map_err(CanaryError::Spawn)?;
        let port = |l: &tokio::net::TcpListener| l.local_addr().map(|a| a.port()).map_err(CanaryError::Spawn);
        let (relayed_port, direct_port) = (port(&relayed)?, port(&direct)?);
        let workload = Workload {
            netns_cookie: cookie,
            header: maps.put_header(context.wire())?,
            listener_v4: PortBe::from_host(relayed_port),
            ..Workload::default()
        };
        maps.put_workload(cgroup.id, workload)?;
        let answering = [
            tokio::spawn(answer::relayed(relayed, relayed_port, cookie, Arc::clone(&maps))),
            tokio::spawn(answer::direct(direct, context)),
        ];
        Ok(Self { cgroup, own: own.clone(), process, maps, answering, routes: routes(direct_port) })
    }

    /// Its cgroup, which the hooks must look at: id and depth.
    pub fn place(&self) -> (u64, u32) {
        (self.cgroup.id, self.cgroup.level)
    }

    /// What must be in every version of the kernel's routes.
    pub fn routes(&self) -> Vec<(RouteKey, Route)> {
        self.routes.clone()
    }

    /// One round. A process that has ended (somebody killed it) is started anew first.
    pub async fn attempt(&mut self) -> Report {
        let broken =
            |why: String| Report { interception: Status::Dead(why.clone()), injection: Status::Dead(why) };
        let slow =
            |why: String| Report { interception: Status::Slow(why.clone()), injection: Status::Slow(why) };
        if let Ok(Some(status)) = self.process.child.try_wait() {
            tracing::warn!(%status, "the canary process has ended; starting another");
            match Process::start(&self.cgroup, &self.own) {
                Ok(process) => self.process = process,
                Err(error) => return broken(crate::telemetry::chain(&error)),
            }
        }
        let Process { stdin, stdout, .. } = &mut self.process;
        let exchange = async {
            stdin.write_all(b"go\n").await?;
            let relayed = stdout.next_line().await?;
            Ok::<_, io::Error>((relayed, stdout.next_line().await?))
        };
        let report = match timeout(PATIENCE, exchange).await {
            Ok(Ok((Some(relayed), Some(direct)))) => {
                return Report { interception: Status::of(&relayed), injection: Status::of(&direct) };
            }
            // Somebody killed it: the next round has another, and its answer.
            Ok(Ok(_)) => slow("the canary process has ended".to_owned()),
            Ok(Err(error)) => slow(format!("the canary process cannot be reached: {error}")),
            Err(_) => slow(format!("the canary process gave no answer within {PATIENCE:?}")),
        };
        // What it may still say would be taken for the answer to the next round.
        if let Err(error) = self.process.child.start_kill() {
            tracing::debug!(%error, "the canary process cannot be ended; it has most likely ended by itself");
        }
        report
    }

    /// Attempts for ever, and tells the last result.
    pub async fn run(&mut self, report_tx: watch::Sender<Report>) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut interception, mut injection) = (Steady::new(), Steady::new());
        loop {
            tick.tick().await;
            let found = self.attempt().await;
            let report = Report {
                interception: interception.take(found.interception),
                injection: injection.take(found.injection),
            };
            report_tx.send_if_modified(|last| {
                let changed = *last != report;
                *last = report;
                changed
            });
        }
    }

    /// Ends the process and removes the cgroup.
    pub async fn stop(mut self) {
        for task in &self.answering {
            task.abort();
        }
        if let Err(error) = self.maps.remove_workload(self.cgroup.id) {
            tracing::warn!(%error, "cannot remove the canary from the kernel's workloads");
        }
        // Its cgroup can only be removed when it is gone.
        if let Err(error) = self.process.child.kill().await {
            tracing::warn!(%error, "cannot end the canary process");
        }
        if let Err(error) = fs::remove_dir(&self.cgroup.dir) {
            tracing::warn!(%error, path = %self.cgroup.dir.display(), "cannot remove the canary's cgroup");
        }
    }
}

/// The first address is relayed for the reason that its server would speak first; the second is direct, proven or not.
fn routes(direct_port: u16) -> Vec<(RouteKey, Route)> {
    let key = |address: SocketAddr| RouteKey::new(BASE, address.into(), 0);
    let direct = SocketAddr::from((Ipv4Addr::LOCALHOST, direct_port));
    vec![
        (
            key(RELAYED),
            Route {
                // Nobody carries what it says: a graft's slot would wait for nothing.
                flags: ROUTE_ITSELF | ROUTE_PROPAGATE | ROUTE_SERVER_FIRST | ROUTE_GRAFT_NEVER,
                ..Route::default()
            },
        ),
        (
            key(DIRECT),
            Route {
                endpoint: direct.into(),
                count: 1,
                flags: ROUTE_PROPAGATE | ROUTE_PROOF,
                ..Route::default()
            },
        ),
    ]
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
                    tracing::info!(path = %entry.path().display(), "removed a dead agent's canary cgroup");
                }
                Err(error) => {
                    tracing::warn!(%error, path = %entry.path().display(), "a dead agent's canary cgroup stays");
                }
            }
        }
    }
}
