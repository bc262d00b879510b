//! The proxies that users have instead: each with one worker, and otherwise as its package's defaults are, but for limits
//! that ten thousand connections would meet. None writes a line for each connection.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testbed::{Cluster, Pod, Proc};

use super::variant::Variant;
use crate::setup::{self, NGINX_STREAM};
use crate::{exec, workspace};

/// Enough for any of the programs.
const DESCRIPTORS: u64 = 65_536;

/// A peer that is here.
#[derive(Clone, Debug)]
pub struct Program {
    pub variant: Variant,
    path: PathBuf,
    /// As it says itself.
    pub version: String,
}

impl Program {
    /// Finds it; installs it if it is missing.
    pub fn find(variant: Variant) -> Result<Self> {
        let on_path = |name: &str| workspace::program(name).with_context(|| format!("there is no {name}"));
        let (path, option) = match variant {
            Variant::NginxStream => {
                setup::ensure_peer(setup::Peer::NginxStream)?;
                (on_path("nginx")?, "-v")
            }
            Variant::Haproxy | Variant::HaproxySplice => {
                setup::ensure_peer(setup::Peer::Haproxy)?;
                (on_path("haproxy")?, "-v")
            }
            Variant::Envoy => (setup::ensure_envoy()?, "--version"),
            Variant::None | Variant::NoneAgain | Variant::Relay | Variant::Graft => {
                bail!("{} is no peer", variant.name())
            }
        };
        let mut ask = Command::new(&path);
        // nginx says it on standard error.
        let said = ask.arg(option).output().with_context(|| format!("cannot start {}", path.display()))?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let version = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let version = version.replace(&*path.to_string_lossy(), "");
        let version = version.trim_start().trim_start_matches("version:");
        Ok(Self { variant, path, version: version.trim().to_owned() })
    }
}

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    pub variant: Variant,
    pub proc: Proc,
    pub version: String,
    /// Its whole configuration.
    pub configuration: String,
    /// HAProxy's socket for questions.
    stats: Option<PathBuf>,
}

impl Peer {
    /// Starts it in a pod, to listen there and connect on to the server.
    pub fn start(
        program: &Program,
        cluster: &Cluster,
        pod: &Pod,
        listen: SocketAddr,
        server: SocketAddr,
        descriptors: u64,
    ) -> Result<Self> {
        let Program { variant, path, version } = program;
        let name = variant.name();
        let directory = cluster.dir().join(name);
        fs::create_dir(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let file = directory.join("configuration");
        let stats =
            matches!(variant, Variant::Haproxy | Variant::HaproxySplice).then(|| directory.join("stats"));
        let configuration = match variant {
            Variant::NginxStream => nginx(listen, server, &directory, descriptors),
            Variant::Envoy => envoy(listen, server),
            _ => haproxy(
                listen,
                server,
                *variant == Variant::HaproxySplice,
                &directory.join("stats"),
                descriptors,
            ),
        };
        let file = if *variant == Variant::Envoy { file.with_extension("yaml") } else { file };
        fs::write(&file, &configuration).with_context(|| format!("writing {}", file.display()))?;
        let mut command = pod.command(path)?;
        match variant {
            Variant::NginxStream => command.args(["-e", "stderr", "-p"]).arg(&directory).arg("-c").arg(&file),
            Variant::Envoy => command
                .args(["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"])
                .arg("--config-path")
                .arg(&file),
            _ => command.arg("-db").arg("-f").arg(&file),
        };
        let mut proc = pod.spawn(name, command)?;
        proc.wait_for_port(listen.port())?;
        let (variant, version) = (*variant, version.clone());
        Ok(Self { variant, proc, version, configuration, stats })
    }

    /// That HAProxy has spliced if, and only if, it was told to: it says how many pipes it has made.
    pub fn check_splicing(&self) -> Result<()> {
        let Some(path) = &self.stats else { return Ok(()) };
        let mut stream = UnixStream::connect(path).context("asking HAProxy")?;
        stream.write_all(b"show info\n").context("asking HAProxy")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("asking HAProxy")?;
        let field = |name: &str| -> Result<u64> {
            let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            Ok(value.with_context(|| format!("HAProxy does not say {name}: {answer}"))?.parse()?)
        };
        let spliced = field("PipesUsed")? + field("PipesFree")? > 0;
        let asked = self.variant == Variant::HaproxySplice;
        ensure!(spliced == asked, "{}: spliced: {spliced}, and was to: {asked}", self.variant.name());
        Ok(())
    }
}

fn nginx(listen: SocketAddr, server: SocketAddr, directory: &Path, descriptors: u64) -> String {
    let directory = directory.display();
    format!(
        "load_module {NGINX_STREAM};
user root;
daemon off;
pid {directory}/pid;
worker_processes 1;
worker_rlimit_nofile {descriptors};
events {{
    worker_connections {descriptors};
}}
stream {{
    server {{
        listen {listen} backlog=4096;
        proxy_pass {server};
    }}
}}
"
    )
}

fn haproxy(listen: SocketAddr, server: SocketAddr, splice: bool, stats: &Path, descriptors: u64) -> String {
    let connections = connections(descriptors);
    let options = if splice { "    option splice-request\n    option splice-response\n" } else { "" };
    format!(
        "global
    nbthread 1
    maxconn {connections}
    maxpipes 64
    stats socket {} mode 600
defaults
    mode tcp
    maxconn {connections}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
{options}listen bench
    bind {listen}
    server server {server}
",
        stats.display()
    )
}

fn envoy(listen: SocketAddr, server: SocketAddr) -> String {
    let address =
        |at: SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", at.ip(), at.port());
    format!(
        "static_resources:
  listeners:
  - address: {}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: server
  clusters:
  - name: server
    type: STATIC
    circuit_breakers:
      thresholds: [{{max_connections: 65536, max_pending_requests: 65536}}]
    load_assignment:
      cluster_name: server
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]
",
        address(listen),
        address(server)
    )
}

/// As many descriptors as this process may have, or as it takes, for all that it starts; says how many.
pub fn raise_limits() -> Result<u64> {
    let limit = |current, maximum| setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = maximum.map_or(DESCRIPTORS, |maximum| maximum.max(DESCRIPTORS));
    // More than the maximum only with CAP_SYS_RESOURCE.
    if limit(DESCRIPTORS, Some(all)).is_ok() {
        return Ok(DESCRIPTORS);
    }
    let descriptors = maximum.context("descriptors without a maximum could not be had")?;
    limit(descriptors, maximum).with_context(|| format!("asking for {descriptors} descriptors"))?;
    Ok(descriptors)
}

/// How many connections a program of so many descriptors can carry, each of which takes two; it has others besides.
pub fn connections(descriptors: u64) -> u64 {
    descriptors.saturating_sub(500) / 2
}

/// Tells of a peer that cannot be had.
pub fn left_out(variant: Variant, why: &anyhow::Error) {
    exec::announce(&format!("left out: {}: {why:#}", variant.name()));
}
