//! The entries of small tables, and that what the hooks decide by them is what the agent decides.

use std::{cell::Cell, net::SocketAddr};

use picop_common::{
    connect::{Decision, Facts, decide},
    maps::Workload,
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::route::{Backends, Weight, WeightedEndpoint};

fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

fn service(name: &str, address: &str, base: &[&str]) -> Service {
    let mut service = Service::new(name, vec![addr(address)]);
    if !base.is_empty() {
        service.base = Base::Endpoints(base.iter().map(|b| addr(b)).collect());
    }
    service
}

fn of(services: Vec<Service>) -> HashMap<RouteKey, Route> {
    let of_base = |service: &Service| match &service.base {
        Base::Itself => 0,
        Base::Endpoints(endpoints) => endpoints.iter().len(),
    };
    let bases: usize = services.iter().map(of_base).sum();
    let table = RouteTable::new(services, vec![]).unwrap();
    let all = entries(&table).unwrap();
    let count = all.len();
    let forward = all.iter().filter(|(key, _)| key.environment != REVERSE).count();
    let counted = super::count(&table).unwrap();
    assert_eq!(counted, forward + bases);
    assert!(counted >= count);
    let map: HashMap<_, _> = all.into_iter().collect();
    assert_eq!(map.len(), count, "no key twice");
    map
}

fn key(environment: u64, address: &str, slot: u32) -> RouteKey {
    RouteKey::new(environment, addr(address).into(), slot)
}

#[test]
fn groups() {
    let mut cart = service("cart", "10.96.0.1:80", &["10.1.0.1:8080", "10.1.0.2:8080"]);
    cart.header = HeaderPolicy::Propagate;
    cart.variants.insert("pr-1".parse().unwrap(), vec![addr("10.2.0.1:8080")].into());
    cart.variants.insert("pr-2".parse().unwrap(), vec![].into());
    let mut db = service("db", "10.96.0.2:3306", &[]);
    db.fallback = Fallback::Refuse;
    db.speaks_first = SpeaksFirst::Server;
    let map = of(vec![cart, db]);
    let base = map[&key(BASE, "10.96.0.1:80", 0)];
    assert_eq!((base.count, base.flags, base.endpoint), (2, ROUTE_PROPAGATE, addr("10.1.0.1:8080").into()));
    assert_eq!(map[&key(BASE, "10.96.0.1:80", 1)].endpoint, addr("10.1.0.2:8080").into());
    assert!(!map.contains_key(&key(BASE, "10.96.0.1:80", 2)));
    assert_eq!(map[&key(environment_key(b"pr-1"), "10.96.0.1:80", 0)].endpoint, addr("10.2.0.1:8080").into());
    assert_eq!(map[&key(environment_key(b"pr-2"), "10.96.0.1:80", 0)].count, 0);
    let db = map[&key(BASE, "10.96.0.2:3306", 0)];
    assert_eq!((db.count, db.flags), (0, ROUTE_REFUSE | ROUTE_SERVER_FIRST | ROUTE_ITSELF));
}

#[test]
fn endpoints_of_the_addresses_own_family_go_first() {
    let map = of(vec![
        service("mixed", "[fd00::1]:80", &["10.1.0.1:80", "[fd01::1]:80", "[fd01::2]:80"]),
        service("other", "[fd00::2]:80", &["10.1.0.1:81"]),
    ]);
    let mixed = map[&key(BASE, "[fd00::1]:80", 0)];
    assert_eq!((mixed.count, mixed.endpoint), (2, addr("[fd01::1]:80").into()));
    assert_eq!(map[&key(BASE, "[fd00::2]:80", 0)].endpoint, addr("10.1.0.1:81").into(), "the relay's");
}

#[test]
fn reverse_entries_are_unambiguous() {
    let map = of(vec![
        service("a", "10.96.0.1:80", &["10.1.0.1:80", "10.1.0.9:80"]),
        service("b", "10.96.0.2:80", &["10.1.0.2:80", "10.1.0.9:80", "10.96.0.1:80"]),
    ]);
    let reverse = |endpoint: &str| map.get(&key(REVERSE, endpoint, 0)).map(|r| SocketAddr::from(r.endpoint));
    assert_eq!(reverse("10.1.0.1:80"), Some(addr("10.96.0.1:80")));
    assert_eq!(reverse("10.1.0.2:80"), Some(addr("10.96.0.2:80")));
    assert_eq!(reverse("10.1.0.9:80"), None, "shared");
    assert_eq!(reverse("10.96.0.1:80"), None, "a service itself");
}

/// The endpoint of that number.
fn member(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, 1], u16::try_from(number + 1).unwrap()))
}

/// A service whose base has endpoints of these weights.
fn weighted(weights: &[u32]) -> Service {
    let endpoints = weights
        .iter()
        .enumerate()
        .map(|(n, weight)| WeightedEndpoint { address: member(n), weight: Weight::new(*weight).unwrap() });
    let mut service = service("cart", "10.96.0.1:80", &[]);
    service.base = Base::Endpoints(endpoints.collect());
    service
}

#[test]
fn the_heaviest_is_first_and_a_drained_one_is_not_there() {
    let map = of(vec![weighted(&[0, 2, 7, 0, 2])]);
    let at = |slot| map.get(&key(BASE, "10.96.0.1:80", slot)).map(|route| SocketAddr::from(route.endpoint));
    assert_eq!([at(0), at(1), at(2), at(3)], [Some(member(2)), Some(member(1)), Some(member(4)), None]);
    assert_eq!(map[&key(BASE, "10.96.0.1:80", 0)].count, 3);
    assert!(
        map.contains_key(&RouteKey::new(REVERSE, member(0).into(), 0)),
        "a drained one is still the service's"
    );

    let mut drained = weighted(&[0, 0]);
    drained.header = HeaderPolicy::Propagate;
    let route = of(vec![drained])[&key(BASE, "10.96.0.1:80", 0)];
    assert_eq!((route.count, route.flags, route.endpoint), (0, ROUTE_PROPAGATE, Endpoint::NONE));
}

#[test]
fn drained_endpoints_leave_their_family_to_the_others() {
    let mut service = service("cart", "[fd00::1]:80", &[]);
    let endpoint =
        |address, weight| WeightedEndpoint { address: addr(address), weight: Weight::new(weight).unwrap() };
    service.base =
        Base::Endpoints([endpoint("[fd01::1]:80", 0), endpoint("10.1.0.1:80", 1)].into_iter().collect());
    let route = of(vec![service])[&key(BASE, "[fd00::1]:80", 0)];
    assert_eq!((route.count, route.endpoint), (1, addr("10.1.0.1:80").into()));
}

#[test]
fn a_large_group_keeps_the_heaviest() {
    let weights: Vec<_> = (1..=300).collect();
    let map = of(vec![weighted(&weights)]);
    assert_eq!(map[&key(BASE, "10.96.0.1:80", 0)].endpoint, member(299).into());
    assert_eq!(map[&key(BASE, "10.96.0.1:80", 255)].endpoint, member(44).into());
    assert!(!map.contains_key(&key(BASE, "10.96.0.1:80", 256)));
}

/// A connection of a managed workload to the service of [`weighted`], as the hooks see it.
struct Connection<'a> {
    client: u64,
    routes: &'a HashMap<RouteKey, Route>,
    unhealthy: Vec<usize>,
    random: Cell<u64>,
    lookups: Cell<usize>,
}

impl Facts for Connection<'_> {
    fn workload(&self) -> Option<Workload> {
        Some(Workload { id: self.client, ..Workload::default() })
    }
    fn is_agent(&self) -> bool {
        false
    }
    fn agent_flags(&self) -> u32 {
        0
    }
    fn is_tcp(&self) -> bool {
        true
    }
    fn destination(&self) -> Endpoint {
        addr("10.96.0.1:80").into()
    }
    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.lookups.set(self.lookups.get() + 1);
        self.routes.get(key).copied()
    }
    fn is_unhealthy(&self, endpoint: &Endpoint) -> bool {
        self.unhealthy.iter().any(|number| *endpoint == member(*number).into())
    }
    fn is_fast_open(&self) -> bool {
        false
    }
    /// `SplitMix64`.
    fn random(&self) -> u32 {
        self.random.set(self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.random.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }
    fn netns_cookie(&self) -> u64 {
        0
    }
    fn is_bound_to_device(&self) -> bool {
        false
    }
    fn heartbeat_age_ns(&self) -> u64 {
        0
    }
}

impl Connection<'_> {
    /// Which endpoint it goes to.
    fn to(&self) -> usize {
        let Decision::Direct { to, .. } = decide(self) else { panic!("{:?}", decide(self)) };
        usize::from(SocketAddr::from(to).port() - 1)
    }
}

/// How far counts are from shares: the largest difference, in standard deviations of a draw by those shares.
fn off(counts: &[f64], shares: &[f64]) -> f64 {
    let total: f64 = counts.iter().sum();
    let deviations = counts.iter().zip(shares).map(|(count, share)| {
        let deviation = (total * share * (1.0 - share)).sqrt();
        (count - total * share).abs() / deviation.max(1.0)
    });
    deviations.fold(0.0, f64::max)
}

/// Counts of 50,000 connections.
fn counts(weights: &[u32], unhealthy: &[usize]) -> Vec<f64> {
    let routes = of(vec![weighted(weights)]);
    let connection = Connection {
        client: 0,
        routes: &routes,
        unhealthy: unhealthy.to_vec(),
        random: Cell::new(1),
        lookups: Cell::new(0),
    };
    let mut counts = vec![0.0; weights.len()];
    for _ in 0..50_000 {
        connection.lookups.set(0);
        counts[connection.to()] += 1.0;
        // The service, the slot that is drawn, and the one it is passed on to.
        assert!(connection.lookups.get() <= 3 || !unhealthy.is_empty());
    }
    counts
}

fn fair(weights: &[u32], unhealthy: &[usize]) -> Vec<f64> {
    let weight = |n: usize| if unhealthy.contains(&n) { 0.0 } else { f64::from(weights[n]) };
    let total: f64 = (0..weights.len()).map(weight).sum();
    (0..weights.len()).map(|n| weight(n) / total).collect()
}

#[test]
fn connections_are_spread_by_weight() {
    for weights in
        [&[1][..], &[1, 1], &[1, 3], &[0, 99, 1], &[1, 1, 1], &[5, 3, 2], &[1, 10, 100, 1000], &[7; 256]]
    {
        let off = off(&counts(weights, &[]), &fair(weights, &[]));
        assert!(off < 6.5, "{weights:?}: {off}");
    }
}

/// The heaviest leaves its share by weight, whatever that is. Another one does where the heaviest is the only other or
/// comes up mostly; else the heaviest gets what comes up twice.
#[test]
fn the_share_of_an_unhealthy_endpoint_goes_to_the_others() {
    for (weights, unhealthy) in [
        (&[90, 9, 1][..], &[0][..]),
        (&[1, 98, 1], &[1]),
        (&[1, 3], &[0]),
        (&[1, 3], &[1]),
        (&[1, 1, 1, 1], &[0]),
    ] {
        let off = off(&counts(weights, unhealthy), &fair(weights, unhealthy));
        assert!(off < 6.5, "{weights:?} without {unhealthy:?}: {off}");
    }
    // Of a quarter of the connections: a quarter to each of the three others, and that which comes up again to the first.
    let off = off(&counts(&[1, 1, 1, 1], &[3]), &[3.0 / 8.0, 5.0 / 16.0, 5.0 / 16.0, 0.0]);
    assert!(off < 6.5, "{off}");
}

#[test]
fn with_all_unhealthy_but_one_of_four_that_one_is_found() {
    for healthy in 0..4 {
        let unhealthy: Vec<_> = (0..4).filter(|n| *n != healthy).collect();
        let counts = counts(&[100, 10, 3, 1], &unhealthy);
        assert!((counts[healthy] - 50_000.0).abs() < 0.5, "{healthy}: {counts:?}");
    }
}

proptest! {
    /// A client goes where the relay would send it, each time; and where that one does not work, to the next one of its own.
    #[test]
    fn a_client_stays_where_the_relay_sends_it(
        weights in vec(prop_oneof![Just(0u32), 1..=3u32, 1..=Weight::MAX], 1..9),
        clients in vec(any::<u64>(), 1..20),
    ) {
        let mut service = weighted(&weights);
        service.balancing = Balancing::Client;
        let Base::Endpoints(endpoints) = service.base.clone() else { unreachable!() };
        prop_assume!(!endpoints.is_empty());
        let backends = Backends::Endpoints(endpoints);
        let routes = of(vec![service]);
        for client in clients {
            let order: Vec<_> = backends.order(Balancing::Client, client, 7);
            let number = |at: &SocketAddr| usize::from(at.port() - 1);
            let mut connection =
                Connection { client, routes: &routes, unhealthy: vec![], random: Cell::new(client), lookups: Cell::new(0) };
            for _ in 0..3 {
                prop_assert_eq!(connection.to(), number(&order[0]));
            }
            prop_assert!(connection.lookups.get() <= 6, "the service, and the client's slot");
            connection.unhealthy = vec![number(&order[0])];
            let next = connection.to();
            // With few endpoints of like weights every one of them is some slot's first.
            let all_first = weights.iter().all(|weight| (1..=3).contains(weight));
            prop_assert!(!all_first || order.len() < 2 || next == number(&order[1]), "{} of {:?}", next, order);
        }
    }

    /// The chances that follow from the entries, added up: no draw, so no statistics.
    #[test]
    fn chances_are_those_of_the_weights(weights in vec(prop_oneof![1..=3u32, 1..=Weight::MAX, Just(Weight::MAX)], 1..257)) {
        const WHOLE: f64 = 4_294_967_296.0;
        let routes = of(vec![weighted(&weights)]);
        let at = |slot| routes[&key(BASE, "10.96.0.1:80", slot)];
        let slots = u32::try_from(weights.len()).unwrap();
        let mut chances = vec![0.0; weights.len()];
        let first = if slots == 1 { 1.0 } else { f64::from(at(0).share) / WHOLE };
        chances[0] = first;
        for slot in 1..slots {
            let route = at(slot);
            prop_assert!(route.alias >= 1 && u32::from(route.alias) < slots);
            let met = (1.0 - first) / f64::from(slots - 1);
            let kept = met * f64::from(route.share) / WHOLE;
            chances[slot as usize] += kept;
            chances[usize::from(route.alias)] += met - kept;
        }
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        for (slot, chance) in (0..slots).zip(chances) {
            let number = usize::from(SocketAddr::from(at(slot).endpoint).port() - 1);
            let fair = f64::from(weights[number]) / total;
            prop_assert!((chance - fair).abs() < 2.0 / WHOLE, "{slot}: {chance} and {fair}");
            prop_assert!(chance > 0.0);
        }
    }
}
