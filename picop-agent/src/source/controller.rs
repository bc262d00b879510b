//! Routes from a PiCoP controller, for clusters without Kubernetes.
//!
//! To the controller the agent is one of its proxies: it registers, is told environments and where they go, and makes each a
//! variant of one service. That service, its policies, other services and the workloads are in a [route file](super::file),
//! which is followed as ever. What the controller has said last holds until it says something else, and if it is
//! kept in a file, from the first moment of the next agent on.
mod admin;
mod build;
mod envs;
mod follow;
mod kept;
mod presence;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::{net::TcpListener, sync::watch};

use self::{
    build::{Resolver, build},
    envs::Envs,
    kept::{Kept, KeptError},
    presence::Presence,
};
use super::file::{self, FileError, Summary};
use crate::{
    controller::names::{BadValue, Endpoint, ProxyId},
    route::{InEffect, NotInstalled, RouteHandle, RouteTable},
};

pub use build::BuildError;

/// What an agent that is a controller's proxy is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The route file: services and workloads.
    pub routes: PathBuf,
    /// The service whose variants the controller names. Without it, the only one of the file.
    pub service: Option<String>,
    /// Where the controller is: `http://HOST:PORT`.
    pub url: String,
    /// The agent's name as a proxy.
    pub id: String,
    /// Where the admin API of a proxy is served.
    pub listen: SocketAddr,
    /// Where the controller finds it; without it, at the address that this machine has towards the controller.
    pub endpoint: Option<String>,
    /// The file in which environments are kept.
    pub kept: Option<PathBuf>,
}

/// The first table is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The route file is bad.
    #[error(transparent)]
    File(#[from] FileError),
    /// An option is bad.
    #[error("{option}: {source}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Why.
        source: BadValue,
    },
    /// What was kept is not to be had.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The route file does not go together with what the controller says.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The port is taken.
    #[error("cannot listen at {address} for the controller (--controller-listen)")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A first table: of the file, and of what was kept.
#[derive(Debug)]
pub struct Opened {
    table: RouteTable,
    source: ControllerSource,
}

/// A controller that is being followed.
#[derive(Debug)]
pub struct ControllerSource {
    handle: RouteHandle,
    routes: PathBuf,
    service: Option<String>,
    base: Arc<RouteTable>,
    envs: Arc<Envs>,
    resolver: Resolver,
    presence: Presence,
    listener: TcpListener,
    lost: watch::Receiver<Option<String>>,
}

impl Opened {
    /// Its routes.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Whether the controller knows the agent: none, or why not.
    pub fn lost(&self) -> watch::Receiver<Option<String>> {
        self.source.lost.clone()
    }

    /// Puts its routes in effect.
    pub fn put_in_effect(self) -> Result<ControllerSource, NotInstalled> {
        let Self { table, source } = self;
        replace(&source.handle, table)?;
        Ok(source)
    }
}

impl ControllerSource {
    /// Reads the file and what was kept, and takes the port. The controller is not waited for.
    pub async fn open(options: Options, handle: RouteHandle) -> Result<Opened, OpenError> {
        let bad = |option| move |source| OpenError::Option { option, source };
        let url = Endpoint::new(options.url).map_err(bad("--controller-url"))?;
        let id = ProxyId::new(options.id).map_err(bad("--id"))?;
        let endpoint =
            options.endpoint.map(Endpoint::new).transpose().map_err(bad("--controller-endpoint"))?;
        let base = Arc::new(file::load(&options.routes)?);
        let envs = Arc::new(Envs::new(options.kept.map(Kept::new))?);
        let mut resolver = Resolver::default();
        resolver.look_up(&envs.now(), true).await;
        let table = build(&base, options.service.as_deref(), &envs.now(), &resolver)?;
        let failed = |source| OpenError::Listen { address: options.listen, source };
        let listener = crate::listen::bind(options.listen).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let (lost_tx, lost) = watch::channel(Some("the controller has not been reached yet".to_owned()));
        let presence = Presence { url, id, endpoint, port, lost: lost_tx };
        let source = Self {
            handle,
            routes: options.routes,
            service: options.service,
            base,
            envs,
            resolver,
            presence,
            listener,
            lost,
        };
        Ok(Opened { table, source })
    }
}

fn replace(handle: &RouteHandle, table: RouteTable) -> Result<(), NotInstalled> {
    let summary = Summary::from(&table);
    let InEffect { version, entries } = handle.replace(table)?;
    tracing::info!(source = "controller", version, ?summary, entries, "routes in effect");
    Ok(())
}

#[cfg(test)]
mod tests;
