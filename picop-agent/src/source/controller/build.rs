//! From the file's table and the controller's environments to one table.
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{net::lookup_host, time::timeout};

use super::envs::Table;
use crate::{
    controller::names::Destination,
    route::{RouteTable, Service, TableError, Weight, WeightedEndpoint},
    source::file::is_host,
};

/// How long a name may take to be looked up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Names looked up at once.
const AT_ONCE: usize = 16;

/// The file does not go together with what the controller says.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The service is not in the file.
    #[error("the route file has no service {0:?} (--controller-service)")]
    NoService(String),
    /// It is not known which one it is.
    #[error("the route file has {0} services; say which one the controller is about (--controller-service)")]
    WhichService(usize),
    /// Nothing the table can be.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The file's table, with the controller's environments as variants of a service. Where both name one, the controller's
/// counts. A destination without an address is a variant that has nothing ready.
pub(super) fn build(
    base: &RouteTable,
    service: Option<&str>,
    envs: &Table,
    resolver: &Resolver,
) -> Result<RouteTable, BuildError> {
    let services = base.services();
    let which = match service {
        Some(name) => services
            .iter()
            .position(|service| service.name == name)
            .ok_or_else(|| BuildError::NoService(name.to_owned()))?,
        None if services.len() == 1 => 0,
        None => return Err(BuildError::WhichService(services.len())),
    };
    let mut services: Vec<Service> = services.iter().map(|service| Service::clone(service)).collect();
    let service = &mut services[which];
    for (env, destination) in envs {
        let addresses = resolver.addresses(destination);
        // A service that is its own variant would be a loop; the table would refuse all for it.
        let good = addresses.iter().filter(|at| is_host(**at) && !service.addresses.contains(at));
        let endpoints = good.map(|&address| WeightedEndpoint { address, weight: Weight::ONE }).collect();
        service.variants.insert(env.clone(), endpoints);
    }
    Ok(RouteTable::new(services, base.workloads().to_vec())?)
}

/// Addresses of names. Where a name cannot be looked up, those it had hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolver(Arc<HashMap<Destination, Vec<SocketAddr>>>);

impl Resolver {
    fn addresses(&self, destination: &Destination) -> Vec<SocketAddr> {
        match destination.as_str().parse() {
            Ok(address) => vec![canonical(address)],
            Err(_) => self.0.get(destination).cloned().unwrap_or_default(),
        }
    }

    /// Looks up destinations that are names, those that are known only if it is `again`, and forgets others.
    pub(super) async fn look_up(&mut self, envs: &Table, again: bool) {
        let names: BTreeSet<_> =
            envs.values().filter(|to| to.as_str().parse::<SocketAddr>().is_err()).cloned().collect();
        let with_known = |name: Destination| {
            let known = self.0.get(&name).cloned();
            (name, known)
        };
        let names: Vec<_> = names.into_iter().map(with_known).collect();
        let found = stream::iter(names)
            .map(|(name, known)| async move {
                match known {
                    Some(known) if !again && !known.is_empty() => (name, known),
                    known => look_up(name, known).await,
                }
            })
            .buffer_unordered(AT_ONCE);
        self.0 = Arc::new(found.collect::<HashMap<_, _>>().await);
    }
}

async fn look_up(name: Destination, known: Option<Vec<SocketAddr>>) -> (Destination, Vec<SocketAddr>) {
    let found = match timeout(PATIENCE, lookup_host(name.as_str())).await {
        Ok(Ok(found)) => Some(found.map(canonical).collect::<BTreeSet<_>>().into_iter().collect()),
        Ok(Err(error)) => {
            tracing::warn!(destination = name.as_str(), %error, "a destination has no address");
            None
        }
        Err(_) => {
            tracing::warn!(destination = name.as_str(), "a destination is not looked up within {PATIENCE:?}");
            None
        }
    };
    (name, found.or(known).unwrap_or_default())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
