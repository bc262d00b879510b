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
//!   flat-N/              the same with an agent of its own
//! ```
//!
//! The client's process moves between these cgroups. Its network namespace, its CPU and the server's process stay the same,
//! and each variant has a port of its own there, so that no variant meets another's TIME_WAIT.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use testbed::{Agent, AgentOptions, Cluster, Pod, PodSpec, hex, leftovers_of};

use super::super::load::{Block, Client, Served, Server};
use super::super::machine;
use super::super::stats::Random;
use super::variant::{Size, Variant};

/// The server's first port; each variant has the next.
const FIRST_PORT: u16 = 7000;
/// Where bases are: nobody listens there, so a connection that is not routed to its variant fails.
const NOBODY: u16 = 9;
const SERVICE_PORT: u16 = 80;
/// The workloads' environment.
const ENVIRONMENT: &str = "bench-0";
/// Addresses of many services: ahead of them are those the testbed gives out.
const FIRST_FLAT: u32 = u32::from_be_bytes([10, 96, 64, 0]);

/// Everything that runs. Programs come first: they end before their pods.
pub struct Stage {
    client: Client,
    server: Server,
    agents: Vec<(Place, Agent)>,
    client_pod: Pod,
    ports: Vec<(Variant, u16)>,
    server_at: Ipv4Addr,
    strip: SocketAddr,
    propagate: SocketAddr,
    cluster: Cluster,
}

/// What the cgroup that an agent is attached to is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Node,
    Flat(Size),
}

impl Stage {
    /// Makes the pods and starts everything.
    pub fn build(variants: &[Variant], one_cpu: bool) -> Result<Self> {
        let cluster = Cluster::new("bench")?;
        let client_pod = cluster.pod(PodSpec::new("client").cgroup("outside/client"))?;
        let server_pod = cluster.pod(PodSpec::new("server").cgroup("outside/server"))?;
        client_pod.in_netns(many_ports).context("entering the client's namespace")??;
        let ports: Vec<_> = variants.iter().copied().zip(FIRST_PORT..).collect();
        for variant in variants {
            for name in ["server", "direct", "relay"] {
                let dir = node_dir(&cluster, *variant).join(name);
                fs::create_dir_all(&dir).with_context(|| format!("creating cgroup {}", dir.display()))?;
            }
        }
        let listeners: Vec<_> = ports
            .iter()
            .map(|(variant, port)| {
                let cgroup = match variant {
                    Variant::None | Variant::NoneAgain => server_pod.cgroup_dir().to_path_buf(),
                    routed => node_dir(&cluster, *routed).join("server"),
                };
                (cgroup, server_pod.at4(*port))
            })
            .collect();
        // The second CPU, if there is one: the first is where machines like to put their interrupts.
        let cpus = machine::cpus();
        let (client_cpu, server_cpu) = if one_cpu { (cpus - 1, cpus - 1) } else { (cpus - 1, cpus.saturating_sub(2)) };
        let server = Server::start(&cluster, &server_pod, server_cpu, &listeners)?;
        let client = Client::start(&cluster, &client_pod, client_cpu)?;
        let service = || SocketAddr::new(cluster.service_addr4().into(), SERVICE_PORT);
        let (strip, propagate) = (service(), service());
        let mut stage = Self {
            client,
            server,
            agents: Vec::new(),
            client_pod,
            ports,
            server_at: server_pod.addr4(),
            strip,
            propagate,
            cluster,
        };
        stage.start_agents()?;
        stage.check_before()?;
        Ok(stage)
    }

    fn start_agents(&mut self) -> Result<()> {
        let mut places = vec![Place::Node];
        places.extend(self.ports.iter().filter_map(|(variant, _)| match variant {
            Variant::Flat(size) => Some(Place::Flat(*size)),
            _ => None,
        }));
        for place in places {
            let routes = match place {
                Place::Node => self.routes()?,
                Place::Flat(size) => self.flat_routes(size)?,
            };
            let cgroup = Some(place.dir(&self.cluster));
            let options = AgentOptions { routes, cgroup, ..AgentOptions::default() };
            self.agents.push((place, Agent::start_with(&self.cluster, options)?));
        }
        Ok(())
    }

    /// The client.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The header clients of the relay send.
    pub fn header(&self) -> String {
        let body = format!("Env-Id:{ENVIRONMENT}");
        let length = u8::try_from(body.len()).expect("a short name");
        hex::encode(&[b"\r\n\r\n\0\r\nQUIT\n\x01", &[length][..], body.as_bytes()].concat())
    }

    /// Where a variant's client is.
    pub fn client_cgroup(&self, variant: Variant) -> PathBuf {
        match variant {
            Variant::None | Variant::NoneAgain => self.client_pod.cgroup_dir().to_path_buf(),
            Variant::Relay => node_dir(&self.cluster, variant).join("relay"),
            Variant::Passthrough | Variant::DirectStrip | Variant::DirectPropagate | Variant::Flat(_) => {
                node_dir(&self.cluster, variant).join("direct")
            }
        }
    }

    /// Whose CPU time a variant's connections take.
    pub fn processes(&self, variant: Variant) -> Result<Vec<u32>> {
        let place = Place::of(variant);
        let (_, agent) =
            self.agents.iter().find(|(at, _)| *at == place).with_context(|| format!("no agent for {variant:?}"))?;
        Ok(vec![self.client.pid(), self.server.pid(), agent.pid()])
    }

    /// Where `count` connections of a variant go.
    pub fn targets(&self, variant: Variant, count: usize, random: &mut Random) -> Result<Vec<SocketAddr>> {
        let one = |address| Ok(vec![address; count]);
        match variant {
            Variant::None | Variant::NoneAgain | Variant::Passthrough => one(self.backend(variant)?),
            Variant::DirectStrip | Variant::Relay => one(self.strip),
            Variant::DirectPropagate => one(self.propagate),
            Variant::Flat(size) => {
                (0..count).map(|_| flat_address(random.below(usize::from(size.services)))).collect()
            }
        }
    }

    fn backend(&self, variant: Variant) -> Result<SocketAddr> {
        let port = self.ports.iter().find(|(v, _)| *v == variant).with_context(|| format!("{variant:?} is not there"))?;
        Ok(SocketAddr::new(self.server_at.into(), port.1))
    }
}
