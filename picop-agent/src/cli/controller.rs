//! `picop controller`, and what makes an agent one of its proxies.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde::Serialize;

use super::duration;
use crate::{
    controller::{Options, store::Database},
    source::{Origin, controller},
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

/// What makes an agent a controller's proxy.
#[derive(Clone, Debug, Args, Serialize)]
pub struct ProxyArgs {
    /// With --routes: be a proxy of the PiCoP controller at this address (http://HOST:PORT). The environments that it names are
    /// variants of one of the file's services.
    #[arg(long, env = "PICOP_CONTROLLER_URL", value_name = "URL", requires_all = ["id", "routes"])]
    controller_url: Option<String>,

    /// With --controller-url: the name of this agent as a proxy.
    #[arg(long, env = "PICOP_PROXY_ID", value_name = "ID")]
    id: Option<String>,

    /// With --controller-url: the service whose variants the controller names. [default: the only one of the file]
    #[arg(long, env = "PICOP_CONTROLLER_SERVICE", value_name = "NAME")]
    controller_service: Option<String>,

    /// With --controller-url: where to serve the admin API of a proxy. Whoever reaches it may change routes.
    #[arg(long, env = "PICOP_CONTROLLER_LISTEN", value_name = "ADDR", default_value = "0.0.0.0:9001")]
    controller_listen: SocketAddr,

    /// With --controller-url: where the controller finds that API. [default: the address that this machine has towards the
    /// controller]
    #[arg(long, env = "PICOP_CONTROLLER_ENDPOINT", value_name = "URL")]
    controller_endpoint: Option<String>,

    /// With --controller-url: keep what the controller has said in this file, for an agent that starts while it is away.
    #[arg(long, env = "PICOP_CONTROLLER_STATE", value_name = "FILE")]
    controller_state: Option<PathBuf>,
}

impl ProxyArgs {
    /// Where the routes come from, whose services and workloads are in `routes`.
    pub fn origin(&self, routes: &Path) -> Origin {
        let routes = routes.to_owned();
        let (Some(url), Some(id)) = (self.controller_url.clone(), self.id.clone()) else {
            return Origin::File(routes);
        };
        Origin::Controller(controller::Options {
            routes,
            service: self.controller_service.clone(),
            url,
            id,
            listen: self.controller_listen,
            endpoint: self.controller_endpoint.clone(),
            kept: self.controller_state.clone(),
        })
    }
}
