//! From the route table to the entries of the kernel's copy. Pure.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use picop_common::{
    addr::Endpoint,
    route::{
        BASE, REVERSE, ROUTE_ITSELF, ROUTE_PROPAGATE, ROUTE_REFUSE, ROUTE_SERVER_FIRST, Route, RouteKey,
        environment_key,
    },
};

use crate::{
    protocol::EnvId,
    route::{Base, Fallback, HeaderPolicy, RouteTable, Service, SpeaksFirst},
};

/// Most endpoints of one group that direct connections are spread over; the relay uses all.
const GROUP_MAX: usize = 256;

/// Two environments cannot be told apart by their keys.
#[derive(Debug, thiserror::Error)]
#[error("environments {0} and {1} have the same 64-bit key; rename one of them")]
pub struct KeyCollision(EnvId, String);

/// All entries for a table, without duplicates.
pub fn entries(table: &RouteTable) -> Result<Vec<(RouteKey, Route)>, KeyCollision> {
    let mut keys = HashMap::new();
    for environment in table.environments() {
        let key = environment_key(environment.as_str().as_bytes());
        if key == BASE || key == REVERSE {
            return Err(KeyCollision(environment.clone(), "(none)".into()));
        }
        if let Some(other) = keys.insert(key, environment.clone()) {
            return Err(KeyCollision(environment.clone(), other.to_string()));
        }
    }
    let mut entries = Vec::new();
    for service in table.services() {
        for address in &service.addresses {
            service_entries(&mut entries, service, (*address).into());
        }
    }
    reverse_entries(&mut entries, table);
    Ok(entries)
}

fn service_entries(entries: &mut Vec<(RouteKey, Route)>, service: &Service, address: Endpoint) {
    let mut flags = 0;
    if service.header == HeaderPolicy::Propagate {
        flags |= ROUTE_PROPAGATE;
    }
    if service.fallback == Fallback::Refuse {
        flags |= ROUTE_REFUSE;
    }
    if service.speaks_first == SpeaksFirst::Server {
        flags |= ROUTE_SERVER_FIRST;
    }
    match &service.base {
        Base::Itself => group(entries, BASE, address, &[], flags | ROUTE_ITSELF),
        Base::Endpoints(endpoints) => group(entries, BASE, address, endpoints.as_slice(), flags),
    }
    for (environment, endpoints) in &service.variants {
        let key = environment_key(environment.as_str().as_bytes());
        group(entries, key, address, endpoints.as_slice(), 0);
    }
}

/// A group of endpoints under a service's address. Where there are endpoints of the address's own family, those of the
/// other are left to the relay: a socket cannot change its family.
fn group(
    entries: &mut Vec<(RouteKey, Route)>,
    environment: u64,
    address: Endpoint,
    endpoints: &[SocketAddr],
    flags: u16,
) {
    let all = endpoints.iter().map(|e| Endpoint::from(*e));
    let same: Vec<_> = all.clone().filter(|e| e.ip.is_v4() == address.ip.is_v4()).take(GROUP_MAX).collect();
    let usable = if same.is_empty() { all.take(GROUP_MAX).collect() } else { same };
    let count = u16::try_from(usable.len()).expect("GROUP_MAX fits");
    let first = usable.first().copied().unwrap_or(Endpoint::NONE);
    let key = |slot| RouteKey::new(environment, address, slot);
    entries.push((key(0), Route { endpoint: first, count, flags }));
    for (slot, endpoint) in (1..).zip(usable.iter().skip(1)) {
        entries.push((key(slot), Route { endpoint: *endpoint, count: 0, flags: 0 }));
    }
}

/// From base endpoints back to the service whose they are; none for those several services share, or that are a service's
/// address themselves: nobody can tell what a client that connects there meant.
fn reverse_entries(entries: &mut Vec<(RouteKey, Route)>, table: &RouteTable) {
    let mut owners: HashMap<Endpoint, Option<Endpoint>> = HashMap::new();
    let mut taken = HashSet::new();
    for service in table.services() {
        taken.extend(service.addresses.iter().map(|a| Endpoint::from(*a)));
        let Base::Endpoints(endpoints) = &service.base else { continue };
        for endpoint in endpoints.as_slice().iter().map(|e| Endpoint::from(*e)) {
            let same_family = |a: &Endpoint| a.ip.is_v4() == endpoint.ip.is_v4();
            let Some(address) = service.addresses.iter().map(|a| Endpoint::from(*a)).find(same_family) else {
                continue;
            };
            owners.entry(endpoint).and_modify(|owner| *owner = None).or_insert(Some(address));
        }
    }
    let reverse = owners.into_iter().filter(|(endpoint, _)| !taken.contains(endpoint)).filter_map(
        |(endpoint, owner)| {
            let route = Route { endpoint: owner?, count: 0, flags: 0 };
            Some((RouteKey::new(REVERSE, endpoint, 0), route))
        },
    );
    entries.extend(reverse);
}

#[cfg(test)]
mod tests;
