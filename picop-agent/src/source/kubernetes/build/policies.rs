//! ServicePolicies.
use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    super::{
        crd::{AffinityChoice, ExternalEndpoint, ExternalTarget, ServicePolicySpec},
        objects::Name,
        problem::Reason,
    },
    Build,
};
use crate::{
    protocol::EnvId,
    route::{Balancing, Endpoints, Service, Weight, WeightedEndpoint},
    source::file::parse_address,
};

const KIND: &str = "ServicePolicy";

/// Those that hold.
#[derive(Debug, Default)]
pub(super) struct Policies<'a> {
    /// By Service and port; without a port, for all ports that have none of their own.
    of_service: BTreeMap<(Name, Option<u16>), &'a ServicePolicySpec>,
    /// Destinations that are no Services: the policy's name, and what it comes to.
    pub external: Vec<(&'a Name, Service)>,
}

impl<'a> Policies<'a> {
    /// Whether one is for a Service.
    pub(super) fn any(&self, service: &Name) -> bool {
        let from = (service.clone(), None);
        self.of_service.range(from..).next().is_some_and(|((name, _), _)| name == service)
    }

    /// What holds for a port of a Service.
    pub(super) fn of(&self, service: &Name, port: u16) -> Option<&'a ServicePolicySpec> {
        let at = |port| self.of_service.get(&(service.clone(), port)).copied();
        at(Some(port)).or_else(|| at(None))
    }
}

/// Settles which policies hold. Of two for the same, the older one does.
pub(super) fn settle<'a>(build: &mut Build<'a>) -> Policies<'a> {
    let mut all: Vec<_> = build.objects.policies.iter().collect();
    all.sort_by_key(|(name, policy)| (policy.created, *name));
    let mut policies = Policies::default();
    for (name, policy) in all {
        let spec = &*policy.spec;
        if let Some(target) = &spec.service {
            let service = Name::new(&name.namespace, &target.name);
            let object = build.objects.services.get(&service);
            let has = |port: u16| object.is_some_and(|it| it.ports.iter().any(|own| own.number == port));
            if object.is_none() || target.port.is_some_and(|port| !has(port)) {
                let message = format!("there is no Service {service} with that port (yet)");
                build.problem(KIND, name, Reason::NoSuchTarget, message);
            } else if policies.of_service.contains_key(&(service.clone(), target.port)) {
                let message = format!("an older policy is for the same ports of {service}, and holds");
                build.problem(KIND, name, Reason::PolicyConflict, message);
            } else {
                policies.of_service.insert((service, target.port), spec);
            }
        }
        if let Some(target) = &spec.external {
            let service = external(build, name, spec, target);
            policies.external.push((name, service));
        }
    }
    policies
}

fn external(
    build: &mut Build<'_>,
    name: &Name,
    spec: &ServicePolicySpec,
    target: &ExternalTarget,
) -> Service {
    let addresses = parse(build, name, &target.addresses);
    let mut service = Service::new(name.to_string(), addresses);
    for variant in &target.environments {
        let endpoints = weighted(build, name, &variant.endpoints);
        match EnvId::new(&variant.name) {
            Ok(environment) => {
                service.variants.insert(environment, endpoints);
            }
            Err(why) => build.problem(KIND, name, Reason::BadEnvironment, why.to_string()),
        }
    }
    apply(spec, &mut service);
    service
}

fn weighted(build: &mut Build<'_>, name: &Name, endpoints: &[ExternalEndpoint]) -> Endpoints {
    let mut all: Vec<WeightedEndpoint> = Vec::with_capacity(endpoints.len());
    for ExternalEndpoint { address, weight } in endpoints {
        let weight = weight.map_or(Some(Weight::ONE), Weight::new);
        for address in parse(build, name, std::slice::from_ref(address)) {
            match weight {
                // The schema has refused larger ones already, where there is one.
                None => build.problem(
                    KIND,
                    name,
                    Reason::BadWeight,
                    format!("{address}: at most {}", Weight::MAX),
                ),
                Some(_) if all.iter().any(|it| it.address == address) => {}
                Some(weight) => all.push(WeightedEndpoint { address, weight }),
            }
        }
    }
    all.into_iter().collect()
}

fn parse(build: &mut Build<'_>, name: &Name, texts: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::with_capacity(texts.len());
    for text in texts {
        match parse_address(text) {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(why) => build.problem(KIND, name, Reason::BadAddress, format!("{text:?}: {why}")),
        }
    }
    addresses
}

/// What a policy says goes before what was said.
pub(super) fn apply(spec: &ServicePolicySpec, service: &mut Service) {
    let ServicePolicySpec {
        service: _,
        external: _,
        header,
        fallback,
        graft,
        expect_header,
        speaks_first,
        timeouts,
        balancing,
    } = spec;
    if let Some(header) = header {
        service.header = (*header).into();
    }
    if let Some(fallback) = fallback {
        service.fallback = (*fallback).into();
    }
    if let Some(graft) = graft {
        service.graft = (*graft).into();
    }
    if let Some(expect) = expect_header {
        service.expect_header = *expect;
    }
    if let Some(first) = speaks_first {
        service.speaks_first = (*first).into();
    }
    if let Some(timeouts) = timeouts {
        service.timeouts = (*timeouts).into();
    }
    if let Some(affinity) = balancing.and_then(|balancing| balancing.affinity) {
        service.balancing = match affinity {
            AffinityChoice::None => Balancing::Weighted,
            AffinityChoice::Client => Balancing::Client,
        };
    }
}
