//! The cluster the connections are made in.
//!
//! ```text
//! <cluster>/             nothing attached
//!   outside/client,      the client, of all but picop's variants; the peers
//!   outside/server       the server
//!   node/                the agent is attached here
//!     workload           the client, of picop's variants: a workload that sends headers
//!   watched/             the same with an agent of its own, whose metrics are fetched and whose traces are taken
//! ```
//!
//! The peers listen on the loopback address of the client's pod, as picop does, and connect from that pod to the server's
//! over the same pair of veths. Each variant has a port of its own at the server, which says so in each response.

mod routes;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testbed::{Agent, AgentOptions, Cluster, Pod, PodSpec, Proc, leftovers_of, wait_until};

use super::super::cpu;
use super::super::load::{self, Client, Place, Serve, Served, Server, Way};
use super::super::machine;
use super::super::watch::{Collector, Watcher};
use super::peer::{Peer, Program};
use super::variant::Variant;

/// The server's first port; each variant has the next.
const FIRST_PORT: u16 = 7000;
/// The peers'.
const FIRST_LISTEN: u16 = 8000;
const SERVICE_PORT: u16 = 80;
/// The environment in the header.
const ENVIRONMENT: &str = "bench-0";
/// For the server to have counted what it has answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than are held at once.
const MAX_CONNECTIONS: &str = "40000";

/// What to make it of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub variants: Vec<Variant>,
    pub peers: Vec<Program>,
    /// Whether route files may say `graft`.
    pub knows_graft: bool,
    /// Whether picop writes its line for each connection; the peers write none.
    pub access_lines: bool,
    /// Of each program.
    pub descriptors: u64,
}

/// Everything that runs. Programs come first: they end before their pods.
pub struct Stage {
    client: Client,
    server: Server,
    peers: Vec<Peer>,
    floor: Option<Proc>,
    agents: Vec<(Below, Agent)>,
    /// Whoever watches an agent.
    watcher: Option<Watcher>,
    ways: Vec<(Variant, Way)>,
    /// Connections made by each.
    made: Vec<(Variant, u64)>,
    client_pod: Pod,
    cluster: Cluster,
}

/// What the cgroup that an agent is attached to is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    Node,
    Watched,
}

impl Below {
    fn of(variant: Variant) -> Self {
        if variant == Variant::RelayWatched { Self::Watched } else { Self::Node }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Watched => "watched",
        }
    }
}

impl Stage {
    /// Makes the pods and starts everything.
    pub fn build(plan: &Plan) -> Result<Self> {
        let cluster = Cluster::new("bench")?;
        let client_pod = cluster.pod(PodSpec::new("client").cgroup("outside/client"))?;
        let server_pod = cluster.pod(PodSpec::new("server").cgroup("outside/server"))?;
        client_pod.in_netns(machine::many_ports).context("entering the client's namespace")??;
        let at = |variant, name: &str| cluster.cgroup_dir().join(Below::of(variant).name()).join(name);
        for variant in plan.variants.iter().filter(|variant| variant.is_picop()) {
            for dir in [at(*variant, "workload"), at(*variant, "server")] {
                fs::create_dir_all(&dir).with_context(|| format!("creating cgroup {}", dir.display()))?;
            }
        }
        let mut ways = Vec::new();
        for (variant, number) in plan.variants.iter().copied().zip(0..) {
            let to = if variant.is_picop() {
                SocketAddr::new(cluster.service_addr4().into(), SERVICE_PORT)
            } else if variant.listens() {
                SocketAddr::new(Ipv4Addr::LOCALHOST.into(), FIRST_LISTEN + number)
            } else {
                server_pod.at4(FIRST_PORT + number)
            };
            let (cgroup, header) = if variant.is_picop() {
                (at(variant, "workload"), load::header(ENVIRONMENT))
            } else {
                (client_pod.cgroup_dir().to_path_buf(), String::new())
            };
            ways.push((variant, Way { cgroup, to, header, port: FIRST_PORT + number }));
        }
        let listeners: Vec<_> = ways
            .iter()
            .map(|(variant, way)| {
                // Where the agent sees it, as it would on a node: what it says can be grafted only then.
                let cgroup = if variant.is_picop() {
                    at(*variant, "server")
                } else {
                    server_pod.cgroup_dir().to_path_buf()
                };
                (cgroup, server_pod.at4(way.port))
            })
            .collect();
        let cpus = machine::cpus();
        // Nobody is ahead of the proxies, which are not told where to run.
        let place = |cpu| Place { cpu, urgent: false };
        let server =
            Server::start(&cluster, &server_pod, place(cpus.saturating_sub(2)), Serve::Many, &listeners)?;
        let client = Client::start(&cluster, &client_pod, place(cpus - 1))?;
        let made = ways.iter().map(|(variant, _)| (*variant, 0)).collect();
        let mut stage = Self {
            client,
            server,
            peers: Vec::new(),
            floor: None,
            agents: Vec::new(),
            watcher: None,
            ways,
            made,
            client_pod,
            cluster,
        };
        stage.start_peers(plan, &server_pod)?;
        stage.start_floor(&server_pod)?;
        for place in [Below::Node, Below::Watched] {
            stage.start_agent(plan, &server_pod, place)?;
        }
        stage.check_control()?;
        Ok(stage)
    }

    fn start_peers(&mut self, plan: &Plan, server: &Pod) -> Result<()> {
        for (variant, way) in self.ways.iter().filter(|(variant, _)| variant.is_peer()) {
            let program = plan.peers.iter().find(|peer| peer.variant == *variant);
            let program = program.with_context(|| format!("no program for {}", variant.name()))?;
            let peer = Peer::start(
                program,
                &self.cluster,
                &self.client_pod,
                way.to,
                server.at4(way.port),
                plan.descriptors,
            )?;
            self.peers.push(peer);
        }
        Ok(())
    }

    fn start_floor(&mut self, server: &Pod) -> Result<()> {
        if let Some((_, way)) = self.ways.iter().find(|(variant, _)| *variant == Variant::Floor) {
            let to = server.at4(way.port).to_string();
            self.floor = Some(self.client_pod.serve("bench-relay", way.to, ["--to", &to])?);
        }
        Ok(())
    }

    fn start_agent(&mut self, plan: &Plan, server: &Pod, place: Below) -> Result<()> {
        let services: Vec<_> = self
            .ways
            .iter()
            .filter(|(variant, _)| variant.is_picop() && Below::of(*variant) == place)
            .map(|(variant, way)| (*variant, way.to, server.at4(way.port)))
            .collect();
        if services.is_empty() {
            return Ok(());
        }
        let routes = routes::of(
            &services,
            plan.knows_graft,
            &format!("{}/{}/workload", self.cluster.id(), place.name()),
            &self.client_pod,
        );
        let mut args = vec!["--max-connections-per-workload".to_owned(), MAX_CONNECTIONS.to_owned()];
        if !plan.access_lines {
            args.extend(["--log".to_owned(), "info,access=off".to_owned()]);
        }
        let cgroup = Some(self.cluster.cgroup_dir().join(place.name()));
        let mut options = AgentOptions { routes, cgroup, args, plain: true, ..AgentOptions::default() };
        let collector = (place == Below::Watched).then(Collector::start).transpose()?;
        if let Some(collector) = &collector {
            collector.have_it_told(&mut options);
        }
        // One worker, as the peers: it makes as many as there are CPUs for it when it starts.
        let agent = machine::on_one_cpu(|| Agent::start_with(&self.cluster, options))??;
        cpu::family(agent.pid())?.into_iter().try_for_each(machine::onto_all_cpus)?;
        if let Some(collector) = collector {
            self.watcher = Some(Watcher::start(collector, &agent)?);
        }
        self.agents.push((place, agent));
        Ok(())
    }

    /// From where no program is attached, no service can be reached; that connections to one arrive later is picop's doing.
    fn check_control(&mut self) -> Result<()> {
        let outside = self.way(Variant::None)?.clone();
        self.client.connections(&outside, 1, 1)?;
        self.count(Variant::None, 1);
        for (variant, way) in self.ways.clone().into_iter().filter(|(variant, _)| variant.is_picop()) {
            let way = Way { cgroup: outside.cgroup.clone(), header: String::new(), ..way };
            let reached = self.client.connections(&way, 1, 1).is_ok();
            ensure!(!reached, "{} was reached from where picop is not", variant.name());
        }
        Ok(())
    }

    /// The client, and the way of a variant.
    pub fn client(&mut self, variant: Variant) -> Result<(&mut Client, Way)> {
        let way = self.way(variant)?.clone();
        Ok((&mut self.client, way))
    }

    fn way(&self, variant: Variant) -> Result<&Way> {
        let found = self.ways.iter().find(|(of, _)| *of == variant);
        found.map(|(_, way)| way).with_context(|| format!("{} is not on stage", variant.name()))
    }

    /// Notes connections that were made, for [`check`](Self::check).
    pub fn count(&mut self, variant: Variant, connections: usize) {
        for (_, made) in self.made.iter_mut().filter(|(of, _)| *of == variant) {
            *made += connections as u64;
        }
    }

    /// The processes of a variant between client and server.
    pub fn proxies(&self, variant: Variant) -> Result<Vec<u32>> {
        if variant.is_picop() {
            let agent = self.agents.iter().find(|(place, _)| *place == Below::of(variant));
            return cpu::family(agent.context("picop does not run")?.1.pid());
        }
        if let (Variant::Floor, Some(floor)) = (variant, &self.floor) {
            return cpu::family(floor.pid());
        }
        match self.peers.iter().find(|peer| peer.variant == variant) {
            Some(peer) => cpu::family(peer.running.proc.pid()),
            None => Ok(Vec::new()),
        }
    }

    /// Client and server.
    pub fn ends(&self) -> [u32; 2] {
        [self.client.pid(), self.server.pid()]
    }

    /// The peers.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// All connections of each variant arrived at its port, and nothing else did.
    pub fn check(&mut self) -> Result<()> {
        for (variant, made) in self.made.clone() {
            let port = self.way(variant)?.port;
            let expected = Served { with_header: 0, without: made, bad: 0 };
            let mut got = Served::default();
            // It counts after it has answered.
            let arrived = wait_until("the server's count", PATIENCE, || {
                let served = self.server.served().ok()?;
                got = served.get(&port).copied().unwrap_or_default();
                (got == expected).then_some(())
            });
            if arrived.is_err() {
                bail!("{}: the server has seen {got:?}, not {expected:?}", variant.name());
            }
        }
        Ok(())
    }

    /// Removes everything, and makes sure of it.
    pub fn remove(self) -> Result<()> {
        let Self { client, server, peers, floor, agents, watcher, cluster, .. } = self;
        let id = cluster.id();
        if let Some(watcher) = watcher {
            watcher.finish()?;
        }
        drop((client, server, peers, floor));
        for (_, agent) in agents {
            let status = agent.stop()?;
            ensure!(status.success(), "picop ended badly when asked to stop: {status}");
        }
        drop(cluster);
        let left = leftovers_of(id);
        ensure!(left.is_empty(), "not removed: {}", left.join(", "));
        Ok(())
    }
}
