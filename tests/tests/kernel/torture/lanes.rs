//! Many connections at a time through one agent: both ends in two processes that live as long as the scene.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ChildStdin, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use testbed::stream::StreamReport;
use testbed::{Agent, AgentOptions, Pod, Proc, wait_until};

use super::plan::{Family, POLICIES, Plan};
use crate::common::{Routes, Scene, variants};

/// Connections at a time.
pub const LANES: u16 = 16;
const FIRST_PORT: u16 = 9000;

/// A scene for many runs.
pub struct Lanes {
    _scene: Scene,
    _agent: Agent,
    client: Ends,
    server: Ends,
    /// By lane and policy: IPv4 and IPv6.
    services: Vec<[(SocketAddr, SocketAddr); POLICIES.len()]>,
    log: Mutex<Tail<(bool, u16)>>,
}

/// What both ends of a connection say, and the agent's line.
#[derive(Debug)]
pub struct Told {
    pub client: StreamReport,
    pub server: StreamReport,
    pub line: Value,
}

impl Lanes {
    pub fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name).map_err(|e| anyhow::anyhow!("{e}"))?;
        let pod = scene.cluster.pod("server")?;
        let mut routes = Routes::new().workload(scene.workload("environment: pr-1"));
        let mut services = Vec::new();
        for lane in 0..LANES {
            services.push(std::array::from_fn(|policy| {
                let (v4, v6) = (scene.vip(), scene.vip6());
                let at = FIRST_PORT + lane;
                // One endpoint each: a server that resets at once has the next one tried.
                for (name, vip, at) in [("v4", v4, pod.at4(at)), ("v6", v6, pod.at6(at))] {
                    let settings = format!("graft: {}, {}", POLICIES[policy], variants(&[("pr-1", &[at])]));
                    let name = format!("{name}-{lane}-{policy}");
                    routes = std::mem::take(&mut routes).service(&name, &[vip], &settings);
                }
                (v4, v6)
            }));
        }
        let options = AgentOptions { routes: routes.to_string(), plain: true, ..AgentOptions::default() };
        let agent = Agent::start_with(&scene.cluster, options)?;
        let listen: Vec<_> = (0..LANES).map(listener).collect();
        let mut server = Ends::new(&pod, &listen)?;
        server.proc.wait_for_port(FIRST_PORT)?;
        let client = Ends::new(&scene.client, &[])?;
        let log = Mutex::new(Tail::new(agent.log_path().to_path_buf()));
        Ok(Self { _scene: scene, _agent: agent, client, server, services, log })
    }

    /// One connection, the `number`th, with both its ends. A lane has one at a time.
    pub fn run(&self, lane: u16, number: u64, plan: &Plan, patience: Duration) -> Result<Told> {
        let watchdog = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let (v4, v6) = self.services[usize::from(lane)][plan.policy];
        let to = match plan.family {
            Family::V4 => v4,
            Family::V6 => v6,
            Family::Mapped => {
                let IpAddr::V4(ip) = v4.ip() else { anyhow::bail!("{v4} is IPv4") };
                SocketAddr::new(ip.to_ipv6_mapped().into(), v4.port())
            }
        };
        self.server.begin(number, &format!("--listen {} {}", listener(lane), plan.args(false, watchdog)))?;
        self.client.begin(number, &format!("--to {to} {}", plan.args(true, watchdog)))?;
        let ends = patience * 3 + plan.slowness();
        let client = self.client.end(number, ends)?;
        let server = self.server.end(number, ends)?;
        let local = client.local.with_context(|| format!("the client has no connection: {client:?}"))?;
        let key = (local.ip().to_canonical().is_ipv6(), local.port());
        let access = wait_until("the agent's line", patience, || {
            self.log.lock().ok()?.take(&key, |text| {
                let told: Value = serde_json::from_str(text).ok()?;
                let client: SocketAddr = told["client"].as_str()?.parse().ok()?;
                Some(((client.ip().to_canonical().is_ipv6(), client.port()), told.to_string()))
            })
        })
        .with_context(|| format!("{client:?}\n{server:?}"))?;
        Ok(Told { client, server, line: serde_json::from_str(&access)? })
    }
}

fn listener(lane: u16) -> SocketAddr {
    // The wildcard takes IPv4 as well.
    SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), FIRST_PORT + lane)
}

/// `hop streams` in a pod.
struct Ends {
    proc: Proc,
    stdin: Mutex<ChildStdin>,
    told: Mutex<Tail<u64>>,
}

impl Ends {
    fn new(pod: &Pod, listen: &[SocketAddr]) -> Result<Self> {
        let listen = listen.iter().flat_map(|at| ["--listen".to_owned(), at.to_string()]);
        let mut command = pod.hop(["streams".to_owned()].into_iter().chain(listen))?;
        command.stdin(Stdio::piped());
        let mut proc = pod.spawn("streams", command)?;
        let stdin = Mutex::new(proc.take_stdin().context("stdin was asked to be a pipe")?);
        let told = Mutex::new(Tail::new(proc.stdout_path().to_path_buf()));
        Ok(Self { proc, stdin, told })
    }

    fn begin(&self, number: u64, args: &str) -> Result<()> {
        let mut stdin = self.stdin.lock().expect("not poisoned");
        stdin.write_all(format!("{number} {args}\n").as_bytes()).context("telling `hop streams`")
    }

    fn end(&self, number: u64, patience: Duration) -> Result<StreamReport> {
        let text = wait_until("an end's report", patience, || {
            self.told.lock().ok()?.take(&number, |line| {
                let (number, report) = line.split_once(' ')?;
                Some((number.parse().ok()?, report.to_owned()))
            })
        })
        .with_context(|| self.proc.stderr())?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// A growing file of lines, by what they are about. Each is taken once.
struct Tail<K> {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
    lines: HashMap<K, String>,
}

impl<K: std::hash::Hash + Eq> Tail<K> {
    fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, partial: Vec::new(), lines: HashMap::new() }
    }

    fn take(&mut self, key: &K, parse: impl Fn(&str) -> Option<(K, String)>) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.offset)).ok()?;
        let read = file.read_to_end(&mut self.partial).ok()?;
        self.offset += read as u64;
        if let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') {
            let whole = self.partial.drain(..=end).collect::<Vec<_>>();
            self.lines.extend(String::from_utf8_lossy(&whole).lines().filter_map(parse));
        }
        self.lines.remove(key)
    }
}
