//! The cluster the requests are made in.
//!
//! ```text
//! <cluster>/             nothing attached
//!   outside/client       the client, of all but picop's variants; HAProxy and Envoy
//!   outside/server       nginx, of all but picop's variants; the Envoys of services
//!   node/                the agent is attached here
//!     server             nginx, of picop's variants
//!     direct, relay      the client, of picop's variants
//! ```
//!
//! HAProxy and Envoy listen on the loopback address of the client's pod, as picop does; an Envoy of a service's own is in the
//! server's pod. Each service of each variant has a port of its own, which its answers tell.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use testbed::{Agent, AgentOptions, BpfFs, Cluster, Ledger, Pod, PodSpec, leftovers_of};

use super::super::cpu::{self, Usage};
use super::super::load::{self, Client, Pace, Place};
use super::super::machine;
use super::super::paced::Turn;
use super::super::peer::{Kind, Peer, Program, connections};
use super::configuration::{self, Service, body, request};
use super::variant::Variant;
use crate::memory::{Memory, Sizes};

/// nginx's first port. Each variant has the next hundred.
const FIRST_PORT: u16 = 7000;
/// The proxies', in the same way.
const FIRST_LISTEN: u16 = 8500;
const PER_VARIANT: u16 = 100;
const SERVICE_PORT: u16 = 80;
/// As in the talk.
const ENVIRONMENT: &str = "main";
/// Room for all that a suite has open at a time.
const MAX_CONNECTIONS: &str = "40000";

/// What to make it of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub variants: Vec<Variant>,
    pub services: u16,
    pub programs: Vec<(Kind, Program)>,
    /// Of each program.
    pub descriptors: u64,
}

/// What to do in a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    pub rate: f64,
    pub requests: u64,
    pub clients: usize,
    pub keep_alive: bool,
    pub at_once: bool,
}

/// Everything that runs. Programs come first: they end before their pods.
pub struct Stage {
    client: Client,
    servers: Vec<Peer>,
    proxies: Vec<(Variant, Peer)>,
    agent: Option<(Agent, Ledger)>,
    bpf: BpfFs,
    ways: Vec<Way>,
    cluster: Cluster,
}

/// How a variant's requests are made.
struct Way {
    variant: Variant,
    cgroup: PathBuf,
    /// Of each service, and what it answers.
    targets: Vec<(SocketAddr, String)>,
    /// Connections so far: at least, and at most.
    made: (u64, u64),
}

impl Stage {
    /// Makes the pods and starts everything.
    pub fn build(plan: &Plan) -> Result<Self> {
        ensure!(plan.services > 0 && plan.services <= PER_VARIANT, "{} services", plan.services);
        let cluster = Cluster::new("bench")?;
        let bpf = BpfFs::mount(&cluster)?;
        let client_pod = cluster.pod(PodSpec::new("client").cgroup("outside/client"))?;
        let outside = cluster.pod(PodSpec::new("server").cgroup("outside/server"))?;
        let inside = cluster.pod(PodSpec::new("served").cgroup("node/server"))?;
        client_pod.in_netns(machine::many_ports).context("entering the client's namespace")??;
        outside.in_netns(machine::many_ports).context("entering the server's namespace")??;
        let node = cluster.cgroup_dir().join("node");
        for workload in ["direct", "relay"] {
            let dir = node.join(workload);
            fs::create_dir_all(&dir).with_context(|| format!("creating cgroup {}", dir.display()))?;
        }
        let places: Vec<_> = (0..)
            .zip(&plan.variants)
            .map(|(number, variant)| Places::of(number, *variant, plan.services))
            .collect();
        let servers = start_servers(plan, &places, &cluster, [&outside, &inside])?;
        let mut proxies = Vec::new();
        let mut services = Vec::new();
        let mut ways = Vec::new();
        for Places { variant, servers: ports, listen } in &places {
            let cgroup = variant
                .workload()
                .map_or_else(|| client_pod.cgroup_dir().to_path_buf(), |name| node.join(name));
            let mut targets = Vec::new();
            for (port, listen) in ports.iter().zip(listen) {
                let server = if variant.is_picop() { inside.at4(*port) } else { outside.at4(*port) };
                let to = if variant.is_picop() {
                    let address = SocketAddr::new(cluster.service_addr4().into(), SERVICE_PORT);
                    let name = format!("{}-{port}", variant.name());
                    services.push(Service { name, address, server, graft: *variant == Variant::Graft });
                    address
                } else if let Some(kind) = variant.proxy() {
                    let (pod, at) = match variant {
                        Variant::Sidecars => (&outside, outside.at4(*listen)),
                        _ => (&client_pod, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *listen)),
                    };
                    let peer = start_proxy(plan, kind, &cluster, pod, at, server)?;
                    proxies.push((*variant, peer));
                    at
                } else {
                    server
                };
                targets.push((to, body(*port)));
            }
            ways.push(Way { variant: *variant, cgroup, targets, made: (0, 0) });
        }
        // Nobody is ahead of the proxies, which are not told where to run.
        let client = Client::start(&cluster, &client_pod, Place { cpu: machine::cpus() - 1, urgent: false })?;
        let mut stage = Self { client, servers, proxies, agent: None, bpf, ways, cluster };
        if !services.is_empty() {
            stage.start_agent(&services, &client_pod, node)?;
        }
        Ok(stage)
    }

    fn start_agent(&mut self, services: &[Service], client: &Pod, node: PathBuf) -> Result<()> {
        let cgroup = |name: &str| format!("{}/node/{name}", self.cluster.id());
        let environment = format!("environment: {ENVIRONMENT}");
        let workloads = [(cgroup("direct"), &*environment), (cgroup("relay"), "context: header")];
        let routes = configuration::routes(services, &workloads, client.netns_path(), ENVIRONMENT);
        let pins = self.bpf.pin_dir();
        let args =
            ["--max-connections-per-workload", MAX_CONNECTIONS, "--log", "info,access=off", "--pin-dir"];
        let mut args: Vec<_> = args.map(str::to_owned).into();
        args.push(pins.display().to_string());
        let options =
            AgentOptions { routes, cgroup: Some(node), args, plain: true, ..AgentOptions::default() };
        // One worker, as the others: it makes as many as there are CPUs for it when it starts.
        let agent = machine::on_one_cpu(|| Agent::start_with(&self.cluster, options))??;
        cpu::family(agent.pid())?.into_iter().try_for_each(machine::onto_all_cpus)?;
        let ledger = Ledger::at_rest(&pins)?;
        self.agent = Some((agent, ledger));
        Ok(())
    }

    /// Takes a turn.
    pub fn take(&mut self, variant: Variant, job: Job) -> Result<Turn> {
        let proxies = self.proxies(variant)?;
        let mut servers = Vec::new();
        for server in &self.servers {
            servers.extend(cpu::family(server.proc.pid())?);
        }
        let all = [&[self.client.pid()], &*servers, &*proxies].concat();
        let way = self.ways.iter_mut().find(|way| way.variant == variant);
        let way = way.with_context(|| format!("{} is not on stage", variant.name()))?;
        let Job { rate, requests, clients, keep_alive, at_once } = job;
        let header = if variant.sends_header() { load::header(ENVIRONMENT) } else { String::new() };
        let pace = Pace {
            cgroup: &way.cgroup,
            header: &header,
            targets: &way.targets,
            rate,
            requests,
            clients,
            keep_alive,
            at_once,
            request: &request(ENVIRONMENT, keep_alive),
        };
        let (before, proxy_before, server_before) =
            (Usage::read(&all)?, Usage::of(&proxies)?, Usage::of(&servers)?);
        let met = self.client.paced(&pace).with_context(|| format!("variant {}", variant.name()))?;
        let proxy_ns = Usage::of(&proxies)?.since(&proxy_before);
        let server_ns = Usage::of(&servers)?.since(&server_before);
        let cpu_ns = Usage::read(&all)?.since(&before);
        let least = if keep_alive { 0 } else { met.whole.len() as u64 };
        let most = if keep_alive { 0 } else { requests };
        way.made = (way.made.0 + clients as u64 + least, way.made.1 + clients as u64 + most);
        Ok(Turn { met, cpu_ns, proxy_ns, server_ns })
    }

    /// The processes of a variant between client and server.
    fn proxies(&self, variant: Variant) -> Result<Vec<u32>> {
        if variant.is_picop() {
            return cpu::family(self.agent()?.pid());
        }
        let own = self.proxies.iter().filter(|(of, _)| *of == variant);
        own.map(|(_, peer)| cpu::family(peer.proc.pid())).collect::<Result<Vec<_>>>().map(|all| all.concat())
    }

    /// The agent.
    pub fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().map(|(agent, _)| agent).context("picop does not run")
    }

    /// The memory of what is between, and of the agent's maps, in bytes.
    pub fn memory(&self, variant: Variant) -> Result<(Sizes, u64)> {
        let sizes = Sizes::of(&self.proxies(variant)?)?;
        let maps = if variant.is_picop() { Memory::read(self.agent()?)?.maps * 1024 } else { 0 };
        Ok((sizes, maps))
    }

    /// CPU nanoseconds that what is between takes while nobody asks for anything, in so long a time.
    pub fn idle(&self, variant: Variant, time: std::time::Duration) -> Result<u64> {
        let proxies = self.proxies(variant)?;
        let before = Usage::of(&proxies)?;
        std::thread::sleep(time);
        Ok(Usage::of(&proxies)?.since(&before))
    }

    /// Versions and configurations of all programs, by name; of those that are alike, the first one's.
    pub fn programs(&self) -> serde_json::Map<String, serde_json::Value> {
        let servers = self.servers.iter().map(|peer| ("nginx", peer));
        let proxies = self.proxies.iter().map(|(variant, peer)| (variant.name(), peer));
        let mut programs = serde_json::Map::new();
        for (name, peer) in servers.chain(proxies) {
            programs.entry(name).or_insert_with(
                || serde_json::json!({ "version": peer.version, "configuration": peer.configuration }),
            );
        }
        programs
    }

    /// That picop's connections took the paths they are named after. (Where they arrived, each answer has told.)
    fn check(&self) -> Result<()> {
        let Some((_, before)) = &self.agent else { return Ok(()) };
        let after = Ledger::at_rest(&self.bpf.pin_dir())?;
        let counted = |reason: &str| {
            let of = |ledger: &Ledger| ledger.connections.get(reason).copied().unwrap_or(0);
            of(&after) - of(before)
        };
        let made = |variants: &[Variant]| {
            let own = self.ways.iter().filter(|way| variants.contains(&way.variant));
            own.fold((0, 0), |(least, most), way| (least + way.made.0, most + way.made.1))
        };
        for (reason, variants) in
            [("variant", &[Variant::Direct][..]), ("relay_header", &[Variant::Relay, Variant::Graft])]
        {
            let ((least, most), found) = (made(variants), counted(reason));
            ensure!(
                (least..=most).contains(&found),
                "{found} connections were counted as `{reason}`, and {least} to {most} were made"
            );
        }
        let grafted = after.events_since(before, "graft_client");
        let asked = made(&[Variant::Graft]).0 > 0;
        ensure!((grafted > 0) == asked, "{grafted} connections were grafted, and to be grafted: {asked}");
        Ok(())
    }

    /// Checks, and removes everything, and makes sure of it.
    pub fn finish(self) -> Result<()> {
        self.check()?;
        let Self { client, servers, proxies, agent, bpf, cluster, .. } = self;
        let id = cluster.id();
        drop((client, servers, proxies));
        if let Some((agent, _)) = agent {
            let status = agent.stop()?;
            ensure!(status.success(), "picop ended badly when asked to stop: {status}");
        }
        drop(bpf);
        drop(cluster);
        let left = leftovers_of(id);
        ensure!(left.is_empty(), "not removed: {}", left.join(", "));
        Ok(())
    }
}

/// A variant's ports.
struct Places {
    variant: Variant,
    /// nginx's, one for each service.
    servers: Vec<u16>,
    /// The proxies'.
    listen: Vec<u16>,
}

impl Places {
    fn of(number: u16, variant: Variant, services: u16) -> Self {
        let from = |first: u16| (0..services).map(|n| first + number * PER_VARIANT + n).collect();
        Self { variant, servers: from(FIRST_PORT), listen: from(FIRST_LISTEN) }
    }
}

/// nginx outside and inside of where the agent is attached: a socket belongs to the cgroup it was made in, and the
/// yardstick's is to meet no program.
fn start_servers(plan: &Plan, places: &[Places], cluster: &Cluster, pods: [&Pod; 2]) -> Result<Vec<Peer>> {
    let program = program(plan, Kind::Nginx)?;
    let files = cluster.dir().join("files");
    let mut servers = Vec::new();
    for (pod, inside) in pods.into_iter().zip([false, true]) {
        let own = places.iter().filter(|places| places.variant.is_picop() == inside);
        let ports: Vec<_> = own.flat_map(|places| places.servers.iter().copied()).collect();
        let Some(first) = ports.first() else { continue };
        configuration::write_bodies(&files, ports.iter().copied())?;
        let listen: Vec<_> = ports.iter().map(|port| pod.at4(*port)).collect();
        let name = format!("nginx-{}", pod.name());
        servers.push(Peer::start(program, cluster, pod, &name, *first, |directory| {
            configuration::nginx(&listen, &files, directory, plan.descriptors)
        })?);
    }
    Ok(servers)
}

fn start_proxy(
    plan: &Plan,
    kind: Kind,
    cluster: &Cluster,
    pod: &Pod,
    listen: SocketAddr,
    server: SocketAddr,
) -> Result<Peer> {
    let name = format!("{kind:?}-{}", listen.port()).to_lowercase();
    Peer::start(program(plan, kind)?, cluster, pod, &name, listen.port(), |_| match kind {
        Kind::Haproxy => configuration::haproxy(listen, server, ENVIRONMENT, connections(plan.descriptors)),
        Kind::Envoy | Kind::Nginx => configuration::envoy(listen, server, ENVIRONMENT),
    })
}

fn program(plan: &Plan, kind: Kind) -> Result<&Program> {
    let found = plan.programs.iter().find(|(of, _)| *of == kind);
    found.map(|(_, program)| program).with_context(|| format!("{kind:?} is not installed"))
}
