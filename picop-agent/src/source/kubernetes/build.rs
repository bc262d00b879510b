//! From the cluster's objects to this node's table. Pure.
//!
//! A Service that is no variant becomes a service of the table for each of its TCP ports. Its base is *the address itself*:
//! what the cluster makes of a cluster IP (session affinity, topology, draining) is none of picop's business. A variant's
//! endpoints are chosen here, by the rules that kube-proxy has. Services of which nothing is asked are left out, unless a
//! pod of this node sends headers, which picop must then keep from them.
mod endpoints;
mod marks;
mod policies;
mod services;
mod translated;
mod variants;
mod workloads;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    objects::{Name, Objects, Seconds, Slice},
    problem::{Problem, Reason},
};
use crate::{
    protocol::EnvId,
    route::{RouteTable, TableError},
};

/// What the objects come to.
#[derive(Debug)]
pub struct Built {
    /// The table. Objects that contradict one another are settled before, so that none of them can spoil it.
    pub table: Result<RouteTable, TableError>,
    /// What could not be done as it was asked.
    pub problems: BTreeSet<Problem>,
    /// What each environment has.
    pub environments: BTreeMap<EnvId, Vec<Variant>>,
    /// When the same objects come to something else.
    pub again_at: Option<Seconds>,
}

/// A Service's variant in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The Service.
    pub service: Name,
    /// The Service that is the variant.
    pub variant: Name,
    /// Since when there is one.
    pub since: Seconds,
    /// How many endpoints take connections, of all ports.
    pub ready: usize,
}

/// Whether another program on this node may have translated a cluster IP to an endpoint before picop sees a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Translation {
    /// No: cluster IPs are what clients connect to, and endpoints of bases are in no table.
    #[default]
    None,
    /// Yes: a service is known by its base's endpoints as well, and these are followed.
    Possible,
}

impl From<bool> for Translation {
    fn from(possible: bool) -> Self {
        if possible { Self::Possible } else { Self::None }
    }
}

/// Makes the table, as of `now`.
pub fn build(objects: &Objects, now: Seconds, translation: Translation) -> Built {
    let mut build = Build { objects, translation, slices: by_service(objects), problems: BTreeSet::new() };
    build.check_slices();
    let claims = variants::settle(&mut build, now);
    let workloads = workloads::all(&mut build);
    let policies = policies::settle(&mut build);
    let all = workloads.iter().any(|it| it.context == crate::route::ContextSource::Header);
    let (services, environments) = services::all(&mut build, &claims, &policies, all);
    let lifetimes = objects.environments.values().filter_map(|lifetime| lifetime.until);
    Built {
        table: RouteTable::new(services, workloads),
        problems: build.problems,
        environments,
        again_at: lifetimes.filter(|until| *until > now).min(),
    }
}

/// A build under way.
struct Build<'a> {
    objects: &'a Objects,
    translation: Translation,
    slices: HashMap<Name, Vec<&'a Slice>>,
    problems: BTreeSet<Problem>,
}

fn by_service(objects: &Objects) -> HashMap<Name, Vec<&Slice>> {
    let mut index: HashMap<_, Vec<_>> = HashMap::with_capacity(objects.slices.len());
    for (name, slice) in &objects.slices {
        let service = Name { namespace: name.namespace.clone(), name: slice.service.clone() };
        index.entry(service).or_default().push(slice);
    }
    index
}

impl<'a> Build<'a> {
    fn problem(&mut self, kind: &'static str, object: &Name, reason: Reason, message: impl Into<String>) {
        self.problems.insert(Problem { kind, object: object.clone(), reason, message: message.into() });
    }

    /// The slices of a Service.
    fn slices(&self, service: &Name) -> &[&'a Slice] {
        self.slices.get(service).map_or(&[], Vec::as_slice)
    }

    fn check_slices(&mut self) {
        for (name, slice) in &self.objects.slices {
            if slice.fqdn {
                let message = "its addresses are names, which picop does not resolve; list IP addresses";
                self.problem("EndpointSlice", name, Reason::FqdnEndpoints, message);
            }
        }
    }
}

#[cfg(test)]
mod tests;
