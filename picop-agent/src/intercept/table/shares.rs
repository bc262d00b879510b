//! From weights to the shares by which the kernel draws: see [`picop_common::route`]. Pure.

/// Shares are parts of this.
const WHOLE: u64 = 1 << 32;

/// What a slot says of its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// How many of 2^32.
    pub share: u32,
    /// Who gets the rest.
    pub alias: u16,
}

/// The shares of endpoints by their weights, of which the first is the largest and none is 0; 65,536 of a million each at
/// most. Each endpoint's chance is that of its weight to within 2^-31.
pub(super) fn shares(weights: &[u32]) -> Vec<Share> {
    debug_assert!(weights.iter().all(|weight| *weight > 0 && weights[0] >= *weight), "{weights:?}");
    let Some((first, others)) = weights.split_first() else { return Vec::new() };
    let rest: u64 = others.iter().copied().map(u64::from).sum();
    let mut shares = vec![Share { share: part(u64::from(*first), u64::from(*first) + rest), alias: 0 }];
    shares.extend(aliases(others, rest));
    shares
}

/// The alias method: each slot is drawn as often, one in `weights.len()`. Those that weigh less than that pass the rest on
/// to one that weighs more, until that one weighs less. In whole numbers, so nothing gets lost.
fn aliases(weights: &[u32], total: u64) -> Vec<Share> {
    let slots = weights.len() as u64;
    // In units of one `slots`th of `total`, a fair share being `total` of them.
    let mut left: Vec<_> = weights.iter().map(|weight| u64::from(*weight) * slots).collect();
    let (mut light, mut heavy): (Vec<_>, Vec<_>) = (0..left.len()).partition(|slot| left[*slot] < total);
    let number = |slot: usize| u16::try_from(slot + 1).expect("few slots");
    let mut shares: Vec<_> =
        (0..left.len()).map(|slot| Share { share: u32::MAX, alias: number(slot) }).collect();
    while let (Some(from), Some(to)) = (light.pop(), heavy.pop()) {
        shares[from] = Share { share: part(left[from], total), alias: number(to) };
        left[to] -= total - left[from];
        if left[to] < total { light.push(to) } else { heavy.push(to) }
    }
    shares
}

/// `weight` by `total` as parts of [`WHOLE`], rounded.
fn part(weight: u64, total: u64) -> u32 {
    u32::try_from((weight * WHOLE + total / 2) / total).unwrap_or(u32::MAX)
}
