//! The command line.

pub mod ask;
pub mod controller;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser};
use clap_complete::Shell;
use serde::Serialize;
use tokio::sync::watch;

use self::{
    ask::{Ask, ConfigCommand, ConnectionsArgs, ExplainArgs, LogCommand, RoutesArgs, TopArgs, TraceArgs},
    controller::{ControllerArgs, ProxyArgs},
};
use crate::{
    admin::DEFAULT_SOCKET,
    duration::duration,
    gateway::args::{ConnectArgs, CurlArgs, DecodeArgs, GatewayCommand},
    intercept::logs::LogLevel,
    source::{
        Origin,
        kubernetes::{Options, used::Used},
    },
    telemetry::logs::LogFormat,
};

/// Routes pods' TCP connections by environment.
#[derive(Debug, Parser)]
#[command(name = "picop", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `picop` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node agent: intercept connections of managed workloads and route them by environment.
    Run(Box<RunArgs>),
    /// Tell what this node can do, and whether the agent can run here.
    Doctor(DoctorArgs),
    /// Take connections from outside into an environment, without the node agent: for every connection of a port, by the PiCoP
    /// header, or by HTTP request.
    #[command(subcommand)]
    Gateway(Box<GatewayCommand>),
    /// Send an HTTP request over a connection that belongs to an environment, and print the answer.
    Curl(CurlArgs),
    /// Connect standard input and output with a server, over a connection that belongs to an environment.
    Connect(ConnectArgs),
    /// Print the PiCoP headers in a capture (pcap, pcapng), or in bytes written in hexadecimal.
    Decode(DecodeArgs),
    /// Run the controller: keep routes, and tell proxies of them. A drop-in for that of the PiCoP reference.
    Controller(ControllerArgs),
    /// Show how the agent is doing, and what the kernel has counted and holds, also of agents with `--pin-dir` that do not
    /// run any more.
    Status(StatusArgs),
    /// Show the connections that are open, relayed and direct.
    Connections(ConnectionsArgs),
    /// Show the services in effect, or compare them with the kernel's table.
    Routes(RoutesArgs),
    /// Show the environments.
    Environments(Ask),
    /// Show the workloads.
    Workloads(Ask),
    /// Tell what would become of a connection, and why: each rule tried, the backend, and what would change it.
    Explain(ExplainArgs),
    /// Show decisions as they are made, until Ctrl-C. Meanwhile each direct connection costs about a microsecond more.
    Trace(TraceArgs),
    /// Show who uses what, busiest first, until Ctrl-C.
    Top(TopArgs),
    /// What a running agent was told to do.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What a running agent logs.
    #[command(subcommand)]
    Log(LogCommand),
    /// Write what somebody who is to help needs to see into one file.
    SupportBundle {
        /// The agent.
        #[command(flatten)]
        ask: Ask,
        /// The file (tar). [default: picop-support-<time>.tar]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page, or write one for each command.
    Man {
        /// The directory for them.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Remove what agents with `--pin-dir` left in the kernel.
    Uninstall {
        /// The directory of the pins.
        #[arg(long, env = "PICOP_PIN_DIR", value_name = "DIR", default_value = "/sys/fs/bpf/picop")]
        pin_dir: PathBuf,

        /// How long connections that were routed with a header and have not sent yet may take to do so. Those that take
        /// longer send without it, and are counted.
        #[arg(long, env = "PICOP_HEADER_GRACE", value_name = "TIME", default_value = "2s", value_parser = duration)]
        header_grace: Duration,
    },
    /// Read a route file as the agent would, and tell what is wrong with it.
    Check {
        /// The route file (YAML).
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the JSON Schema of the route file, for editors and CI.
    Schema,
    /// Print the CustomResourceDefinitions of picop's kinds (YAML), to be applied before objects of those kinds.
    Crds,
    /// Exit with 0 if an agent says that it is ready, by its ready file: for probes in images that have no other program.
    IsReady {
        /// What the agent was given as `--ready-file`.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// (The agent starts this itself.) Connect through the hooks whenever asked on standard input.
    #[command(hide = true)]
    Canary {
        /// The cgroup this process was put into.
        #[arg(long)]
        cgroup: PathBuf,
        /// The cgroup to go back to at the end.
        #[arg(long)]
        home: PathBuf,
    },
}

/// `picop run`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct RunArgs {
    /// Where routes come from.
    #[command(flatten)]
    #[serde(flatten)]
    pub source: SourceArgs,

    /// The cgroup (v2) that holds the pods: absolute, or relative to the cgroup v2 mount. Workloads outside of it are
    /// not intercepted. [default: kubepods.slice or kubepods if there is one, else the root]
    #[arg(long, env = "PICOP_CGROUP", value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Enter this cgroup namespace first. A container has one of its own, in which the agent cannot see its place among the
    /// node's cgroups; with the node's pids visible, the node's is /proc/1/ns/cgroup.
    #[arg(long, env = "PICOP_CGROUP_NAMESPACE", value_name = "FILE")]
    pub cgroup_namespace: Option<PathBuf>,

    /// How log lines look.
    #[arg(long, env = "PICOP_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What to log, in tracing's filter syntax, such as `info,picop_agent::relay=debug` or `info,access=off`.
    #[arg(long, env = "PICOP_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Log a line also for each connection that the kernel routes by itself. Those cost about a microsecond more for it.
    #[arg(long, env = "PICOP_LOG_DIRECT")]
    pub log_direct: bool,

    /// The Unix socket at which the agent answers `picop` commands. Only the agent's user may connect. Empty for none.
    #[arg(long, env = "PICOP_ADMIN_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub admin_socket: PathBuf,

    /// Serve metrics for Prometheus (/metrics) and the agent's health (/healthz) at this address, such as 127.0.0.1:9464.
    /// Without it they are at the admin socket only.
    #[arg(long, env = "PICOP_METRICS", value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,

    /// Most pairs of service and environment that metrics are counted by; further ones are `(other)`.
    #[arg(long, env = "PICOP_METRICS_MAX_PAIRS", value_name = "N", default_value_t = 2000)]
    pub metrics_max_pairs: usize,

    /// Serve everything that can be read at this address, such as 127.0.0.1:8080: metrics, and what `picop` commands show.
    #[arg(long, env = "PICOP_HTTP", value_name = "ADDR")]
    pub http: Option<SocketAddr>,

    /// Make a span also of so many of the connections that the kernel routes by itself: 0 is none, 1 is all. Each of these
    /// costs about a microsecond more. Traces are sent when the variables of OpenTelemetry name a receiver
    /// (OTEL_EXPORTER_OTLP_ENDPOINT).
    #[arg(long, env = "PICOP_TRACE_DIRECT", value_name = "RATIO", default_value_t = 0.0)]
    pub trace_direct: f64,

    /// Have the kernel take the time that its programs take, those of others too, for metrics. It costs each run of each about
    /// 50 ns.
    #[arg(long, env = "PICOP_BPF_STATS")]
    pub bpf_stats: bool,

    /// What the kernel programs log, besides counting it: `warn` for connections that do not get what they should, `debug` for
    /// each that gets a header. Off, they are loaded without it. Programs that are adopted keep their level.
    #[arg(long, env = "PICOP_EBPF_LOG", value_enum, default_value_t)]
    pub ebpf_log: LogLevel,

    /// Created when the agent is ready, removed when it stops being so.
    #[arg(long, env = "PICOP_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// Keep programs and routes in the kernel when the agent ends, pinned in this directory of a BPF filesystem (such as
    /// /sys/fs/bpf/picop): direct connections are routed on meanwhile, and the next agent takes over without a gap.
    /// `picop uninstall` removes them. Without it, everything goes with the agent.
    #[arg(long, env = "PICOP_PIN_DIR", value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,

    /// At SIGTERM or SIGINT, how long running connections may take to end before they are reset.
    #[arg(long, env = "PICOP_DRAIN_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// At the end, when nothing stays pinned: how long connections that were routed with a header and have not sent yet
    /// may take to do so. Those that take longer send without it, and are counted.
    #[arg(long, env = "PICOP_HEADER_GRACE", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub header_grace: Duration,

    /// How long a client may take to send a header it has begun, or must send.
    #[arg(long, env = "PICOP_HEADER_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub header_timeout: Duration,

    /// How long one endpoint may take to accept a connection before the next one is tried.
    #[arg(long, env = "PICOP_CONNECT_TIMEOUT", value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub connect_timeout: Duration,

    /// How long a connection may wait for a variant that has nothing ready, to a service with `fallback: wait`.
    #[arg(long, env = "PICOP_VARIANT_WAIT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub variant_wait: Duration,

    /// Relayed connections at once, in total.
    #[arg(long, env = "PICOP_MAX_CONNECTIONS", value_name = "N", default_value_t = 50_000)]
    pub max_connections: u32,

    /// Relayed connections at once of one workload, where the routes do not say.
    #[arg(long, env = "PICOP_MAX_CONNECTIONS_PER_WORKLOAD", value_name = "N", default_value_t = 10_000)]
    pub max_connections_per_workload: u32,
}

/// Where routes come from: a file, with or without a controller, or a cluster.
#[derive(Clone, Debug, Args, Serialize)]
pub struct SourceArgs {
    /// Take routes from this file (YAML; `picop schema` describes it). Read again when it changes and on SIGHUP.
    #[arg(long, env = "PICOP_ROUTES", value_name = "FILE", required_unless_present = "kubernetes")]
    routes: Option<PathBuf>,

    /// Take routes from the Kubernetes cluster that this node is of: its Services and Pods, as they are labelled.
    #[arg(long, env = "PICOP_KUBERNETES", conflicts_with = "routes", requires = "node_name")]
    kubernetes: bool,

    /// With --kubernetes: the name of this node. Its pods are the workloads.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    node_name: Option<String>,

    /// With --kubernetes: how to reach the cluster. [default: that of KUBECONFIG, ~/.kube/config, or the pod's service
    /// account]
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,

    /// With --kubernetes: write the statuses of picop's own kinds, if no other agent does. The Lease by which agents agree on
    /// who does is in this namespace. Without it, this agent writes nothing.
    #[arg(long, env = "PICOP_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Besides --routes: a controller that says which environments there are.
    #[command(flatten)]
    #[serde(flatten)]
    controller: ProxyArgs,
}

impl SourceArgs {
    /// Which it is. clap has seen to it that one is.
    ///
    /// `used` is what a source that wants to know is told of environments' use, `translation` of programs that come before
    /// picop's.
    pub fn origin(&self, used: watch::Receiver<Used>, translation: watch::Receiver<bool>) -> Origin {
        match &self.routes {
            Some(file) => self.controller.origin(file),
            None => Origin::Kubernetes(Options {
                kubeconfig: self.kubeconfig.clone(),
                node: self.node_name.clone().unwrap_or_default(),
                lease_namespace: self.lease_namespace.clone(),
                translation,
                used,
            }),
        }
    }
}

/// `picop doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// One JSON object instead of a table.
    #[arg(long)]
    pub json: bool,

    /// The cgroup the agent would attach to; as with `picop run`.
    #[arg(long, env = "PICOP_CGROUP", value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
}

/// `picop status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// The directory of the pins.
    #[arg(long, env = "PICOP_PIN_DIR", value_name = "DIR", default_value = "/sys/fs/bpf/picop")]
    pub pin_dir: PathBuf,

    /// The agent's socket.
    #[arg(long, env = "PICOP_ADMIN_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub admin_socket: PathBuf,

    /// One JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
