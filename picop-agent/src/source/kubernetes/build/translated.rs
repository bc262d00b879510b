//! Endpoints that cluster IPs may have been translated to, where a socket load-balancer comes before picop.
use std::{collections::HashMap, net::SocketAddr};

use super::{
    super::{
        objects::{Name, Port, Service, ServiceKind},
        problem::Reason,
    },
    Build, Translation, endpoints,
    services::entry_name,
};
use crate::route;

/// What connections to a port of a Service may have been translated to: any endpoint, in whatever state, as the other program
/// chooses by its own rules.
pub(super) fn of(build: &Build<'_>, name: &Name, service: &Service, port: &Port) -> Vec<SocketAddr> {
    match (&service.kind, build.translation) {
        (ServiceKind::Addresses { .. }, Translation::Possible) => {
            endpoints::known(build.slices(name), &port.name)
        }
        // Clients of a headless Service connect to its endpoints, which are its addresses.
        _ => Vec::new(),
    }
}

/// A port of a Service, as the table names it.
type Entry = String;

/// Whose an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Nobody,
    One(Entry),
    /// Two of them.
    Several(Entry, Entry),
}

impl Owner {
    fn add(&mut self, entry: Entry) {
        *self = match std::mem::replace(self, Self::Nobody) {
            Self::Nobody => Self::One(entry),
            Self::One(first) if first != entry => Self::Several(first, entry),
            same => same,
        };
    }
}

/// Takes out what is another Service's endpoint as well, one of the table or not: a connection there may be that one's.
pub(super) fn keep_own(build: &mut Build<'_>, services: &mut [route::Service]) {
    let mut owners: HashMap<SocketAddr, Owner> = HashMap::new();
    owners.extend(services.iter().flat_map(|it| &it.translated).map(|at| (*at, Owner::Nobody)));
    if owners.is_empty() {
        return;
    }
    let objects = build.objects;
    for (name, service) in objects.services.iter().filter(|(_, it)| it.kind != ServiceKind::ExternalName) {
        for port in &service.ports {
            for at in endpoints::known(build.slices(name), &port.name) {
                owners.entry(at).and_modify(|owner| owner.add(entry_name(name, port.number)));
            }
        }
    }
    for service in services {
        let mut shared = None;
        service.translated.retain(|at| match owners.get(at) {
            Some(Owner::Several(one, other)) => {
                shared.get_or_insert((*at, if *one == service.name { other } else { one }));
                false
            }
            _ => true,
        });
        let name = service.name.rsplit_once(':').and_then(|(name, _)| name.split_once('/'));
        // Without variants it misses nothing.
        if let (Some((at, other)), Some((namespace, name)), false) =
            (shared, name, service.variants.is_empty())
        {
            let message = format!(
                "{at} is an endpoint of {other} as well; a connection that another program of the node's has translated to it \
                 may be either's, and is left alone"
            );
            build.problem("Service", &Name::new(namespace, name), Reason::SharedEndpoints, message);
        }
    }
}
