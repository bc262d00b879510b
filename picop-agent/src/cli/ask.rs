//! Arguments of the commands that ask a running agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::admin::DEFAULT_SOCKET;

/// Which agent, and how its answer is printed.
#[derive(Clone, Debug, Args)]
pub struct Ask {
    /// The agent's socket.
    #[arg(long, env = "PICOP_ADMIN_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub admin_socket: PathBuf,

    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// `picop connections`.
#[derive(Clone, Debug, Args)]
pub struct ConnectionsArgs {
    /// The agent.
    #[command(flatten)]
    pub ask: Ask,

    /// Only those of this environment; `-` for those of none.
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,

    /// Only those to this service.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// Only those of workloads whose name contains this.
    #[arg(long, value_name = "PART")]
    pub workload: Option<String>,

    /// Show them anew every second, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
}

/// `picop routes`.
#[derive(Clone, Debug, Args)]
pub struct RoutesArgs {
    /// The agent.
    #[command(flatten)]
    pub ask: Ask,

    /// Compare the kernel's table with the agent's, entry by entry. Exit status 1 if they differ.
    #[arg(long)]
    pub verify: bool,
}

/// `picop explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The agent.
    #[command(flatten)]
    pub ask: Ask,

    /// Who connects: a workload's name (its cgroup), or a part of it that no other one's has. `-` is a process that belongs to
    /// none.
    #[arg(long, value_name = "WORKLOAD", allow_hyphen_values = true)]
    pub from: String,

    /// Where to: an address and port, or a service's name.
    #[arg(long, value_name = "ADDR")]
    pub to: String,

    /// The environment that the application names in a header of its own.
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,
}

/// `picop trace`.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// The agent.
    #[command(flatten)]
    pub ask: Ask,

    /// Only those of this environment; `-` for those of none.
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,

    /// Only those to this service.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,

    /// Only those of workloads whose name contains this.
    #[arg(long, value_name = "PART")]
    pub workload: Option<String>,

    /// End after so many.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// `picop top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// The agent.
    #[command(flatten)]
    pub ask: Ask,

    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    pub interval: u64,

    /// Rows that are shown.
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub rows: usize,

    /// Show it once, and end.
    #[arg(long)]
    pub once: bool,
}

/// `picop config`.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print what a running agent was told to do.
    Dump(Ask),
}

/// `picop log`.
#[derive(Clone, Debug, Subcommand)]
pub enum LogCommand {
    /// Show what a running agent logs, or change it until its end.
    Level {
        /// In tracing's filter syntax, such as `info,picop_agent::relay=debug` or `info,access=off`.
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
        /// The agent.
        #[command(flatten)]
        ask: Ask,
    },
}
