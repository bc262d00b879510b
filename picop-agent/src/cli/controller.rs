//! `picop controller`.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

use super::duration;
use crate::{
    controller::{Options, store::Database},
    telemetry::logs::LogFormat,
};

/// `picop controller`.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// Where to answer.
    #[arg(long, env = "PICOP_LISTEN", value_name = "ADDR", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,

    /// Where to keep proxies and routes: `sqlite:PATH` is one file for one controller, `mysql://USER:PASSWORD@HOST/DATABASE` a
    /// MySQL or MariaDB for any number of them. The tables of the PiCoP reference's controller are taken over.
    #[arg(
        long,
        env = "PICOP_DATABASE",
        value_name = "DATABASE",
        default_value = "sqlite:picop.db",
        hide_env_values = true
    )]
    database: Database,

    /// The longest pause between tries to reach a proxy that does not answer.
    #[arg(long, env = "PICOP_RETRY_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = duration)]
    retry_interval: Duration,

    /// How log lines look.
    #[arg(long, env = "PICOP_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What to log, in tracing's filter syntax.
    #[arg(long, env = "PICOP_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

impl ControllerArgs {
    /// What the controller is told.
    pub fn options(self) -> Options {
        Options { listen: self.listen, database: self.database, retry_interval: self.retry_interval }
    }
}
