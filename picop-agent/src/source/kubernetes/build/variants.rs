//! Which Services are whose variants.
use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    super::{
        names,
        objects::{Name, Seconds, Service},
        problem::Reason,
    },
    Build,
};
use crate::{protocol::EnvId, source::kubernetes::objects::ServiceKind};

/// The variants of each Service, by environment.
pub(super) type Claims<'a> = BTreeMap<&'a Name, BTreeMap<EnvId, (&'a Name, &'a Service)>>;

/// Settles who is a variant of what. Of two that claim the same, the older one is.
pub(super) fn settle<'a>(build: &mut Build<'a>, now: Seconds) -> Claims<'a> {
    let mut all: Vec<_> = build
        .objects
        .services
        .iter()
        .filter(|(_, service)| service.marks.get(names::VARIANT_OF).is_some())
        .collect();
    all.sort_by_key(|(name, service)| (service.created, *name));
    let mut claims = Claims::new();
    for (name, service) in all {
        let (base, environment) = match claim(build, name, service, now) {
            Ok(claim) => claim,
            Err((reason, message)) => {
                build.problem("Service", name, reason, message);
                continue;
            }
        };
        match claims.entry(base).or_default().entry(environment) {
            Entry::Vacant(vacant) => {
                vacant.insert((name, service));
            }
            Entry::Occupied(taken) => {
                let message = format!(
                    "{base} has the older variant {} in environment {}; remove one, or change an environment",
                    taken.get().0,
                    taken.key()
                );
                build.problem("Service", name, Reason::DuplicateVariant, message);
            }
        }
    }
    claims
}

/// What a Service claims to be: a variant of which one, in which environment.
fn claim<'a>(
    build: &Build<'a>,
    name: &Name,
    service: &Service,
    now: Seconds,
) -> Result<(&'a Name, EnvId), (Reason, String)> {
    let text = service.marks.get(names::VARIANT_OF).unwrap_or_default();
    let (base, namespace) = text.split_once('.').unwrap_or((text, &name.namespace));
    let Some((base, of)) = build.objects.services.get_key_value(&Name::new(namespace, base)) else {
        let message = format!("there is no Service {base} in namespace {namespace} to be a variant of (yet)");
        return Err((Reason::NoSuchService, message));
    };
    if of.marks.get(names::VARIANT_OF).is_some() {
        let message = format!("{base} is a variant itself; name the Service that clients connect to");
        return Err((Reason::VariantOfVariant, message));
    }
    if of.kind == ServiceKind::ExternalName {
        let message = format!("clients connect to no address of {base}, but to those of another name");
        return Err((Reason::ExternalName, message));
    }
    let Some(environment) = build.environment(name, &service.marks) else {
        let message = format!(
            "neither it nor its namespace has the label {}; it is in no environment",
            names::ENVIRONMENT
        );
        return Err((Reason::NoEnvironment, message));
    };
    let environment = EnvId::new(environment).map_err(|why| (Reason::BadEnvironment, why.to_string()))?;
    if base.namespace != name.namespace && !allowed(build, base, of, &name.namespace) {
        let message = format!(
            "{base} takes no variants from namespace {}; annotate it, or its namespace, with {}: {}",
            name.namespace,
            names::VARIANTS_FROM,
            name.namespace
        );
        return Err((Reason::NamespaceNotAllowed, message));
    }
    let lifetime = build.objects.environments.get(&Name::new("", environment.as_str()));
    if lifetime.and_then(|it| it.until).is_some_and(|until| until <= now) {
        let message =
            format!("the time of environment {environment} has run out; its connections go to the base");
        return Err((Reason::EnvironmentExpired, message));
    }
    Ok((base, environment))
}

/// Whether a Service, or its namespace, wants variants from another namespace.
fn allowed(build: &Build<'_>, base: &Name, service: &Service, from: &str) -> bool {
    let namespace = build.objects.namespaces.get(&Name::new("", &base.namespace));
    let said = [Some(&service.marks), namespace.map(|it| &it.marks)];
    let lists = said.into_iter().flatten().filter_map(|marks| marks.get(names::VARIANTS_FROM));
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|wanted| wanted == "*" || wanted == from)
}
