//! From the route table to the entries of the kernel's copy. Pure.

mod shares;

use std::{cmp::Reverse, collections::HashMap, net::SocketAddr};

use picop_common::{
    addr::Endpoint,
    route::{
        BASE, REVERSE, ROUTE_BY_CLIENT, ROUTE_GRAFT_ALWAYS, ROUTE_GRAFT_NEVER, ROUTE_ITSELF, ROUTE_PROPAGATE,
        ROUTE_REFUSE, ROUTE_SERVER_FIRST, ROUTE_WAIT, Route, RouteKey, environment_key,
    },
};

use crate::{
    protocol::EnvId,
    route::{
        Balancing, Base, Endpoints, Fallback, GraftPolicy, HeaderPolicy, RouteTable, Service, SpeaksFirst,
        affinity,
    },
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

/// How many [`entries`] a table has, without making them; those of [`REVERSE`] are counted for every endpoint that could
/// have one, though some are left out.
pub fn count(table: &RouteTable) -> Result<usize, KeyCollision> {
    check_keys(table)?;
    let of = |service: &Service| -> usize {
        let none = Endpoints::default();
        let base = match &service.base {
            Base::Itself => &none,
            Base::Endpoints(endpoints) => endpoints,
        };
        let groups = || std::iter::once(base).chain(service.variants.values());
        let slots = |usable: usize| match service.balancing {
            Balancing::Client if usable > 1 => affinity::SLOTS as usize,
            _ => usable.max(1),
        };
        let at = |is_v4| -> usize { groups().map(|group| slots(usable(is_v4, group).len())).sum() };
        let v4 = service.addresses.iter().filter(|address| Endpoint::from(**address).ip.is_v4()).count();
        v4 * at(true)
            + (service.addresses.len() - v4) * at(false)
            + base.iter().len()
            + service.translated.len()
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
    let mut group = |environment, endpoints: &Endpoints, flags| match service.balancing {
        Balancing::Weighted => group(entries, environment, address, endpoints, flags),
        Balancing::Client => group_by_client(entries, environment, address, endpoints, flags),
    };
    match &service.base {
        Base::Itself => group(BASE, &Endpoints::default(), flags | ROUTE_ITSELF),
        Base::Endpoints(endpoints) => group(BASE, endpoints, flags),
    }
    for (environment, endpoints) in &service.variants {
        group(environment_key(environment.as_str().as_bytes()), endpoints, 0);
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
    if usable.is_empty() {
        entries.push((RouteKey::new(environment, address, 0), Route { flags, ..Route::default() }));
        return;
    }
    let weights: Vec<_> = usable.iter().map(|(_, weight)| *weight).collect();
    let route = |((endpoint, _), share): ((Endpoint, u32), shares::Share)| Route {
        endpoint,
        share: share.share,
        alias: share.alias,
        ..Route::default()
    };
    let routes = usable.into_iter().zip(shares::shares(&weights)).map(route);
    slots(entries, environment, address, flags, routes);
}

/// A group's slots. The first tells how many there are, and the flags.
fn slots(
    entries: &mut Vec<(RouteKey, Route)>,
    environment: u64,
    address: Endpoint,
    flags: u16,
    routes: impl ExactSizeIterator<Item = Route>,
) {
    let all = u16::try_from(routes.len()).expect("GROUP_MAX and affinity::SLOTS fit");
    for (slot, route) in (0..).zip(routes) {
        let (count, flags) = if slot == 0 { (all, flags) } else { (0, 0) };
        entries.push((RouteKey::new(environment, address, slot), Route { count, flags, ..route }));
    }
}

/// The same where a client is to stay with one of them.
fn group_by_client(
    entries: &mut Vec<(RouteKey, Route)>,
    environment: u64,
    address: Endpoint,
    endpoints: &Endpoints,
    flags: u16,
) {
    let usable = usable(address.ip.is_v4(), endpoints);
    if usable.len() < 2 {
        return group(entries, environment, address, endpoints, flags);
    }
    let usable: Vec<_> = endpoints
        .serving()
        .filter(|it| usable.iter().any(|(endpoint, _)| *endpoint == Endpoint::from(it.address)))
        .collect();
    let orders: Vec<_> =
        (0..affinity::SLOTS).map(|slot| affinity::order(usable.iter().copied(), slot)).collect();
    let mut slot_of: HashMap<SocketAddr, u16> = HashMap::new();
    for (slot, order) in (0..).zip(&orders) {
        slot_of.entry(order[0]).or_insert(slot);
    }
    let route = |(slot, order): (u16, &Vec<SocketAddr>)| {
        // One that is nobody's first has no slot.
        let next = order[1..].iter().find_map(|next| slot_of.get(next));
        let alias = next.copied().unwrap_or(slot);
        Route { endpoint: order[0].into(), alias, ..Route::default() }
    };
    let count = u16::try_from(orders.len()).expect("few slots");
    let routes = (0..count).zip(&orders).map(route);
    slots(entries, environment, address, flags | ROUTE_BY_CLIENT, routes);
}

/// From where a connection may have been translated to, back to the service it meant.
fn reverse_entries(entries: &mut Vec<(RouteKey, Route)>, table: &RouteTable) {
    entries.extend(table.translations().filter_map(|(at, service)| {
        let address = service.addresses.iter().find(|address| address.is_ipv4() == at.is_ipv4())?;
        let route = Route { endpoint: (*address).into(), ..Route::default() };
        Some((RouteKey::new(REVERSE, at.into(), 0), route))
    }));
}

#[cfg(test)]
mod tests;
