//! Tables of several sizes, each in an agent of its own, all at the same time: their turns alternate.
//!
//! ```text
//! <cluster>/
//!   server               the server; each table has two ports there
//!   <table>/             an agent is attached here
//!     direct             workload of environment `bench-0`
//!     relay              workload that sends that in a header
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use testbed::{Agent, AgentOptions, Cluster, Pod, PodSpec, leftovers_of};

use super::super::connect::stage::routes::{self, ENVIRONMENT};
use super::super::connect::variant::Size;
use super::super::load::{self, Client, Place, Serve, Server, Way};
use super::super::machine;
use super::super::progress::Progress;
use super::super::report::Measured;
use super::super::stats::Random;
use super::{Loaded, Path, TURN, Timing, WARM_UP, turn};
use crate::memory::Memory;

/// The server's first port.
const FIRST_PORT: u16 = 7000;
const SERVICE_PORT: u16 = 80;
const PATHS: [Path; 2] = [Path::Direct, Path::Relay];

/// A table and its agent.
struct Table {
    size: Size,
    agent: Agent,
    cgroup: PathBuf,
    /// Where all of it leads, and where one service leads for a change.
    servers: [SocketAddr; 2],
    workloads: String,
    /// The agent's memory when it had read the file once.
    memory: Memory,
}

struct Stage {
    client: Client,
    server: Server,
    tables: Vec<Table>,
    cluster: Cluster,
}

/// Measures all sizes; says how much CPU time that took.
pub fn measure(sizes: &[Size], rounds: usize, updates: usize) -> Result<(Vec<Loaded>, u64)> {
    let mut stage = Stage::build(sizes)?;
    let mut random = Random::new(1);
    let mut order: Vec<_> = (0..sizes.len()).flat_map(|at| PATHS.map(|path| (at, path))).collect();
    let mut measured: BTreeMap<_, _> =
        order.iter().map(|(at, path)| ((*at, *path), Measured::new(path.name().to_owned()))).collect();
    let mut progress = Progress::new(rounds * order.len());
    let mut own_ns = 0;
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for (at, path) in &order {
            let round = stage.turn(*at, *path, &mut random)?;
            own_ns += round.cpu_ns;
            measured.get_mut(&(*at, *path)).context("unknown")?.add(round);
            progress.step();
        }
    }
    let mut loaded = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        let mut timings = BTreeMap::new();
        for path in PATHS {
            timings.insert(path, Timing::of(&measured[&(at, path)], &measured[&(0, path)])?);
        }
        let (updates_ms, file_bytes) = stage.updates(at, updates)?;
        let memory = &stage.tables[at].memory;
        loaded.push(Loaded {
            services: size.services,
            environments: size.environments,
            timings,
            agent_rss_kb: memory.agent_rss,
            maps_kb: memory.maps,
            file_bytes,
            updates_ms,
        });
    }
    stage.remove()?;
    Ok((loaded, own_ns))
}

impl Stage {
    fn build(sizes: &[Size]) -> Result<Self> {
        let cluster = Cluster::new("bench")?;
        let client_pod = cluster.pod(PodSpec::new("client"))?;
        let server_pod = cluster.pod(PodSpec::new("server"))?;
        client_pod.in_netns(machine::many_ports).context("entering the client's namespace")??;
        let ports = FIRST_PORT..FIRST_PORT + 2 * u16::try_from(sizes.len())?;
        let listeners: Vec<_> =
            ports.map(|port| (server_pod.cgroup_dir().to_path_buf(), server_pod.at4(port))).collect();
        let cpus = machine::cpus();
        let place = |cpu| Place { cpu, urgent: false };
        let server =
            Server::start(&cluster, &server_pod, place(cpus.saturating_sub(2)), Serve::Many, &listeners)?;
        let client = Client::start(&cluster, &client_pod, place(cpus - 1))?;
        let mut tables = Vec::new();
        for (size, ports) in sizes.iter().zip(listeners.chunks_exact(2)) {
            let servers = [ports[0].1, ports[1].1];
            tables.push(Table::start(&cluster, &client_pod, *size, servers)?);
        }
        Ok(Self { client, server, tables, cluster })
    }

    fn turn(&mut self, at: usize, path: Path, random: &mut Random) -> Result<super::super::report::Round> {
        let table = &self.tables[at];
        let services = usize::from(table.size.services);
        let to: Vec<_> = (0..TURN + WARM_UP).map(|_| address(random.below(services))).collect();
        let processes = [self.client.pid(), self.server.pid(), table.agent.pid()];
        let way = table.way(path, 0);
        let taken = turn(&mut self.client, &way, &to, &processes);
        taken.with_context(|| format!("{} with {} routes", path.name(), table.size.variants()))
    }

    /// Moves the first service to and fro; how many milliseconds each took, and the file's size.
    fn updates(&mut self, at: usize, count: usize) -> Result<(Vec<f64>, u64)> {
        let Self { client, tables, .. } = self;
        let table = &tables[at];
        let mut took = Vec::new();
        for number in 0..count {
            let to = (number + 1) % 2;
            let yaml = table.routes(table.servers[to]);
            let way = table.way(Path::Direct, to);
            let (reached, written) = client
                .until(&way, || {
                    table.agent.write_routes(&yaml)?;
                    now()
                })
                .with_context(|| format!("an update of {} routes", table.size.variants()))?;
            ensure!(reached.before > 0, "the change had an effect before it was made");
            #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
            took.push(reached.began.saturating_sub(written) as f64 / 1e6);
        }
        let bytes = fs::metadata(table.agent.routes_path()).context("the route file")?.len();
        Ok((took, bytes))
    }

    fn remove(self) -> Result<()> {
        let Self { client, server, tables, cluster } = self;
        let id = cluster.id();
        drop((client, server));
        for table in tables {
            let status = table.agent.stop()?;
            ensure!(status.success(), "picop ended badly when asked to stop: {status}");
        }
        drop(cluster);
        let left = leftovers_of(id);
        ensure!(left.is_empty(), "not removed: {}", left.join(", "));
        Ok(())
    }
}

impl Table {
    fn start(cluster: &Cluster, client: &Pod, size: Size, servers: [SocketAddr; 2]) -> Result<Self> {
        let name = format!("table-{}", servers[0].port());
        let cgroup = cluster.cgroup_dir().join(&name);
        for workload in PATHS {
            let dir = cgroup.join(workload.name());
            fs::create_dir_all(&dir).with_context(|| format!("creating cgroup {}", dir.display()))?;
        }
        let workloads = routes::workloads(&format!("{}/{name}", cluster.id()), client);
        let yaml = routes_of(size, servers[0], servers[0], &workloads);
        let args = vec!["--log".to_owned(), "info,access=off".to_owned()];
        let options = AgentOptions {
            routes: yaml,
            cgroup: Some(cgroup.clone()),
            args,
            plain: true,
            ..AgentOptions::default()
        };
        let agent = Agent::start_with(cluster, options)
            .with_context(|| format!("an agent with {} routes", size.variants()))?;
        let memory = Memory::read(&agent)?;
        Ok(Self { size, agent, cgroup, servers, workloads, memory })
    }

    fn routes(&self, first: SocketAddr) -> String {
        routes_of(self.size, self.servers[0], first, &self.workloads)
    }

    fn way(&self, path: Path, server: usize) -> Way {
        let header = if path == Path::Relay { load::header(ENVIRONMENT) } else { String::new() };
        Way {
            cgroup: self.cgroup.join(path.name()),
            to: address(0),
            header,
            port: self.servers[server].port(),
        }
    }
}

/// All services lead to one server, but the first one may lead elsewhere.
fn routes_of(size: Size, server: SocketAddr, first: SocketAddr, workloads: &str) -> String {
    let all = routes::many_services(size, server);
    // The first one's variant of the workloads' environment is the first that is written.
    let entry = |server: SocketAddr| format!("      {ENVIRONMENT}: [\"{server}\"]\n");
    all.replacen(&entry(server), &entry(first), 1) + workloads
}

fn address(service: usize) -> SocketAddr {
    SocketAddr::new(routes::address(service), SERVICE_PORT)
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::Monotonic);
    Ok(u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_service_moves() {
        let size = Size { services: 3, environments: 2 };
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (here, there) = (at("10.244.0.3:7000"), at("10.244.0.3:7001"));
        let text = routes_of(size, here, there, "workloads: []\n");
        assert_eq!(text.matches("10.244.0.3:7001").count(), 1);
        assert_eq!(text.matches("10.244.0.3:7000").count(), 5);
        assert!(text.find("7001") < text.find("7000"), "{text}");
        assert_eq!(routes_of(size, here, here, "").matches("10.244.0.3:7000").count(), 6);
    }
}
