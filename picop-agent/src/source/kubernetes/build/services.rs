//! From Services to the table's.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
};

use super::{
    super::{
        crd::BalancingChoice,
        names,
        objects::{Marks, Name, Port, Service, ServiceKind},
        problem::Reason,
    },
    Build, Translation, Variant, endpoints,
    marks::Said,
    policies::{self, Policies},
    translated,
    variants::Claims,
};
use crate::{
    protocol::EnvId,
    route::{self, Balancing, Endpoints, Fallback},
    source::file::is_host,
};

const KIND: &str = "Service";

type OfService<'a> = BTreeMap<EnvId, (&'a Name, &'a Service)>;

/// The services of the table, and what each environment has of them. `all` also takes those of which nothing is asked.
pub(super) fn all(
    build: &mut Build<'_>,
    claims: &Claims<'_>,
    policies: &Policies<'_>,
    all: bool,
) -> (Vec<route::Service>, BTreeMap<EnvId, Vec<Variant>>) {
    let none = OfService::new();
    let mut order: Vec<_> = build.objects.services.iter().collect();
    // Whoever comes first has an address: those of which something is asked, then the older ones.
    let rank = |name: &Name, service: &Service| (!claims.contains_key(name), !asks(service), service.created);
    order.sort_by_cached_key(|(name, service)| (rank(name, service), (*name).clone()));
    let mut out = Out::default();
    for (name, service) in order {
        let variants = claims.get(name).unwrap_or(&none);
        if !variants.is_empty() || asks(service) || all || policies.any(name) {
            ports(build, &mut out, name, service, variants, policies);
        }
    }
    for (name, external) in &policies.external {
        if let Some(service) = out.take_addresses(build, "ServicePolicy", name, external.clone()) {
            out.services.push(service);
        }
    }
    translated::keep_own(build, &mut out.services);
    (out.services, out.environments)
}

/// Whether a Service says how it is to be treated.
fn asks(service: &Service) -> bool {
    let keys = [names::HEADER, names::FALLBACK, names::GRAFT, names::EXPECT_HEADER, names::SPEAKS_FIRST];
    keys.iter().any(|key| service.marks.get(key).is_some())
}

#[derive(Default)]
struct Out {
    services: Vec<route::Service>,
    environments: BTreeMap<EnvId, Vec<Variant>>,
    taken: HashMap<SocketAddr, Name>,
}

impl Out {
    /// Leaves a service those of its addresses that nobody has yet. None if none is left.
    fn take_addresses(
        &mut self,
        build: &mut Build<'_>,
        kind: &'static str,
        name: &Name,
        mut service: route::Service,
    ) -> Option<route::Service> {
        // Where a variant listens, nobody means the base.
        let variants: HashSet<_> = service.variants.values().flatten().map(|it| it.address).collect();
        service.addresses.retain(|address| {
            if variants.contains(address) {
                let message =
                    format!("{address} is one of its endpoints and one of a variant's; narrow its selector");
                build.problem(kind, name, Reason::VariantInBase, message);
                return false;
            }
            if let Some(owner) = self.taken.get(address) {
                let message = format!("{address} is an address of {owner} already");
                build.problem(kind, name, Reason::AddressTaken, message);
                return false;
            }
            self.taken.insert(*address, name.clone());
            true
        });
        (!service.addresses.is_empty()).then_some(service)
    }
}

fn ports(
    build: &mut Build<'_>,
    out: &mut Out,
    name: &Name,
    service: &Service,
    variants: &OfService<'_>,
    policies: &Policies<'_>,
) {
    if service.kind == ServiceKind::ExternalName {
        let message = "clients connect to no address of it, but to those of another name; a ServicePolicy with `external` \
                       can name those";
        return build.problem(KIND, name, Reason::ExternalName, message);
    }
    let settings = settings(build, name, &service.marks);
    let (mut seen, mut ready, mut reached) = (BTreeSet::new(), BTreeMap::<&EnvId, usize>::new(), false);
    for port in service.ports.iter().filter(|port| seen.insert(port.number)) {
        let addresses = addresses(build, name, service, port);
        let mut entry = route::Service { addresses, ..settings.clone() };
        let policy = policies.of(name, port.number);
        let balancing = policy.and_then(|policy| policy.balancing).unwrap_or_default();
        let sticky = variants.values().any(|(_, variant)| variant.affinity);
        if sticky && by_ourselves(build, balancing) {
            entry.balancing = Balancing::Client;
        }
        entry.name = entry_name(name, port.number);
        for (environment, (of, variant)) in variants {
            let Some(endpoints) = variant_endpoints(build, (of, variant), port, &service.ports, balancing)
            else {
                let message =
                    format!("it has no counterpart of port {} of {name}, where the base serves", port.number);
                build.problem(KIND, of, Reason::PortMissing, message);
                continue;
            };
            *ready.entry(environment).or_default() += endpoints.len();
            entry.variants.insert(environment.clone(), Endpoints::from(endpoints));
        }
        if let Some(policy) = policy {
            policies::apply(policy, &mut entry);
        }
        check_overlap(build, name, port, &entry);
        entry.translated = translated::of(build, name, service, port);
        if let Some(entry) = out.take_addresses(build, KIND, name, entry) {
            out.services.push(entry);
            reached = true;
        }
    }
    if !reached && !variants.is_empty() {
        build.problem(
            KIND,
            name,
            Reason::NothingToRoute,
            "it has no address, or no TCP port, that clients could mean",
        );
    }
    for (environment, (of, variant)) in variants {
        let ready = ready.get(environment).copied().unwrap_or_default();
        if variant.kind == ServiceKind::ExternalName {
            let message =
                "picop does not resolve the name it stands for; it counts as a variant that is not ready";
            build.problem(KIND, of, Reason::ExternalName, message);
        }
        let variant =
            Variant { service: name.clone(), variant: (*of).clone(), since: variant.created, ready };
        out.environments.entry(environment.clone()).or_default().push(variant);
    }
}

/// What the table calls a port of a Service.
pub(super) fn entry_name(name: &Name, port: u16) -> String {
    format!("{name}:{port}")
}

/// A service that has nothing but what the annotations say.
fn settings(build: &mut Build<'_>, name: &Name, marks: &Marks) -> route::Service {
    let mut service = route::Service::new("", vec![]);
    service.header = build.value(KIND, name, marks, names::HEADER).value().unwrap_or_default();
    service.graft = build.value(KIND, name, marks, names::GRAFT).value().unwrap_or_default();
    service.speaks_first = build.value(KIND, name, marks, names::SPEAKS_FIRST).value().unwrap_or_default();
    service.expect_header = build.value(KIND, name, marks, names::EXPECT_HEADER).value().unwrap_or_default();
    service.fallback = match build.value(KIND, name, marks, names::FALLBACK) {
        Said::This(fallback) => fallback,
        Said::Nothing => Fallback::default(),
        // A mistake must not show a base what it must not see.
        Said::Nonsense => Fallback::Refuse,
    };
    service
}

/// Where clients connect for a port of a Service.
fn addresses(build: &Build<'_>, name: &Name, service: &Service, port: &Port) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    let all = match &service.kind {
        ServiceKind::Addresses { cluster, external } => {
            let ips = cluster.iter().chain(external);
            ips.map(|ip| SocketAddr::new(ip.to_canonical(), port.number)).collect()
        }
        ServiceKind::Headless => endpoints::known(build.slices(name), &port.name),
        ServiceKind::ExternalName => vec![],
    };
    all.into_iter().filter(|address| is_host(*address) && seen.insert(*address)).collect()
}

/// Where a variant serves what its base does at `port`; none if it does not.
fn variant_endpoints(
    build: &Build<'_>,
    (name, variant): (&Name, &Service),
    port: &Port,
    base: &[Port],
    balancing: BalancingChoice,
) -> Option<Vec<SocketAddr>> {
    let own = counterpart(port, base, &variant.ports)?;
    let endpoints = endpoints::taking(
        build.slices(name),
        &own.name,
        variant.local_only,
        balancing.topology.unwrap_or_default(),
    );
    match &variant.kind {
        ServiceKind::ExternalName => Some(vec![]),
        // Who stays with which endpoint is known where cluster IPs are translated.
        ServiceKind::Addresses { cluster, .. }
            if variant.affinity
                && !by_ourselves(build, balancing)
                && !cluster.is_empty()
                && !endpoints.is_empty() =>
        {
            Some(
                cluster.iter().map(|ip| SocketAddr::new(*ip, own.number)).filter(|it| is_host(*it)).collect(),
            )
        }
        _ => Some(endpoints),
    }
}

/// Whether a variant's endpoint is chosen here though its Service has `sessionAffinity`: a policy says how, or nobody translates
/// the cluster IP any more once picop has put it there.
fn by_ourselves(build: &Build<'_>, balancing: BalancingChoice) -> bool {
    balancing.affinity.is_some() || build.translation == Translation::Possible
}

/// The port of a variant that stands for one of the base's: of the same number, else of the same name, else the only one.
fn counterpart<'p>(port: &Port, base: &[Port], variant: &'p [Port]) -> Option<&'p Port> {
    let same_number = || variant.iter().find(|it| it.number == port.number);
    let same_name = || variant.iter().find(|it| !it.name.is_empty() && it.name == port.name);
    let only = || if let ([_], [only]) = (base, variant) { Some(only) } else { None };
    same_number().or_else(same_name).or_else(only)
}

/// A base whose selector selects its variants too sends everybody's connections there.
fn check_overlap(build: &mut Build<'_>, name: &Name, port: &Port, entry: &route::Service) {
    if entry.variants.is_empty() {
        return;
    }
    let base: HashSet<_> = endpoints::known(build.slices(name), &port.name).into_iter().collect();
    let mut variants = entry.variants.values().flatten();
    if let Some(shared) = variants.find(|it| base.contains(&it.address)) {
        let message = format!(
            "{} is one of its endpoints and one of a variant's: connections of no environment reach it; narrow its selector",
            shared.address
        );
        build.problem(KIND, name, Reason::VariantInBase, message);
    }
}
