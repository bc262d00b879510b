//! Clients that stay with an endpoint: rendezvous hashing (Thaler and Ravishankar, <https://doi.org/10.1109/90.663936>), by weight.
//!
//! Clients are spread over a fixed number of slots, and each slot has an order of the endpoints that depends on the slot and on
//! them alone. So the hooks and the relay, on this node and after a restart, send a client to the same endpoint; one that goes
//! is missed by its own clients only, and one that comes takes its share from all.
use std::net::{IpAddr, SocketAddr};

use picop_common::route::fnv1a;

use super::endpoints::WeightedEndpoint;

/// How many slots clients are spread over: an endpoint's share of them is near that of its weight to about one part in
/// sixteen.
pub const SLOTS: u32 = 256;

/// In which order a slot's clients try endpoints; drained ones are left out.
pub fn order<'e>(endpoints: impl IntoIterator<Item = &'e WeightedEndpoint>, slot: u32) -> Vec<SocketAddr> {
    let serving = endpoints.into_iter().filter(|endpoint| endpoint.weight.get() > 0);
    let mut scored: Vec<_> = serving
        .map(|endpoint| {
            // Each draws a time from an exponential distribution of its weight's rate, and the first one wins.
            let time = -uniform(endpoint.address, slot).ln() / f64::from(endpoint.weight.get());
            (time, endpoint.address)
        })
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().map(|(_, address)| address).collect()
}

/// A number between 0 and 1, both exclusive, that is the same wherever it is asked for.
fn uniform(address: SocketAddr, slot: u32) -> f64 {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; 22];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..18].copy_from_slice(&address.port().to_be_bytes());
    bytes[18..].copy_from_slice(&slot.to_be_bytes());
    // FNV's high bits know little of the last bytes: mixed once more.
    let mixed = super::endpoints::mix(fnv1a(&bytes));
    (f64::from((mixed >> 32) as u32) + 0.5) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::route::{Weight, strategies};

    fn of(weights: &[Weight]) -> Vec<WeightedEndpoint> {
        let at = |n: u8| SocketAddr::from(([10, 77, 0, n], 8080));
        (1..).zip(weights).map(|(n, weight)| WeightedEndpoint { address: at(n), weight: *weight }).collect()
    }

    proptest! {
        /// One that goes is missed by its own clients only; which is also what one that comes does.
        #[test]
        fn others_stay_where_they_are(weights in vec(strategies::weight(), 1..8), gone in any::<Index>()) {
            let all = of(&weights);
            let gone = gone.index(all.len());
            let mut left = all.clone();
            left.remove(gone);
            for slot in 0..SLOTS {
                let mut before = order(&all, slot);
                before.retain(|at| *at != all[gone].address);
                prop_assert_eq!(order(&left, slot), before);
            }
        }
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let weights = [0, 1, 1, 2, 4].map(|weight| Weight::new(weight).unwrap());
        let endpoints = of(&weights);
        let mut firsts: HashMap<SocketAddr, u32> = HashMap::new();
        for slot in 0..SLOTS * 16 {
            *firsts.entry(order(&endpoints, slot)[0]).or_default() += 1;
        }
        for endpoint in &endpoints {
            let got = f64::from(firsts.get(&endpoint.address).copied().unwrap_or_default());
            let share = got / f64::from(SLOTS * 16);
            let wanted = f64::from(endpoint.weight.get()) / 8.0;
            assert!((share - wanted).abs() < 0.03, "{endpoint:?}: {share}");
        }
    }

    /// What is written into kernels' tables must not change with a build.
    #[test]
    fn the_order_is_the_same_in_every_build() {
        let endpoints = of(&[Weight::ONE; 4]);
        let firsts: Vec<_> = (0..8).map(|slot| order(&endpoints, slot)[0].ip().to_string()).collect();
        let expected = [2, 2, 3, 4, 3, 1, 1, 2].map(|n| format!("10.77.0.{n}"));
        assert_eq!(firsts, expected);
    }
}
