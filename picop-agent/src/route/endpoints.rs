//! Endpoints that share the connections of a service or variant by weight.
use std::{net::SocketAddr, slice, sync::Arc};

use super::service::unmapped;

/// What share of the connections an endpoint gets: its weight by the sum of all. One of weight 0 is drained: it gets none,
/// not even when the others fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// The largest, that of a backend in Kubernetes' Gateway API.
    pub const MAX: u32 = 1_000_000;
    /// That of an endpoint of which nothing is said.
    pub const ONE: Self = Self(1);

    /// None if it is larger than [`Weight::MAX`].
    pub const fn new(weight: u32) -> Option<Self> {
        if weight <= Self::MAX { Some(Self(weight)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// An address, and how much of the connections it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightedEndpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// How often.
    pub weight: Weight,
}

/// Endpoints and their weights. A clone costs a reference count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints(Arc<[WeightedEndpoint]>);

impl Endpoints {
    /// All of them, drained ones too, in the order they were given, v4-mapped addresses as IPv4.
    pub fn iter(&self) -> slice::Iter<'_, WeightedEndpoint> {
        self.0.iter()
    }

    /// Those that get connections.
    pub fn serving(&self) -> impl Iterator<Item = &WeightedEndpoint> {
        self.iter().filter(|endpoint| endpoint.weight.get() > 0)
    }

    /// Whether no endpoint gets connections: known, but nothing ready.
    pub fn is_empty(&self) -> bool {
        self.serving().next().is_none()
    }

    /// Each that gets connections once, in the order to try them: what [`Backends::in_turn`](super::Backends::in_turn)
    /// promises.
    pub(super) fn in_turn(&self, turn: usize) -> Vec<SocketAddr> {
        let mut order: Vec<_> = self.serving().collect();
        let total = order.iter().map(|endpoint| u64::from(endpoint.weight.get())).sum();
        let mut left = part(turn as u64, total);
        let first = order.iter().position(|endpoint| {
            let weight = u64::from(endpoint.weight.get());
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        });
        if let Some(first) = first {
            order[..=first].rotate_right(1);
            sort_by_chance(&mut order[1..], turn as u64);
        }
        order.into_iter().map(|endpoint| endpoint.address).collect()
    }
}

/// A number below `total` for a turn. The fractions of the multiples of the golden ratio fill the range as evenly as any
/// sequence does, and so do those of every k-th multiple: whoever gets only some of the turns, be it every second one, is
/// served evenly all the same. (Remainders of the turn would not do that.)
fn part(turn: u64, total: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let fraction = turn.wrapping_mul(GOLDEN);
    ((u128::from(fraction) * u128::from(total)) >> 64) as u64
}

/// Puts endpoints into a random order in which the first is each with the chance of its weight, the second each of the
/// others with the chance of its, and so on (Efraimidis and Spirakis, <https://doi.org/10.1016/j.ipl.2005.11.003>): the
/// share of one that fails goes to the others by their weights.
fn sort_by_chance(endpoints: &mut [&WeightedEndpoint], turn: u64) {
    if endpoints.len() < 2 {
        return;
    }
    let mut state = turn;
    let mut keyed: Vec<_> = endpoints
        .iter()
        .map(|endpoint| (-uniform(&mut state).ln() / f64::from(endpoint.weight.get()), *endpoint))
        .collect();
    keyed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    for (place, (_, endpoint)) in endpoints.iter_mut().zip(keyed) {
        *place = endpoint;
    }
}

/// The next of a sequence of numbers between 0 and 1, both exclusive, mixed as in `SplitMix64`
/// (<https://doi.org/10.1145/2714064.2660195>). What comes out goes in again: the sequences of neighbouring turns would
/// be one, shifted, if the state were only counted up.
fn uniform(state: &mut u64) -> f64 {
    *state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
    (f64::from((*state >> 32) as u32) + 0.5) / 4_294_967_296.0
}

pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<'a> IntoIterator for &'a Endpoints {
    type Item = &'a WeightedEndpoint;
    type IntoIter = slice::Iter<'a, WeightedEndpoint>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<WeightedEndpoint> for Endpoints {
    fn from_iter<I: IntoIterator<Item = WeightedEndpoint>>(endpoints: I) -> Self {
        let unmap = |it: WeightedEndpoint| WeightedEndpoint { address: unmapped(it.address), ..it };
        Self(endpoints.into_iter().map(unmap).collect())
    }
}

/// Addresses of equal standing.
impl FromIterator<SocketAddr> for Endpoints {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        addresses.into_iter().map(|address| WeightedEndpoint { address, weight: Weight::ONE }).collect()
    }
}

impl From<Vec<SocketAddr>> for Endpoints {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        addresses.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
