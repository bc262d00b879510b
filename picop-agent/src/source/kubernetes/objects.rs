//! What is kept of the cluster's objects: no more than the routes of this node are made of.
//!
//! 10,000 Services and 50,000 endpoints are kept in a few megabytes (see the test `what_a_large_cluster_takes`).
use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use kube::ResourceExt as _;
use serde::{Serialize, Serializer};

use super::{
    crd::{Environment, EnvironmentStatus, OnExpiry, ServicePolicy, ServicePolicySpec, ServicePolicyStatus},
    names, wire,
};
use crate::route::PodUid;

/// An object's namespace (empty for those of the cluster) and name. A clone costs two reference counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
}

impl Name {
    /// A name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    fn of(object: &impl kube::Resource) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.pad(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The node this agent is on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone, if it is in one.
    pub zone: Option<String>,
}

/// The labels and annotations of an object that are picop's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks(Box<[(Box<str>, Box<str>)]>);

impl Marks {
    fn of(object: &impl kube::Resource) -> Self {
        let meta = object.meta();
        let all = meta.labels.iter().chain(&meta.annotations).flatten();
        let ours = all.filter(|(key, _)| key.starts_with(names::PREFIX));
        Self(ours.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect())
    }

    /// The value of a label or annotation.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| **k == *key).map(|(_, value)| &**value)
    }
}

/// Seconds since 1970.
pub type Seconds = i64;

fn created(object: &impl kube::Resource) -> Seconds {
    object.meta().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// When it was made: of two that contradict each other, the older one holds.
    pub created: Seconds,
    /// picop's labels and annotations.
    pub marks: Marks,
    /// Where clients reach it.
    pub kind: ServiceKind,
    /// Its TCP ports.
    pub ports: Box<[Port]>,
    /// Whether a client is to stay with an endpoint.
    pub affinity: bool,
    /// Whether only endpoints of the client's node are to be used.
    pub local_only: bool,
}

/// Where clients reach a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// At these addresses: cluster IPs first, then external ones and those of load balancers.
    Addresses {
        /// Cluster IPs.
        cluster: Box<[IpAddr]>,
        /// The others.
        external: Box<[IpAddr]>,
    },
    /// At its endpoints.
    Headless,
    /// At another name.
    ExternalName,
}

/// A TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty if it is the only one.
    pub name: Box<str>,
    /// Its number.
    pub number: u16,
}

const NONE: &str = "None";

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Box<[IpAddr]> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

impl From<&wire::Service> for Service {
    fn from(service: &wire::Service) -> Self {
        let spec = &service.spec;
        let kind = if spec.kind == "ExternalName" {
            ServiceKind::ExternalName
        } else if spec.cluster_ip == NONE {
            ServiceKind::Headless
        } else {
            let balancers = service.status.load_balancer.ingress.iter();
            // A balancer that is a proxy sends connections back from outside: they are its own.
            let balancers =
                balancers.filter(|at| at.ip_mode.as_deref() != Some("Proxy")).filter_map(|at| at.ip.as_ref());
            let external = addresses(spec.external_ips.iter().chain(balancers));
            let cluster = match spec.cluster_ips.as_slice() {
                [] => addresses([&spec.cluster_ip]),
                several => addresses(several),
            };
            ServiceKind::Addresses { cluster, external }
        };
        let tcp = spec.ports.iter().filter(|port| is_tcp(port.protocol.as_deref()));
        Self {
            created: created(service),
            marks: Marks::of(service),
            kind,
            ports: tcp.map(|port| Port { name: port.name.as_str().into(), number: port.port }).collect(),
            affinity: spec.session_affinity == "ClientIP",
            local_only: spec.internal_traffic_policy.as_deref() == Some("Local"),
        }
    }
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The Service it is of.
    pub service: Arc<str>,
    /// Whether its addresses are names.
    pub fqdn: bool,
    /// Its TCP ports that have a number: name of the Service's port, and the number at the endpoints.
    pub ports: Box<[Port]>,
    /// Its endpoints.
    pub endpoints: Box<[Endpoint]>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address. (All addresses of an endpoint are the same pod; one is enough.)
    pub address: IpAddr,
    /// What is known of it.
    pub is: Traits,
}

/// What is known of an endpoint, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits(u8);

impl Traits {
    /// It takes connections.
    pub const READY: Self = Self(1);
    /// It would, if it were not terminating.
    pub const SERVING: Self = Self(2);
    /// It is going.
    pub const TERMINATING: Self = Self(4);
    /// It is on this node.
    pub const HERE: Self = Self(8);
    /// It says which zones it is for.
    pub const ZONES: Self = Self(16);
    /// This node's is one of them.
    pub const OUR_ZONE: Self = Self(32);
    /// It says which nodes it is for.
    pub const NODES: Self = Self(64);
    /// This is one of them.
    pub const OUR_NODE: Self = Self(128);

    /// Whether it is all of `what`.
    pub fn all(self, what: Self) -> bool {
        self.0 & what.0 == what.0
    }

    /// With another trait, if `yes`.
    #[must_use]
    pub fn and(self, what: Self, yes: bool) -> Self {
        if yes { Self(self.0 | what.0) } else { self }
    }

    fn of(endpoint: &wire::Endpoint, node: &Node) -> Self {
        let conditions = &endpoint.conditions;
        // As the API says: ready unless said otherwise, serving like ready unless said otherwise.
        let ready = conditions.ready.unwrap_or(true);
        let hints = endpoint.hints.as_ref();
        let zones = hints.and_then(|hints| hints.for_zones.as_ref()).filter(|zones| !zones.is_empty());
        let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).filter(|nodes| !nodes.is_empty());
        Self::default()
            .and(Self::READY, ready)
            .and(Self::SERVING, conditions.serving.unwrap_or(ready))
            .and(Self::TERMINATING, conditions.terminating.unwrap_or(false))
            .and(Self::HERE, endpoint.node_name.as_deref() == Some(&node.name))
            .and(Self::ZONES, zones.is_some())
            .and(
                Self::OUR_ZONE,
                zones.is_some_and(|zones| zones.iter().any(|zone| Some(&zone.name) == node.zone.as_ref())),
            )
            .and(Self::NODES, nodes.is_some())
            .and(Self::OUR_NODE, nodes.is_some_and(|nodes| nodes.iter().any(|it| it.name == node.name)))
    }
}

impl Slice {
    /// What is kept of a slice; none if it is of no Service.
    pub(super) fn new(slice: &wire::EndpointSlice, node: &Node) -> Option<Self> {
        let service = slice.labels().get(names::SLICE_OF)?;
        let ports = slice.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
        let port = |port: &wire::EndpointPort| {
            Some(Port { name: port.name.as_deref().unwrap_or_default().into(), number: port.port? })
        };
        let endpoint = |endpoint: &wire::Endpoint| {
            let address = endpoint.addresses.first()?.parse().ok()?;
            Some(Endpoint { address, is: Traits::of(endpoint, node) })
        };
        Some(Self {
            service: service.as_str().into(),
            fqdn: slice.address_type == "FQDN",
            ports: ports.filter_map(port).collect(),
            endpoints: slice.endpoints.iter().flatten().filter_map(endpoint).collect(),
        })
    }
}

/// A Pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// What its cgroup is named by.
    pub uid: PodUid,
    /// picop's labels and annotations.
    pub marks: Marks,
    /// Whether it has no network namespace of its own.
    pub host_network: bool,
    /// Whether none of its containers runs, or will again.
    pub ended: bool,
}

impl From<&wire::Pod> for Pod {
    fn from(pod: &wire::Pod) -> Self {
        let uid = pod.annotations().get(names::STATIC_UID).or(pod.metadata.uid.as_ref());
        Self {
            uid: PodUid::new(uid.map(String::as_str).unwrap_or_default()),
            marks: Marks::of(pod),
            host_network: pod.spec.host_network,
            ended: matches!(&*pod.status.phase, "Succeeded" | "Failed"),
        }
    }
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace {
    /// picop's labels and annotations.
    pub marks: Marks,
}

impl From<&wire::Namespace> for Namespace {
    fn from(namespace: &wire::Namespace) -> Self {
        Self { marks: Marks::of(namespace) }
    }
}

/// What is kept of an [`Environment`].
#[derive(Debug, Clone, PartialEq)]
pub struct Lifetime {
    /// Which object of that name it is.
    pub uid: Arc<str>,
    /// When its routes go.
    pub until: Option<Seconds>,
    /// What becomes of it then.
    pub on_expiry: OnExpiry,
    /// What is written of it.
    pub status: Arc<EnvironmentStatus>,
}

impl From<&Environment> for Lifetime {
    fn from(environment: &Environment) -> Self {
        let ttl = environment.spec.ttl_seconds.map(i64::from);
        Self {
            uid: environment.metadata.uid.as_deref().unwrap_or_default().into(),
            until: ttl.map(|ttl| created(environment).saturating_add(ttl)),
            on_expiry: environment.spec.on_expiry,
            status: Arc::new(environment.status.clone().unwrap_or_default()),
        }
    }
}

/// What is kept of a [`ServicePolicy`].
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// When it was made: of two that contradict each other, the older one holds.
    pub created: Seconds,
    /// What it says.
    pub spec: Arc<ServicePolicySpec>,
    /// What is written of it.
    pub status: Arc<ServicePolicyStatus>,
}

impl From<&ServicePolicy> for Policy {
    fn from(policy: &ServicePolicy) -> Self {
        Self {
            created: created(policy),
            spec: Arc::new(policy.spec.clone()),
            status: Arc::new(policy.status.clone().unwrap_or_default()),
        }
    }
}

/// Everything that is kept, by name. Ordered: the same objects make the same table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Services.
    pub services: BTreeMap<Name, Service>,
    /// EndpointSlices.
    pub slices: BTreeMap<Name, Slice>,
    /// Pods of this node.
    pub pods: BTreeMap<Name, Pod>,
    /// Namespaces.
    pub namespaces: BTreeMap<Name, Namespace>,
    /// Environments.
    pub environments: BTreeMap<Name, Lifetime>,
    /// Policies.
    pub policies: BTreeMap<Name, Policy>,
}

/// A change to what is kept.
#[derive(Debug, Clone)]
pub enum Change<T> {
    /// All objects of the kind there are.
    All(Vec<(Name, T)>),
    /// One that is new, or has changed.
    Put(Name, T),
    /// One that is gone.
    Gone(Name),
}

impl<T: PartialEq> Change<T> {
    /// Makes the change; says whether it was one.
    pub fn apply(self, to: &mut BTreeMap<Name, T>) -> bool {
        match self {
            Self::All(all) => {
                let all: BTreeMap<_, _> = all.into_iter().collect();
                let changed = all != *to;
                *to = all;
                changed
            }
            Self::Put(name, object) => {
                if to.get(&name) == Some(&object) {
                    return false;
                }
                to.insert(name, object);
                true
            }
            Self::Gone(name) => to.remove(&name).is_some(),
        }
    }
}

/// A name for an object of the API server's.
pub(super) fn name_of(object: &impl kube::Resource) -> Name {
    Name::of(object)
}

#[cfg(test)]
mod tests;
