//! The proxies that users have instead: each with one worker, and otherwise as its package's defaults are, but for limits
//! that ten thousand connections would meet. None writes a line for each connection.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use testbed::{Cluster, Pod};

use super::super::peer::{self, Kind, configuration, connections};
use super::variant::Variant;
use crate::exec;
use crate::setup::NGINX_STREAM;

/// A peer that is here.
#[derive(Clone, Debug)]
pub struct Program {
    pub variant: Variant,
    program: peer::Program,
}

impl Program {
    /// Finds it; installs it if it is missing.
    pub fn find(variant: Variant) -> Result<Self> {
        let kind = match variant {
            Variant::NginxStream => Kind::Nginx,
            Variant::Haproxy | Variant::HaproxySplice => Kind::Haproxy,
            Variant::Envoy => Kind::Envoy,
            Variant::None
            | Variant::NoneAgain
            | Variant::Relay
            | Variant::RelayWatched
            | Variant::Graft
            | Variant::Floor => {
                bail!("{} is no peer", variant.name())
            }
        };
        Ok(Self { variant, program: peer::Program::find(kind)? })
    }
}

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    pub variant: Variant,
    pub running: peer::Peer,
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
        let Program { variant, program } = program;
        let mut stats = None;
        let configuration = |directory: &Path| match variant {
            Variant::NginxStream => nginx(listen, server, directory, descriptors),
            Variant::Envoy => envoy(listen, server),
            _ => {
                let socket = directory.join("stats");
                let splice = *variant == Variant::HaproxySplice;
                let text = haproxy(listen, server, splice, &socket, descriptors);
                stats = Some(socket);
                text
            }
        };
        let running = peer::Peer::start(program, cluster, pod, variant.name(), listen.port(), configuration)?;
        Ok(Self { variant: *variant, running, stats })
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
    let head = configuration::nginx(directory, descriptors);
    format!(
        "load_module {NGINX_STREAM};
{head}stream {{
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
    let filter = "      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: server
";
    configuration::envoy(listen, filter, &configuration::envoy_cluster("server", server))
}

/// Tells of a peer that cannot be had.
pub fn left_out(variant: Variant, why: &anyhow::Error) {
    exec::announce(&format!("left out: {}: {why:#}", variant.name()));
}
