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
    listen::{EVERYWHERE, address},
    source::{Origin, controller},
    telemetry::logs::LogFormat,
};

/// `picop controller`.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// Where to answer. [default: all addresses, at --port]
    #[arg(long, env = "PICOP_LISTEN", value_name = "ADDR", value_parser = address, conflicts_with = "port")]
    listen: Option<SocketAddr>,

    /// The port to answer at, on all addresses.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,

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

    /// The same for a MySQL, as the reference's controller takes it: `USER:PASSWORD@tcp(HOST:PORT)/DATABASE`.
    #[arg(long, value_name = "DSN", value_parser = Database::from_dsn, conflicts_with = "database")]
    mysql: Option<Database>,

    /// The longest pause between tries to reach a proxy that does not answer.
    #[arg(long, env = "PICOP_RETRY_INTERVAL", value_name = "TIME", default_value = "5s", value_parser = duration)]
    retry_interval: Duration,

    /// The same in seconds, as the reference's controller takes it.
    #[arg(long, value_name = "SECONDS", conflicts_with = "retry_interval")]
    interval: Option<u64>,

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
        Options {
            listen: self.listen.unwrap_or_else(|| (EVERYWHERE, self.port).into()),
            database: self.mysql.unwrap_or(self.database),
            retry_interval: self.interval.map_or(self.retry_interval, Duration::from_secs),
        }
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
    #[arg(long, env = "PICOP_CONTROLLER_LISTEN", value_name = "ADDR", default_value = ":9001", value_parser = address)]
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::{
        cli::{Cli, Command},
        controller::Options,
        gateway::args::go_style,
    };

    fn options(line: &str) -> Result<Options, clap::Error> {
        let line = ["picop", "controller"].into_iter().chain(line.split_whitespace()).map(Into::into);
        match Cli::try_parse_from(go_style(line))?.command {
            Command::Controller(args) => Ok(args.options()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_references_controller() {
        for line in [
            "--port 8081 --mysql picop:secret@tcp(db:3306)/picop?parseTime=true --interval 10",
            "-port=8081 -mysql=picop:secret@tcp(db:3306)/picop -interval 10",
            "--listen [::]:8081 --database mysql://picop:secret@db:3306/picop --retry-interval 10s",
        ] {
            let options = options(line).expect(line);
            assert_eq!(options.listen.to_string(), "[::]:8081", "{line}");
            assert_eq!(
                options.database,
                "mysql://picop:secret@db:3306/picop".parse().expect("a URL"),
                "{line}"
            );
            assert_eq!(options.retry_interval.as_secs(), 10, "{line}");
        }
        let options = options("").expect("the defaults");
        assert_eq!(
            (options.listen.to_string().as_str(), options.database.to_string().as_str()),
            ("[::]:8080", "sqlite:picop.db")
        );
    }

    #[test]
    fn what_is_refused() {
        for (line, words) in [
            ("--listen [::]:1 --port 1", "--port"),
            ("--mysql u@tcp(h:1)/db --database sqlite:x", "--database"),
            ("--interval 1 --retry-interval 1s", "--interval"),
            ("--mysql picop", "tcp(HOST:PORT)/DATABASE"),
            ("--interval 1s", "--interval"),
        ] {
            let error = options(line).expect_err(line).to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
