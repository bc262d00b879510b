//! The cluster the connections are made in.
//!
//! ```text
//! <cluster>/             nothing attached
//!   outside/client,      `none`: the pods' own cgroups
//!   outside/server
//!   node/                the agent is attached here
//!     server             the server's sockets of its variants
//!     direct             workload of environment `bench`
//!     relay              workload that sends headers
//!   watched/             the same with an agent of its own, whose metrics are fetched and whose traces are taken
//!   flat-N/              the same with an agent of its own
//!   floor/               no agent: see floor.rs
//! ```
//!
//! The client's process moves between these cgroups. Its network namespace, its CPU and the server's process stay the same,
//! and each variant has a port of its own there, so that no variant meets another's TIME_WAIT.

mod floor;
mod proof;
pub mod routes;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use testbed::{Agent, AgentOptions, Cluster, Pod, PodSpec, leftovers_of};

use super::super::load::{self, Client, Serve, Server};
use super::super::machine;
use super::super::stats::Random;
use super::super::watch::{Collector, Watcher};
use super::variant::{Size, Variant};
use floor::Floor;

/// The server's first port; each variant has the next.
const FIRST_PORT: u16 = 7000;
const SERVICE_PORT: u16 = 80;
/// The workloads' environment.
pub const ENVIRONMENT: &str = "bench-0";

/// Everything that runs. Programs come first: they end before their pods.
pub struct Stage {
    client: Client,
    server: Server,
    agents: Vec<(Place, Agent)>,
    /// Whoever watches an agent.
    watcher: Option<Watcher>,
    floor: Option<Floor>,
    client_pod: Pod,
    /// The server's addresses.
    backends: Vec<(Variant, SocketAddr)>,
    /// Of the variants with one service: its address, which no host has.
    services: Vec<(Variant, SocketAddr)>,
    cluster: Cluster,
}

/// What the cgroup that an agent is attached to is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Node,
    Watched,
    Flat(Size),
    /// No agent's.
    Floor,
}

impl Stage {
    /// Makes the pods and starts everything.
    pub fn build(variants: &[Variant], one_cpu: bool) -> Result<Self> {
        let cluster = Cluster::new("bench")?;
        let client_pod = cluster.pod(PodSpec::new("client").cgroup("outside/client"))?;
        let server_pod = cluster.pod(PodSpec::new("server").cgroup("outside/server"))?;
        client_pod.in_netns(machine::many_ports).context("entering the client's namespace")??;
        let backends: Vec<_> =
            variants.iter().copied().zip((FIRST_PORT..).map(|port| server_pod.at4(port))).collect();
        for variant in variants {
            for name in ["server", "direct", "relay"] {
                let dir = node_dir(&cluster, *variant).join(name);
                fs::create_dir_all(&dir).with_context(|| format!("creating cgroup {}", dir.display()))?;
            }
        }
        let listeners: Vec<_> = backends
            .iter()
            .map(|(variant, backend)| {
                let cgroup = match variant {
                    Variant::None | Variant::NoneAgain => server_pod.cgroup_dir().to_path_buf(),
                    routed => node_dir(&cluster, *routed).join("server"),
                };
                (cgroup, *backend)
            })
            .collect();
        // The second CPU, if there is one: the first is where machines like to put their interrupts.
        let cpus = machine::cpus();
        let (client_cpu, server_cpu) =
            if one_cpu { (cpus - 1, cpus - 1) } else { (cpus - 1, cpus.saturating_sub(2)) };
        let place = |cpu| load::Place { cpu, urgent: true };
        let server = Server::start(&cluster, &server_pod, place(server_cpu), Serve::One, &listeners)?;
        let client = Client::start(&cluster, &client_pod, place(client_cpu))?;
        let one_service = [
            Variant::DirectStrip,
            Variant::DirectPropagate,
            Variant::Relay,
            Variant::DirectWatched,
            Variant::RelayWatched,
        ];
        let services = one_service
            .into_iter()
            .filter(|variant| variants.contains(variant))
            .map(|variant| (variant, SocketAddr::new(cluster.service_addr4().into(), SERVICE_PORT)))
            .collect();
        let mut stage = Self {
            client,
            server,
            agents: Vec::new(),
            watcher: None,
            floor: None,
            client_pod,
            backends,
            services,
            cluster,
        };
        stage.start_agents()?;
        if variants.contains(&Variant::Floor) {
            stage.floor = Some(Floor::attach(&Place::Floor.dir(&stage.cluster))?);
        }
        stage.check_control()?;
        Ok(stage)
    }

    fn start_agents(&mut self) -> Result<()> {
        let mut places = vec![Place::Node];
        if self.backends.iter().any(|(variant, _)| Place::of(*variant) == Place::Watched) {
            places.push(Place::Watched);
        }
        places.extend(self.backends.iter().filter_map(|(variant, _)| match variant {
            Variant::Flat(size) => Some(Place::Flat(*size)),
            _ => None,
        }));
        for place in places {
            let cgroup = place.dir(&self.cluster);
            let services = match place {
                Place::Node | Place::Watched => {
                    let here: Vec<_> =
                        self.services.iter().copied().filter(|(of, _)| Place::of(*of) == place).collect();
                    routes::services(&here, &self.backends)?
                }
                Place::Flat(size) => routes::many_services(size, self.backend(Variant::Flat(size))?),
                Place::Floor => continue,
            };
            let routes = services + &routes::workloads(&place.path(&self.cluster), &self.client_pod);
            let mut options =
                AgentOptions { routes, cgroup: Some(cgroup), plain: true, ..AgentOptions::default() };
            let collector = (place == Place::Watched).then(Collector::start).transpose()?;
            if let Some(collector) = &collector {
                collector.have_it_told(&mut options);
            }
            let agent = Agent::start_with(&self.cluster, options)?;
            self.watcher = collector
                .map(|collector| Watcher::start(collector, &agent))
                .transpose()?
                .or(self.watcher.take());
            self.agents.push((place, agent));
        }
        Ok(())
    }

    /// The client.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The header clients of the relay send.
    pub fn header() -> String {
        load::header(ENVIRONMENT)
    }

    /// Where a variant's client is.
    pub fn client_cgroup(&self, variant: Variant) -> PathBuf {
        match variant {
            Variant::None | Variant::NoneAgain => self.client_pod.cgroup_dir().to_path_buf(),
            Variant::Relay | Variant::RelayWatched => node_dir(&self.cluster, variant).join("relay"),
            Variant::Passthrough
            | Variant::DirectStrip
            | Variant::DirectPropagate
            | Variant::DirectWatched
            | Variant::Floor
            | Variant::Flat(_) => node_dir(&self.cluster, variant).join("direct"),
        }
    }

    /// Whose CPU time a variant's connections take.
    pub fn processes(&self, variant: Variant) -> Result<Vec<u32>> {
        let (_, agent) = self.agent_of(variant)?;
        Ok(vec![self.client.pid(), self.server.pid(), agent.pid()])
    }

    /// The agent that has no more to do than there are variants.
    pub fn agent_pid(&self) -> Result<u32> {
        let found = self.agents.iter().find(|(place, _)| *place == Place::Node);
        found.map(|(_, agent)| agent.pid()).context("no agent runs")
    }

    fn agent_of(&self, variant: Variant) -> Result<&(Place, Agent)> {
        let place = match Place::of(variant) {
            // Idle meanwhile, as it is for `none`.
            Place::Floor => Place::Node,
            place => place,
        };
        let found = self.agents.iter().find(|(at, _)| *at == place);
        found.with_context(|| format!("no agent for {variant:?}"))
    }

    /// Where `count` connections of a variant go.
    pub fn targets(&self, variant: Variant, count: usize, random: &mut Random) -> Result<Vec<SocketAddr>> {
        let one = |address| Ok(vec![address; count]);
        match variant {
            Variant::None | Variant::NoneAgain | Variant::Floor | Variant::Passthrough => {
                one(self.backend(variant)?)
            }
            Variant::DirectStrip
            | Variant::DirectPropagate
            | Variant::Relay
            | Variant::DirectWatched
            | Variant::RelayWatched => one(find(&self.services, variant)?),
            Variant::Flat(size) => Ok((0..count)
                .map(|_| SocketAddr::new(routes::address(random.below(size.services.into())), SERVICE_PORT))
                .collect()),
        }
    }

    fn backend(&self, variant: Variant) -> Result<SocketAddr> {
        find(&self.backends, variant)
    }

    /// Removes everything, and makes sure of it.
    pub fn remove(self) -> Result<()> {
        let Self { client, server, agents, watcher, floor, cluster, .. } = self;
        let id = cluster.id();
        if let Some(watcher) = watcher {
            watcher.finish()?;
        }
        drop((client, server, floor));
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

impl Place {
    fn of(variant: Variant) -> Self {
        match variant {
            Variant::Flat(size) => Self::Flat(size),
            Variant::DirectWatched | Variant::RelayWatched => Self::Watched,
            Variant::Floor => Self::Floor,
            _ => Self::Node,
        }
    }

    /// The cgroup, below the mount.
    fn path(self, cluster: &Cluster) -> String {
        match self {
            Self::Node => format!("{}/node", cluster.id()),
            Self::Watched => format!("{}/watched", cluster.id()),
            Self::Flat(size) => format!("{}/flat-{}", cluster.id(), size.variants()),
            Self::Floor => format!("{}/floor", cluster.id()),
        }
    }

    fn dir(self, cluster: &Cluster) -> PathBuf {
        cluster.v2_mount().join(self.path(cluster))
    }
}

fn node_dir(cluster: &Cluster, variant: Variant) -> PathBuf {
    Place::of(variant).dir(cluster)
}

fn find(addresses: &[(Variant, SocketAddr)], variant: Variant) -> Result<SocketAddr> {
    let found = addresses.iter().find(|(of, _)| *of == variant);
    found.map(|(_, address)| *address).with_context(|| format!("{} has no address here", variant.name()))
}
