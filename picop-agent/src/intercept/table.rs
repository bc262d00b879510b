//! From the route table to the entries of the kernel's copy. Pure.

mod shares;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use picop_common::{
    addr::Endpoint,
    route::{
        BASE, REVERSE, ROUTE_GRAFT_ALWAYS, ROUTE_GRAFT_NEVER, ROUTE_ITSELF, ROUTE_PROPAGATE, ROUTE_REFUSE,
        ROUTE_SERVER_FIRST, ROUTE_WAIT, Route, RouteKey, environment_key,
    },
};

use crate::{
    protocol::EnvId,
    route::{Base, Endpoints, Fallback, GraftPolicy, HeaderPolicy, RouteTable, Service, SpeaksFirst},
};

/// Most endpoints of one group that direct connections are spread over, the heaviest; the relay uses all.
const GROUP_MAX: usize = 256;

/// Two environments cannot be told apart by their keys.
#[derive(Debug, thiserror::Error)]
#[error("environments {0} and {1} have the same 64-bit key; rename one of them")]
pub struct KeyCollision(EnvId, String);

/// All entries for a table, without duplicates.
pub fn entries(table: &RouteTable) -> Result<Vec<(RouteKey, Route)>, KeyCollision> {
    check_keys(table)?;
    let mut entries = Vec::new();
    for service in table.services() {
        for address in &service.addresses {
            service_entries(&mut entries, service, (*address).into());
        }
    }
    reverse_entries(&mut entries, table);
    Ok(entries)
}

/// How many [`entries`] a table has, without making them; those of [`REVERSE`] are counted for every base endpoint, though
/// some are left out.
pub fn count(table: &RouteTable) -> Result<usize, KeyCollision> {
    check_keys(table)?;
    let of = |service: &Service| -> usize {
        let none = Endpoints::default();
        let base = match &service.base {
            Base::Itself => &none,
            Base::Endpoints(endpoints) => endpoints,
        };
        let groups = || std::iter::once(base).chain(service.variants.values());
        let at = |is_v4| -> usize { groups().map(|group| usable(is_v4, group).len().max(1)).sum() };
        let v4 = service.addresses.iter().filter(|address| Endpoint::from(**address).ip.is_v4()).count();
        v4 * at(true) + (service.addresses.len() - v4) * at(false) + base.iter().len()
    };
    Ok(table.services().iter().map(|service| of(service)).sum())
}

fn check_keys(table: &RouteTable) -> Result<(), KeyCollision> {
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
    Ok(())
}

fn service_entries(entries: &mut Vec<(RouteKey, Route)>, service: &Service, address: Endpoint) {
    let mut flags = 0;
    if service.header == HeaderPolicy::Propagate {
        flags |= ROUTE_PROPAGATE;
    }
    flags |= match service.fallback {
        Fallback::Base => 0,
        Fallback::Refuse => ROUTE_REFUSE,
        Fallback::Wait => ROUTE_WAIT,
    };
    if service.speaks_first == SpeaksFirst::Server {
        flags |= ROUTE_SERVER_FIRST;
    }
    flags |= match service.graft {
        GraftPolicy::Auto => 0,
        GraftPolicy::Always => ROUTE_GRAFT_ALWAYS,
        GraftPolicy::Never => ROUTE_GRAFT_NEVER,
    };
    match &service.base {
        Base::Itself => group(entries, BASE, address, &Endpoints::default(), flags | ROUTE_ITSELF),
        Base::Endpoints(endpoints) => group(entries, BASE, address, endpoints, flags),
    }
    for (environment, endpoints) in &service.variants {
        group(entries, environment_key(environment.as_str().as_bytes()), address, endpoints, 0);
    }
}

/// The endpoints of a group that direct connections use, and their weights, the heaviest first, without drained ones. Where
/// there are some of the service address's family, those of the other are left to the relay: a socket cannot change its
/// family.
fn usable(is_v4: bool, endpoints: &Endpoints) -> Vec<(Endpoint, u32)> {
    let mut usable: Vec<_> =
        endpoints.serving().map(|it| (Endpoint::from(it.address), it.weight.get())).collect();
    let own_family = |(it, _): &(Endpoint, u32)| it.ip.is_v4() == is_v4;
    if usable.iter().any(own_family) {
        usable.retain(own_family);
    }
    // Stable: among equals, the order of the file.
    usable.sort_by_key(|(_, weight)| Reverse(*weight));
    usable.truncate(GROUP_MAX);
    usable
}

/// A group of endpoints under a service's address.
fn group(
    entries: &mut Vec<(RouteKey, Route)>,
    environment: u64,
    address: Endpoint,
    endpoints: &Endpoints,
    flags: u16,
) {
    let usable = usable(address.ip.is_v4(), endpoints);
    let key = |slot| RouteKey::new(environment, address, slot);
    if usable.is_empty() {
        entries.push((key(0), Route { flags, ..Route::default() }));
        return;
    }
    let weights: Vec<_> = usable.iter().map(|(_, weight)| *weight).collect();
    for ((slot, (endpoint, _)), share) in (0..).zip(usable).zip(shares::shares(&weights)) {
        let (count, flags) = match slot {
            0 => (u16::try_from(weights.len()).expect("GROUP_MAX fits"), flags),
            _ => (0, 0),
        };
        entries.push((
            key(slot),
            Route { endpoint, count, flags, share: share.share, alias: share.alias, pad: 0 },
        ));
    }
}

/// From base endpoints, drained or not, back to the service whose they are; none for those several services share, or that
/// are a service's address themselves: nobody can tell what a client that connects there meant.
fn reverse_entries(entries: &mut Vec<(RouteKey, Route)>, table: &RouteTable) {
    let mut owners: HashMap<Endpoint, Option<Endpoint>> = HashMap::new();
    let mut taken = HashSet::new();
    for service in table.services() {
        taken.extend(service.addresses.iter().map(|a| Endpoint::from(*a)));
        let Base::Endpoints(endpoints) = &service.base else { continue };
        for endpoint in endpoints.iter().map(|e| Endpoint::from(e.address)) {
            let same_family = |a: &Endpoint| a.ip.is_v4() == endpoint.ip.is_v4();
            let Some(address) = service.addresses.iter().map(|a| Endpoint::from(*a)).find(same_family) else {
                continue;
            };
            owners.entry(endpoint).and_modify(|owner| *owner = None).or_insert(Some(address));
        }
    }
    let reverse = owners.into_iter().filter(|(endpoint, _)| !taken.contains(endpoint)).filter_map(
        |(endpoint, owner)| {
            let route = Route { endpoint: owner?, ..Route::default() };
            Some((RouteKey::new(REVERSE, endpoint, 0), route))
        },
    );
    entries.extend(reverse);
}

#[cfg(test)]
mod tests;
