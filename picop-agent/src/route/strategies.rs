//! Random tables for property tests: few names, so that they meet.
use std::net::SocketAddr;

use proptest::{collection, option, prelude::*, sample};

use super::{Base, Endpoints, Fallback, HeaderPolicy, RouteTable, Service, Weight, WeightedEndpoint};
use crate::protocol::EnvId;

pub fn env(name: &str) -> EnvId {
    EnvId::new(name).unwrap()
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The address of the service with that number.
pub fn service_address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, u8::try_from(number).unwrap()], 80))
}

/// An environment that tables may or may not know.
pub fn environment() -> impl Strategy<Value = EnvId> {
    (0..6u8).prop_map(|n| env(&format!("pr-{n}")))
}

/// One, drained, or of little or much weight.
pub fn weight() -> impl Strategy<Value = Weight> {
    prop_oneof![2 => Just(1), 1 => Just(0), 2 => 0..10u32, 1 => 0..=Weight::MAX, 1 => Just(Weight::MAX)]
        .prop_map(|weight| Weight::new(weight).unwrap())
}

fn endpoints(least: usize) -> impl Strategy<Value = Endpoints> {
    let addresses = sample::subsequence(
        (1..=5).map(|n| SocketAddr::from(([10, 77, 0, n], 8080))).collect::<Vec<_>>(),
        least..=4,
    );
    (addresses, [(); 4].map(|()| weight())).prop_map(|(addresses, weights)| {
        addresses
            .into_iter()
            .zip(weights)
            .map(|(address, weight)| WeightedEndpoint { address, weight })
            .collect()
    })
}

/// A service whose name and address follow from its number.
pub fn service(number: usize) -> impl Strategy<Value = Service> {
    let header = sample::select(&[HeaderPolicy::Strip, HeaderPolicy::Propagate][..]);
    let fallback = sample::select(&[Fallback::Base, Fallback::Refuse, Fallback::Wait][..]);
    let base = option::of(endpoints(0)).prop_map(|base| base.map_or(Base::Itself, Base::Endpoints));
    let variants = collection::hash_map(environment(), endpoints(0), 0..4);
    (header, fallback, base, variants).prop_map(move |(header, fallback, base, variants)| Service {
        header,
        base,
        variants,
        fallback,
        ..Service::new(format!("service-{number}"), vec![service_address(number)])
    })
}

/// Services 0 to 4, and a table of them.
pub fn services() -> impl Strategy<Value = Vec<Service>> {
    (service(0), service(1), service(2), service(3), service(4))
        .prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e])
}

pub fn table(services: Vec<Service>) -> RouteTable {
    RouteTable::new(services, vec![]).unwrap()
}
