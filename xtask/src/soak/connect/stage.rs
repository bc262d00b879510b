//! The cluster of the soak.
//!
//! | service | header | variants |
//! | --- | --- | --- |
//! | `told` | propagate | in every environment |
//! | `plain` | strip | in every environment |
//! | `half` | propagate | in every other environment; clients in the rest go to the base, with their header |
//!
//! Each variant has two endpoints, in two pods; server number n is the variant of environment n, and 0 the base.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use testbed::soak::{Plan, Progress, SoakClient, Target};
use testbed::{Agent, AgentOptions, BpfFs, Cluster, Pod, Proc, eventually, hex, leftovers_of};

/// How many environments have variants; one more client is in one that has none, number 0.
const ENVIRONMENTS: u16 = 16;
const FIRST_PORT: u16 = 7000;
const SERVICE_PORT: u16 = 80;
/// Threads of a client process.
const THREADS: usize = 2;

/// Everything that runs. Programs come first: they end before their pods.
pub struct Stage {
    agent: Agent,
    bpf: BpfFs,
    servers: Vec<Proc>,
    server_pods: [Pod; 2],
    clients: Vec<Pod>,
    services: Vec<Service>,
    cluster: Cluster,
}

struct Service {
    name: &'static str,
    propagates: bool,
    /// It has variants in the environments whose number this divides.
    every: u16,
    v4: SocketAddr,
    v6: SocketAddr,
}

impl Service {
    /// The server that connections from an environment reach.
    fn server(&self, environment: u16) -> u16 {
        if environment.is_multiple_of(self.every) { environment } else { 0 }
    }
}

impl Stage {
    /// Makes the pods and starts everything.
    pub fn build() -> Result<Self> {
        let cluster = Cluster::new("soak")?;
        let server_pods = [cluster.pod("server-a")?, cluster.pod("server-b")?];
        let clients = (0..=ENVIRONMENTS)
            .map(|n| cluster.pod(format!("client-{n}").as_str()))
            .collect::<Result<Vec<_>>>()?;
        let mut servers = Vec::new();
        for pod in &server_pods {
            let args = ["soak-server", "--first-port", &FIRST_PORT.to_string()].map(str::to_owned);
            let mut command = pod.hop(args)?;
            command.arg("--numbers").arg((ENVIRONMENTS + 1).to_string());
            let mut proc = pod.spawn("soak-server", command)?;
            proc.wait_for_port(FIRST_PORT + ENVIRONMENTS)?;
            servers.push(proc);
        }
        let service = |name, propagates, every| Service {
            name,
            propagates,
            every,
            v4: SocketAddr::new(cluster.service_addr4().into(), SERVICE_PORT),
            v6: SocketAddr::new(cluster.service_addr6().into(), SERVICE_PORT),
        };
        let services = vec![service("told", true, 1), service("plain", false, 1), service("half", true, 2)];
        control(&clients[0], &services)?;
        let bpf = BpfFs::mount(&cluster)?;
        let options = AgentOptions {
            routes: routes(&services, &server_pods, &clients),
            args: vec!["--pin-dir".to_owned(), bpf.pin_dir().display().to_string()],
            plain: true,
            ..AgentOptions::default()
        };
        let agent = Agent::start_with(&cluster, options)?;
        Ok(Self { agent, bpf, servers, server_pods, clients, services, cluster })
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Where its programs and maps are pinned.
    pub fn pin_dir(&self) -> PathBuf {
        self.bpf.pin_dir()
    }

    /// Starts a client in each pod, which make so many connections together.
    pub fn start_clients(&self, connections: u64) -> Result<Vec<SoakClient>> {
        (0..)
            .zip(&self.clients)
            .map(|(environment, pod)| SoakClient::start(pod, &self.plan(connections, environment)))
            .collect()
    }

    /// What comes of so many connections when everything is right.
    pub fn expected(&self, connections: u64) -> Progress {
        let each = (0..=ENVIRONMENTS).map(|environment| self.plan(connections, environment).expected());
        each.fold(Progress::default(), |all, one| all.plus(&one))
    }

    fn plan(&self, connections: u64, environment: u16) -> Plan {
        Plan { count: share(connections, environment), threads: THREADS, targets: self.targets(environment) }
    }

    fn targets(&self, environment: u16) -> Vec<Target> {
        let of = |service: &Service| {
            let server = service.server(environment);
            let header = if service.propagates { header(environment) } else { String::new() };
            let target = move |to, mapped| Target { to, mapped, server, header: header.clone() };
            [target(service.v4, false), target(service.v6, false), target(service.v4, true)]
        };
        self.services.iter().flat_map(of).collect()
    }

    /// Waits until the kernel holds no socket in TIME_WAIT for these pods, so long at most.
    pub fn wait_for_time_wait(&self, patience: Duration) -> Result<()> {
        let of = |pod: &Pod| pod.in_netns(time_wait)?;
        let count = || self.clients.iter().chain(&self.server_pods).map(of).sum::<Result<u64>>();
        // What cannot be counted is not gone, and says so in the end.
        if eventually(patience, || count().is_ok_and(|count| count == 0)) {
            return Ok(());
        }
        bail!("after {patience:?} there are still {} sockets in TIME_WAIT", count()?)
    }

    /// What the servers and the agent complain about.
    pub fn complaints(&self) -> Vec<String> {
        let servers = self
            .servers
            .iter()
            .flat_map(|server| server.stderr().lines().take(20).map(str::to_owned).collect::<Vec<_>>());
        let agent = self.agent.log_lines().into_iter().filter(|line| line["level"] != "INFO");
        servers.chain(agent.map(|line| format!("the agent: {line}"))).collect()
    }

    /// Removes everything, and makes sure of it.
    pub fn remove(self) -> Result<()> {
        let Self { agent, bpf, servers, cluster, .. } = self;
        let id = cluster.id();
        let status = agent.stop()?;
        ensure!(status.success(), "picop ended badly when asked to stop: {status}");
        drop((servers, bpf, cluster));
        let left = leftovers_of(id);
        ensure!(left.is_empty(), "not removed: {}", left.join(", "));
        Ok(())
    }
}

/// A client's share of connections; the first ones make up for what does not divide.
fn share(connections: u64, client: u16) -> u64 {
    let clients = u64::from(ENVIRONMENTS) + 1;
    connections / clients + u64::from(u64::from(client) < connections % clients)
}

/// Without picop no service can be reached: that connections to one arrive later is its doing.
fn control(pod: &Pod, services: &[Service]) -> Result<()> {
    for service in services {
        let target = |to| Target { to, mapped: false, server: 0, header: String::new() };
        let plan = Plan { count: 2, threads: 1, targets: vec![target(service.v4), target(service.v6)] };
        let mut client = SoakClient::start(pod, &plan)?;
        let ended = || client.progress().ok().filter(|progress| progress.ended);
        let progress = testbed::wait_until("a control's end", Duration::from_secs(30), ended)?;
        ensure!(progress.failed == 2, "{} was reached without picop: {progress:?}", service.name);
    }
    Ok(())
}

/// The header of a workload in an environment, in hexadecimal, written by hand.
fn header(environment: u16) -> String {
    let body = format!("Env-Id:{}", name(environment));
    let length = u8::try_from(body.len()).expect("a short name");
    hex::encode(&[b"\r\n\r\n\0\r\nQUIT\n\x01", &[length][..], body.as_bytes()].concat())
}

fn name(environment: u16) -> String {
    format!("pr-{environment}")
}

fn routes(services: &[Service], servers: &[Pod], clients: &[Pod]) -> String {
    let endpoints = |number: u16| {
        let of = |pod: &Pod| {
            let port = FIRST_PORT + number;
            format!("\"{}\", \"{}\"", pod.at4(port), pod.at6(port))
        };
        format!("[{}]", servers.iter().map(of).collect::<Vec<_>>().join(", "))
    };
    let service = |service: &Service| {
        let Service { name: service_name, propagates, v4, v6, .. } = service;
        let header = if *propagates { "propagate" } else { "strip" };
        let in_it = (1..=ENVIRONMENTS).filter(|n| service.server(*n) == *n);
        let variants: Vec<_> = in_it.map(|n| format!("{}: {}", name(n), endpoints(n))).collect();
        format!(
            "  - {{name: {service_name}, addresses: [\"{v4}\", \"{v6}\"], header: {header}, base: {}, variants: {{{}}}}}\n",
            endpoints(0),
            variants.join(", ")
        )
    };
    let workload = |(environment, pod): (u16, &Pod)| {
        format!("  - {{cgroup: {}, environment: {}}}\n", pod.cgroup_path_rel(), name(environment))
    };
    let services: String = services.iter().map(service).collect();
    let workloads: String = (0..).zip(clients).map(workload).collect();
    format!("services:\n{services}workloads:\n{workloads}")
}

/// Sockets in TIME_WAIT in this network namespace.
fn time_wait() -> Result<u64> {
    // Of the thread's namespace, not of the process's.
    let path = "/proc/thread-self/net/sockstat";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    parse_time_wait(&text).with_context(|| format!("{path} does not count them"))
}

fn parse_time_wait(sockstat: &str) -> Option<u64> {
    let tcp = sockstat.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let mut words = tcp.split_ascii_whitespace();
    words.find(|word| *word == "tw")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for connections in [1, 16, 17, 18, 1_000_000] {
            let sum: u64 = (0..=ENVIRONMENTS).map(|client| share(connections, client)).sum();
            assert_eq!(sum, connections);
        }
    }

    #[test]
    fn sockets_in_time_wait() {
        let text = "sockets: used 17\nTCP: inuse 1 orphan 0 tw 42 alloc 3 mem 0\nUDP: inuse 0 mem 0\n";
        assert_eq!(parse_time_wait(text), Some(42));
        assert_eq!(parse_time_wait("UDP: inuse 0"), None);
    }
}
