//! The cluster the requests are made in: a pod for the client, one for the gateways, one for the server.
//!
//! The server has a listener for each environment, and one more, where the environment is in a PiCoP header: behind picop, and
//! nowhere else. nginx and Envoy route to the former by host. Every answer tells its environment.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use testbed::{Cluster, Pod, PodSpec, Proc, leftovers_of, picop_bin};

use super::super::cpu::{self, Usage};
use super::super::load::{Client, Closed, Host, Place, Server, Web, WebListener};
use super::super::machine;
use super::super::peer::{Peer, Program};
use super::configuration::{self, Route};
use super::{How, Job, Variant};

/// Environments.
const HOSTS: u16 = 8;
/// The server's first port: one for each environment, and then that of picop's.
const FIRST_PORT: u16 = 7000;
const NGINX: u16 = 8500;
const NGINX_HTTP2: u16 = 8501;
const ENVOY: u16 = 8502;
const PICOP: u16 = 8503;
const FLOOR: u16 = 8504;
const BEFORE: u16 = 8505;
/// What picop's listener would answer to a connection without a header.
const NONE: &str = "none";

/// The programs picop is compared with.
pub struct Peers {
    pub nginx: Program,
    pub envoy: Option<Program>,
}

/// Everything that runs. Programs come first: they end before their pods.
pub struct Stage {
    client: Client,
    server: Server,
    peers: Vec<(Variant, Peer)>,
    picop: Option<(Proc, Vec<String>)>,
    before: Option<(Proc, Vec<String>)>,
    floor: Option<Proc>,
    /// What clients ask for, and what is answered.
    hosts: Vec<Host>,
    client_pod: Pod,
    gateway_pod: Pod,
    server_pod: Pod,
    cluster: Cluster,
}

/// One variant's turn.
#[derive(Debug)]
pub struct Turn {
    pub met: Closed,
    /// CPU time of what is between; 0 if that is nothing.
    pub gateway_ns: u64,
    pub server_ns: u64,
    pub client_ns: u64,
}

impl Stage {
    /// Makes the pods and starts everything.
    pub fn build(
        variants: &[Variant],
        peers: &Peers,
        before: Option<&Path>,
        descriptors: u64,
        access_lines: bool,
    ) -> Result<Self> {
        let cluster = Cluster::new("bench")?;
        let pod = |name: &str| -> Result<Pod> {
            let pod = cluster.pod(PodSpec::new(name).cgroup(format!("outside/{name}")))?;
            pod.in_netns(machine::many_ports).context("entering a pod's namespace")??;
            Ok(pod)
        };
        let (client_pod, gateway_pod, server_pod) = (pod("client")?, pod("gateway")?, pod("server")?);
        let routes: Vec<_> = (0..HOSTS)
            .map(|n| Route { environment: format!("pr-{n}"), server: server_pod.at4(FIRST_PORT + n) })
            .collect();
        let picops = server_pod.at4(FIRST_PORT + HOSTS);
        let place = Place { cpu: machine::cpus() - 1, urgent: false };
        let listeners = routes.iter().map(|route| (route.environment.as_str(), route.server));
        let cgroup = server_pod.cgroup_dir().to_path_buf();
        let listeners: Vec<_> = listeners
            .chain([(NONE, picops)])
            .map(|(name, address)| WebListener { name: name.to_owned(), cgroup: cgroup.clone(), address })
            .collect();
        let server = Server::start_web(&cluster, &server_pod, place, &listeners)?;
        let client = Client::start(&cluster, &client_pod, place)?;
        let at = |port| gateway_pod.at4(port);
        let mut running = Vec::new();
        if variants.contains(&Variant::Nginx) {
            let peer = on_its_cpu(|| {
                Peer::start(&peers.nginx, &cluster, &gateway_pod, "nginx", NGINX, |directory| {
                    configuration::nginx(at(NGINX), at(NGINX_HTTP2), &routes, directory, descriptors)
                })
            })?;
            running.push((Variant::Nginx, peer));
        }
        if let Some(envoy) = &peers.envoy {
            let configuration = configuration::envoy(at(ENVOY), &routes);
            let peer =
                on_its_cpu(|| Peer::start(envoy, &cluster, &gateway_pod, "envoy", ENVOY, |_| configuration))?;
            running.push((Variant::Envoy, peer));
        }
        let picop = variants
            .contains(&Variant::Picop)
            .then(|| on_its_cpu(|| start_picop(&picop_bin()?, &gateway_pod, at(PICOP), picops, access_lines)))
            .transpose()?;
        let before = before
            .map(|before| on_its_cpu(|| start_picop(before, &gateway_pod, at(BEFORE), picops, access_lines)))
            .transpose()?;
        let to = server_pod.at4(FIRST_PORT).to_string();
        let floor = variants
            .contains(&Variant::HyperFloor)
            .then(|| on_its_cpu(|| gateway_pod.serve("bench-gateway", at(FLOOR), ["--to", &to])))
            .transpose()?;
        let hosts = routes.iter().map(|route| Host::of(&route.host(), &route.environment)).collect();
        Ok(Self {
            client,
            server,
            peers: running,
            picop,
            before,
            floor,
            hosts,
            client_pod,
            gateway_pod,
            server_pod,
            cluster,
        })
    }

    /// Takes a turn.
    pub fn take(&mut self, variant: Variant, job: Job) -> Result<Turn> {
        let gateway = self.gateway(variant)?;
        let web = Web {
            cgroup: self.client_pod.cgroup_dir(),
            to: self.address(variant, job.how),
            // Where nothing routes there is one server, of the first environment.
            hosts: match variant {
                Variant::None | Variant::HyperFloor => &self.hosts[..1],
                _ => &self.hosts,
            },
            how: job.how,
            connections: job.connections,
            streams: job.streams,
            requests: job.requests,
        };
        let (server, client) = ([self.server.pid()], [self.client.pid()]);
        let before = (Usage::of(&gateway)?, Usage::of(&server)?, Usage::of(&client)?);
        let met = self.client.web(&web)?;
        ensure!(met.whole.len() == job.requests, "{} of {} requests", met.whole.len(), job.requests);
        Ok(Turn {
            met,
            gateway_ns: Usage::of(&gateway)?.since(&before.0),
            server_ns: Usage::of(&server)?.since(&before.1),
            client_ns: Usage::of(&client)?.since(&before.2),
        })
    }

    fn address(&self, variant: Variant, how: How) -> SocketAddr {
        match (variant, how) {
            (Variant::None, _) => self.server_pod.at4(FIRST_PORT),
            (Variant::Nginx | Variant::NginxAgain, How::Http2) => self.gateway_pod.at4(NGINX_HTTP2),
            (Variant::Nginx | Variant::NginxAgain, _) => self.gateway_pod.at4(NGINX),
            (Variant::Envoy, _) => self.gateway_pod.at4(ENVOY),
            (Variant::Picop, _) => self.gateway_pod.at4(PICOP),
            (Variant::PicopBefore, _) => self.gateway_pod.at4(BEFORE),
            (Variant::HyperFloor, _) => self.gateway_pod.at4(FLOOR),
        }
    }

    /// The processes of what is between.
    fn gateway(&self, variant: Variant) -> Result<Vec<u32>> {
        let own = if variant == Variant::NginxAgain { Variant::Nginx } else { variant };
        if let (Variant::Picop, Some((picop, _))) = (variant, &self.picop) {
            return cpu::family(picop.pid());
        }
        if let (Variant::PicopBefore, Some((before, _))) = (variant, &self.before) {
            return cpu::family(before.pid());
        }
        if let (Variant::HyperFloor, Some(floor)) = (variant, &self.floor) {
            return cpu::family(floor.pid());
        }
        let peer = self.peers.iter().find(|(of, _)| *of == own);
        peer.map_or(Ok(Vec::new()), |(_, peer)| cpu::family(peer.proc.pid()))
    }

    /// How many hosts are asked for.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Versions and configurations.
    pub fn programs(&self) -> Map<String, Value> {
        let peers = self.peers.iter().map(|(variant, peer)| {
            (variant.name(), json!({ "version": peer.version, "configuration": peer.configuration }))
        });
        let picop = self.picop.iter().map(|(_, arguments)| {
            (Variant::Picop.name(), json!({ "version": "this", "configuration": arguments.join(" ") }))
        });
        peers.chain(picop).map(|(name, what)| (name.to_owned(), what)).collect()
    }

    /// That headers came where they should and nowhere else, and that nothing was refused. Then removes everything.
    pub fn finish(mut self) -> Result<()> {
        for (port, served) in self.server.served()? {
            ensure!(served.bad == 0, "port {port}: {served:?}");
            let is_picops = port == FIRST_PORT + HOSTS;
            let (right, wrong) = if is_picops {
                (served.with_header, served.without)
            } else {
                (served.without, served.with_header)
            };
            ensure!(wrong == 0, "port {port}: {served:?}");
            ensure!(right > 0 || !is_picops || self.picop.is_none(), "port {port}: {served:?}");
        }
        let Self {
            client,
            server,
            peers,
            picop,
            before,
            floor,
            cluster,
            client_pod,
            gateway_pod,
            server_pod,
            ..
        } = self;
        let id = cluster.id();
        drop((client, server, peers, picop, before, floor));
        drop((client_pod, gateway_pod, server_pod));
        drop(cluster);
        let left = leftovers_of(id);
        ensure!(left.is_empty(), "not removed: {}", left.join(", "));
        Ok(())
    }
}

/// Starts a program on the first CPU, where it stays: the client and the server have the last one.
fn on_its_cpu<T>(start: impl FnOnce() -> Result<T>) -> Result<T> {
    machine::on_one_cpu(start)?
}

fn start_picop(
    program: &Path,
    pod: &Pod,
    listen: SocketAddr,
    server: SocketAddr,
    lines: bool,
) -> Result<(Proc, Vec<String>)> {
    let log = if lines { "info" } else { "info,access=off" };
    let arguments = ["gateway", "http", "--listen", &listen.to_string(), "--upstream", &server.to_string()];
    let arguments = arguments.into_iter().chain(["--host-pattern"]).map(str::to_owned);
    let arguments = arguments.chain([configuration::host_pattern(), "--log".to_owned(), log.to_owned()]);
    let arguments: Vec<_> = arguments.collect();
    let mut command = pod.command(program)?;
    command.args(&arguments);
    let mut proc = pod.spawn("picop", command)?;
    proc.wait_for_port(listen.port())?;
    Ok((proc, arguments))
}
