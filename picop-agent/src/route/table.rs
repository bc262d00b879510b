//! Everything a node knows of services, environments and workloads, at one moment.
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use super::{
    endpoints::Endpoints,
    pod::PodUid,
    service::{Base, Service, key},
    workload::{CgroupPattern, Cgroups, WorkloadSpec, normal},
};
use crate::protocol::EnvId;

/// The route table. Immutable: a change is another table, and a connection sees one or the other.
///
/// Its size follows the number of variants there are, not services times environments.
#[derive(Debug, Default)]
pub struct RouteTable {
    version: u64,
    services: Vec<Arc<Service>>,
    /// Index into `services`.
    by_address: HashMap<SocketAddr, usize>,
    /// The same, of [`RouteTable::translations`]. Few nodes ever ask.
    by_translation: OnceLock<HashMap<SocketAddr, usize>>,
    environments: HashSet<EnvId>,
    workloads: Vec<WorkloadSpec>,
    /// The first entry in `workloads` for a plain path.
    by_path: HashMap<String, usize>,
    /// The first entry in `workloads` for a pod.
    by_pod: HashMap<PodUid, usize>,
    /// The entries in `workloads` that are globs, in order.
    globs: Vec<(usize, CgroupPattern)>,
}

impl RouteTable {
    /// Puts a table together. Its version is 0 until [`RouteHandle::replace`](super::RouteHandle::replace) puts it in effect.
    pub fn new(services: Vec<Service>, workloads: Vec<WorkloadSpec>) -> Result<Self, TableError> {
        let mut table = Self::default();
        let mut names = HashSet::with_capacity(services.len());
        for service in services {
            if !names.insert(service.name.clone()) {
                return Err(TableError::DuplicateName { name: service.name });
            }
            table.add_service(service)?;
        }
        for workload in workloads {
            table.add_workload(workload);
        }
        Ok(table)
    }

    fn add_service(&mut self, mut service: Service) -> Result<(), TableError> {
        let index = self.services.len();
        for address in &mut service.addresses {
            *address = key(*address);
            match self.by_address.entry(*address) {
                Entry::Vacant(vacant) => vacant.insert(index),
                Entry::Occupied(first) => {
                    return Err(TableError::DuplicateAddress {
                        address: *address,
                        first: self
                            .services
                            .get(*first.get())
                            .map_or_else(|| service.name.clone(), |other| other.name.clone()),
                        second: service.name,
                    });
                }
            };
        }
        let base = match &service.base {
            Base::Endpoints(endpoints) => Some(endpoints),
            Base::Itself => None,
        };
        // Drained ones too: they may be filled again.
        let mut targets = base.into_iter().chain(service.variants.values()).flat_map(Endpoints::iter);
        if let Some(looped) = targets.find(|endpoint| service.addresses.contains(&key(endpoint.address))) {
            return Err(TableError::Loop { address: looped.address, service: service.name });
        }
        service.variants =
            service.variants.into_iter().map(|(env, endpoints)| (self.intern(env), endpoints)).collect();
        self.services.push(Arc::new(service));
        Ok(())
    }

    fn add_workload(&mut self, mut workload: WorkloadSpec) {
        let index = self.workloads.len();
        workload.environment = workload.environment.map(|env| self.intern(env));
        match &workload.cgroup {
            Cgroups::At(pattern) => match pattern.as_path() {
                Some(path) => drop(self.by_path.entry(path.to_owned()).or_insert(index)),
                None => self.globs.push((index, pattern.clone())),
            },
            Cgroups::Pod(pod) => drop(self.by_pod.entry(pod.uid.clone()).or_insert(index)),
        }
        self.workloads.push(workload);
    }

    /// One copy of each name in memory, however many services have a variant of it.
    fn intern(&mut self, environment: EnvId) -> EnvId {
        if let Some(known) = self.environments.get(&environment) {
            return known.clone();
        }
        self.environments.insert(environment.clone());
        environment
    }

    /// Counts the tables that were in effect on this node; the first one is 1, and 0 means none was.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn with_version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// The service clients reach at `address`. An IPv4 address and its v4-mapped form are the same.
    pub fn service_at(&self, address: &SocketAddr) -> Option<&Arc<Service>> {
        self.services.get(*self.by_address.get(&key(*address))?)
    }

    /// The service that a connection to `address` means: the one that clients reach there, else the one whose address another
    /// program has translated to that. (Whether there is such a program, the kernel knows: ask this of connections that it has
    /// taken for a service's.)
    pub fn service_meant(&self, address: &SocketAddr) -> Option<&Arc<Service>> {
        self.service_at(address).or_else(|| {
            let by_translation = self.by_translation.get_or_init(|| self.owners().collect());
            self.services.get(*by_translation.get(&key(*address))?)
        })
    }

    /// From base endpoints, drained or not, and addresses that others translate to, back to the service whose they are; none
    /// for those that several services share, or that are a service's address themselves: nobody can tell what a client that
    /// connects there meant.
    pub fn translations(&self) -> impl Iterator<Item = (SocketAddr, &Arc<Service>)> {
        self.owners().filter_map(|(at, index)| Some((at, self.services.get(index)?)))
    }

    fn owners(&self) -> impl Iterator<Item = (SocketAddr, usize)> {
        let mut owners: HashMap<SocketAddr, Option<usize>> = HashMap::new();
        for (index, service) in self.services.iter().enumerate() {
            let base = match &service.base {
                Base::Endpoints(endpoints) => Some(endpoints),
                Base::Itself => None,
            };
            let base = base.into_iter().flat_map(Endpoints::iter).map(|endpoint| endpoint.address);
            for at in base.chain(service.translated.iter().copied()).map(key) {
                // An address is translated to one of its own family.
                if service.addresses.iter().any(|address| address.is_ipv4() == at.is_ipv4()) {
                    let owner = owners.entry(at).or_insert(Some(index));
                    *owner = owner.filter(|first| *first == index);
                }
            }
        }
        owners.retain(|at, _| !self.by_address.contains_key(at));
        owners.into_iter().filter_map(|(at, owner)| Some((at, owner?)))
    }

    /// All services, in the order they were given.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The workloads, in the order they were given.
    pub fn workloads(&self) -> &[WorkloadSpec] {
        &self.workloads
    }

    /// What describes the workload whose cgroup is at `cgroup_path`, relative to the cgroup v2 mount: the first entry that
    /// matches. Says nothing of the cgroups above it.
    pub fn workload_for(&self, cgroup_path: &str) -> Option<&WorkloadSpec> {
        let by_path = self.by_path.get(normal(cgroup_path)).copied();
        let pod = if self.has_pods() { PodUid::of_cgroup(cgroup_path) } else { None };
        let by_pod = pod.and_then(|uid| self.by_pod.get(&uid).copied());
        let exact = by_path.into_iter().chain(by_pod).min();
        let by_glob = self
            .globs
            .iter()
            .take_while(|(glob, _)| exact.is_none_or(|exact| *glob < exact))
            .find(|(_, pattern)| pattern.matches(cgroup_path));
        by_glob.map(|(glob, _)| *glob).or(exact).map(|index| &self.workloads[index])
    }

    /// Whether an entry names a pod.
    pub fn has_pods(&self) -> bool {
        !self.by_pod.is_empty()
    }

    /// The environments that a service has a variant in, or a workload belongs to, in no order.
    pub fn environments(&self) -> impl ExactSizeIterator<Item = &EnvId> {
        self.environments.iter()
    }

    /// Whether `environment` is one of them.
    pub fn knows(&self, environment: &EnvId) -> bool {
        self.environments.contains(environment)
    }

    /// Whether `other` says the same, whatever its version.
    pub fn same_routes(&self, other: &Self) -> bool {
        self.services == other.services && self.workloads == other.workloads
    }
}

/// Why services make no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two services of one name could not be told apart in logs and metrics.
    #[error("there are two services named {name:?}; rename one")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// An address leads to one service.
    #[error("{address} is an address of service {first:?} and of {second:?}; remove it from one")]
    DuplicateAddress {
        /// The address, v4-mapped ones as IPv4.
        address: SocketAddr,
        /// Who has it.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// A backend that is the service.
    #[error(
        "service {service:?} has its own address {address} as a backend; leave `base` out to mean the address itself"
    )]
    Loop {
        /// The backend.
        address: SocketAddr,
        /// The service.
        service: String,
    },
}

#[cfg(test)]
mod tests;
