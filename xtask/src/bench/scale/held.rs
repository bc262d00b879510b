//! Connections that do nothing, and what one more costs beside them.
//!
//! ```text
//! <cluster>/
//!   outside/probe, outside/holder-N      the clients, when they go past picop
//!   node/                                the agent is attached here
//!     server                             the server
//!     probe/PATH, holder-N/PATH          the clients, when they are workloads
//! ```
//!
//! So many connections take several client addresses: a pair of addresses and a port have some 64,000, and the kernel
//! searches long for the last of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use testbed::{Agent, AgentOptions, Cluster, Pod, PodSpec, leftovers_of};

use super::super::load::{self, Client, Place, Serve, Server, Way};
use super::super::report::Measured;
use super::super::{machine, peer};
use super::{Held, Path, TURN, Timing, WARM_UP, turn};
use crate::exec;
use crate::memory::Memory;

const PATHS: [Path; 3] = [Path::None, Path::Direct, Path::Relay];
const HOLDERS: usize = 5;
const FIRST_PORT: u16 = 7000;
const SERVICE_PORT: u16 = 80;
const ENVIRONMENT: &str = "bench-0";
/// Where bases are: nowhere.
const NOWHERE: &str = "10.96.0.1:9";
/// The agent has two for each connection.
const DESCRIPTORS: u64 = 262_144;

/// A client and its ways.
struct Caller {
    client: Client,
    pod: Pod,
    ways: BTreeMap<Path, Way>,
}

struct Stage {
    probe: Caller,
    holders: Vec<Caller>,
    server: Server,
    agent: Agent,
    cluster: Cluster,
}

/// So many connections, or as many as a process may have descriptors for.
fn possible(numbers: &[usize]) -> Result<Vec<usize>> {
    let descriptors = peer::raise_limits(DESCRIPTORS)?;
    let possible = usize::try_from(peer::connections(descriptors))?;
    let mut numbers = numbers.to_vec();
    for number in numbers.iter_mut().filter(|number| **number > possible) {
        exec::announce(&format!(
            "scale: not {number} connections but {possible}: a process may have no more than {descriptors} descriptors here, \
             and this one may not ask for more"
        ));
        *number = possible;
    }
    numbers.dedup();
    Ok(numbers)
}

/// Measures each path with each number of connections, and with the first number again; says how much CPU time that took.
pub fn measure(numbers: &[usize], rounds: usize) -> Result<(Vec<Held>, Vec<Held>, u64)> {
    let numbers = &possible(numbers)?;
    let mut stage = Stage::build()?;
    let (mut all, mut again, mut own_ns) = (Vec::new(), Vec::new(), 0);
    for path in PATHS {
        let mut first = None;
        let repeated = numbers.iter().chain(numbers.first()).enumerate();
        for (turn, number) in repeated {
            exec::announce(&format!("scale: {number} connections by {}", path.name()));
            let (measured, mut held) = stage.hold(path, *number, rounds)?;
            own_ns += measured.cpu_ns();
            let first = first.get_or_insert(measured.clone());
            held.timing = Timing::of(&measured, first)?;
            if turn < numbers.len() { all.push(held) } else { again.push(held) }
        }
    }
    stage.remove()?;
    Ok((all, again, own_ns))
}

impl Stage {
    fn build() -> Result<Self> {
        let cluster = Cluster::new("bench")?;
        let server_pod = cluster.pod(PodSpec::new("server").cgroup("node/server"))?;
        let outside = cluster.pod(PodSpec::new("server-none").cgroup("outside/server"))?;
        let cpus = machine::cpus();
        let place = |cpu| Place { cpu, urgent: false };
        // One server for all: the yardstick's listener is in another cgroup, but at an address of the same pod.
        let listeners: Vec<_> = PATHS
            .iter()
            .zip(FIRST_PORT..)
            .map(|(path, port)| {
                let pod = if *path == Path::None { &outside } else { &server_pod };
                (pod.cgroup_dir().to_path_buf(), server_pod.at4(port))
            })
            .collect();
        let server =
            Server::start(&cluster, &server_pod, place(cpus.saturating_sub(2)), Serve::Many, &listeners)?;
        let services: Vec<_> = PATHS[1..]
            .iter()
            .map(|_| SocketAddr::new(cluster.service_addr4().into(), SERVICE_PORT))
            .collect();
        let mut yaml = "services:\n".to_owned();
        for ((path, service), (_, server)) in PATHS[1..].iter().zip(&services).zip(&listeners[1..]) {
            write!(
                yaml,
                "  - name: {}\n    addresses: [\"{service}\"]\n    header: strip\n    graft: never\n    base: [\"{NOWHERE}\"]\n    \
                 variants:\n      {ENVIRONMENT}: [\"{server}\"]\n",
                path.name()
            )
            .expect("a String takes all");
        }
        yaml.push_str("workloads:\n");
        let mut callers = Vec::new();
        let names = (0..HOLDERS).map(|n| format!("holder-{n}")).chain(["probe".to_owned()]);
        for name in names {
            let pod = cluster.pod(PodSpec::new(name.clone()).cgroup(format!("outside/{name}")))?;
            pod.in_netns(machine::many_ports).context("entering a client's namespace")??;
            let mut ways = BTreeMap::new();
            for ((number, path), (_, backend)) in PATHS.iter().enumerate().zip(&listeners) {
                let (cgroup, to) = match number.checked_sub(1) {
                    None => (pod.cgroup_dir().to_path_buf(), *backend),
                    Some(service) => {
                        let relative = format!("node/{name}/{}", path.name());
                        let what = if *path == Path::Relay {
                            "context: header".to_owned()
                        } else {
                            format!("environment: {ENVIRONMENT}")
                        };
                        let netns = pod.netns_path().display();
                        writeln!(yaml, "  - {{cgroup: {}/{relative}, {what}, netns: {netns}}}", cluster.id())
                            .expect("a String takes all");
                        (cluster.cgroup_dir().join(relative), services[service])
                    }
                };
                fs::create_dir_all(&cgroup)
                    .with_context(|| format!("creating cgroup {}", cgroup.display()))?;
                let header = if *path == Path::Relay { load::header(ENVIRONMENT) } else { String::new() };
                ways.insert(*path, Way { cgroup, to, header, port: backend.port() });
            }
            let client = Client::start(&cluster, &pod, place(cpus - 1))?;
            callers.push(Caller { client, pod, ways });
        }
        let probe = callers.pop().context("no client")?;
        let args = [
            "--max-connections",
            "100000",
            "--max-connections-per-workload",
            "100000",
            "--log",
            "info,access=off",
        ];
        let options = AgentOptions {
            routes: yaml,
            cgroup: Some(cluster.cgroup_dir().join("node")),
            args: args.map(str::to_owned).to_vec(),
            plain: true,
            ..AgentOptions::default()
        };
        let agent = Agent::start_with(&cluster, options)?;
        Ok(Self { probe, holders: callers, server, agent, cluster })
    }

    /// Holds so many connections, and makes others beside them.
    fn hold(&mut self, path: Path, number: usize, rounds: usize) -> Result<(Measured, Held)> {
        let began = Instant::now();
        for (at, holder) in self.holders.iter_mut().enumerate() {
            let share = number / HOLDERS + usize::from(at < number % HOLDERS);
            if share > 0 {
                let held = holder.client.hold(&holder.ways[&path], share);
                held.with_context(|| format!("{share} of {number} connections from {}", holder.pod.name()))?;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "connections are counted in thousands")]
        let opening_us = began.elapsed().as_secs_f64() * 1e6 / number as f64;
        let memory = Memory::read(&self.agent)?;
        let processes = [self.probe.client.pid(), self.server.pid(), self.agent.pid()];
        let way = &self.probe.ways[&path];
        let to = vec![way.to; WARM_UP + TURN];
        let mut measured = Measured::new(path.name().to_owned());
        for _ in 0..rounds {
            measured.add(turn(&mut self.probe.client, way, &to, &processes)?);
        }
        for holder in &mut self.holders {
            holder.client.release(&holder.ways[&path])?;
        }
        let timing = Timing::of(&measured, &measured)?;
        let held = Held {
            path,
            connections: number,
            timing,
            agent_rss_kb: memory.agent_rss,
            maps_kb: memory.maps,
            slab_kb: memory.slab,
            opening_us,
        };
        Ok((measured, held))
    }

    fn remove(self) -> Result<()> {
        let Self { probe, holders, server, agent, cluster } = self;
        let id = cluster.id();
        drop((probe, holders, server));
        let status = agent.stop()?;
        ensure!(status.success(), "picop ended badly when asked to stop: {status}");
        drop(cluster);
        let left = leftovers_of(id);
        ensure!(left.is_empty(), "not removed: {}", left.join(", "));
        Ok(())
    }
}
