//! What share of the connections each endpoint of a group gets, out of the kernel's entries.

use std::net::SocketAddr;

use picop_common::{
    connect::Reason,
    route::{ROUTE_BY_CLIENT, RouteKey},
};

use super::{Candidate, group_of, probe::Probe};

/// 2^32: what a share is a part of.
const WHOLE: f64 = 4_294_967_296.0;

/// Whether the group that a decision draws from is one whose clients stay.
pub fn is_by_client(probe: &Probe<'_>, tried: &[(Reason, bool)]) -> bool {
    let group = group_of(probe, tried.contains(&(Reason::Variant, true)));
    (probe.routes)(&group).is_some_and(|first| first.flags & ROUTE_BY_CLIENT != 0)
}

/// The endpoints that a decision to go to a variant, or to the base, draws from, most likely first.
pub fn candidates(probe: &Probe<'_>, tried: &[(Reason, bool)]) -> Vec<Candidate> {
    let group = group_of(probe, tried.contains(&(Reason::Variant, true)));
    let Some(first) = (probe.routes)(&group) else { return Vec::new() };
    let count = usize::from(first.count);
    let mut shares = vec![0.0; count];
    let mut endpoints = vec![first.endpoint; count];
    if count == 1 {
        shares[0] = 1.0;
    } else if count > 1 {
        shares[0] = f64::from(first.share) / WHOLE;
        let each = (1.0 - shares[0]) / f64::from(first.count - 1);
        for (slot, number) in (1..count).zip(1..) {
            let Some(entry) = (probe.routes)(&RouteKey { slot: number, ..group }) else { continue };
            endpoints[slot] = entry.endpoint;
            let kept = f64::from(entry.share) / WHOLE;
            shares[slot] += each * kept;
            if let Some(alias) = shares.get_mut(usize::from(entry.alias)) {
                *alias += each * (1.0 - kept);
            }
        }
    }
    let mut candidates: Vec<_> = endpoints
        .into_iter()
        .zip(shares)
        .map(|(endpoint, share)| Candidate {
            address: SocketAddr::from(endpoint).to_string(),
            share,
            passed_over: (probe.unhealthy)(&endpoint),
        })
        .collect();
    candidates.sort_by(|a, b| b.share.total_cmp(&a.share));
    candidates
}
