//! Which endpoints of a Service take connections from this node: kube-proxy's rules.
use std::{collections::BTreeSet, net::SocketAddr};

use super::super::{
    crd::TopologyChoice,
    objects::{Endpoint, Slice, Traits},
};
use crate::source::file::is_host;

/// The endpoints of a Service's port, by the port's name.
///
/// Ready ones; if there is none, those that still serve while they terminate. With `local_only`, of this node only. If all
/// say which nodes or zones they are for and some are for this one, those, unless the policy says otherwise (`topology`).
pub(super) fn taking(
    slices: &[&Slice],
    port: &str,
    local_only: bool,
    topology: TopologyChoice,
) -> Vec<SocketAddr> {
    let all: Vec<_> = of_port(slices, port).filter(|(_, it)| !local_only || it.all(Traits::HERE)).collect();
    let of = |wanted: &dyn Fn(Traits) -> bool| -> Vec<(SocketAddr, Traits)> {
        all.iter().copied().filter(|(_, it)| wanted(*it)).collect()
    };
    let mut chosen = of(&|it| it.all(Traits::READY));
    if chosen.is_empty() {
        chosen = of(&|it| it.all(Traits::SERVING) && it.all(Traits::TERMINATING));
    }
    let here = chosen.iter().any(|(_, it)| it.all(Traits::HERE));
    match topology {
        TopologyChoice::Ignore => {}
        TopologyChoice::PreferSameNode if here => chosen.retain(|(_, it)| it.all(Traits::HERE)),
        TopologyChoice::Hints | TopologyChoice::PreferSameNode => {
            if !prefer(&mut chosen, Traits::NODES, Traits::OUR_NODE) {
                prefer(&mut chosen, Traits::ZONES, Traits::OUR_ZONE);
            }
        }
    }
    addresses(chosen)
}

/// All endpoints of a port, in whatever state: where clients of a headless Service may connect.
pub(super) fn known(slices: &[&Slice], port: &str) -> Vec<SocketAddr> {
    addresses(of_port(slices, port))
}

fn of_port<'a>(slices: &'a [&Slice], port: &'a str) -> impl Iterator<Item = (SocketAddr, Traits)> + 'a {
    let slices = slices.iter().filter(|slice| !slice.fqdn);
    slices.flat_map(move |slice| {
        let ports = slice.ports.iter().filter(move |it| &*it.name == port);
        let at = |number| move |it: &Endpoint| (SocketAddr::new(it.address.to_canonical(), number), it.is);
        ports.flat_map(move |port| slice.endpoints.iter().map(at(port.number)))
    })
}

/// Each once, in order: during a change an endpoint may be in two slices.
fn addresses(found: impl IntoIterator<Item = (SocketAddr, Traits)>) -> Vec<SocketAddr> {
    let found = found.into_iter().map(|(address, _)| address).filter(|address| is_host(*address));
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Keeps those for us, if all say whom they are for and some are for us.
fn prefer(endpoints: &mut Vec<(SocketAddr, Traits)>, said: Traits, ours: Traits) -> bool {
    let applies =
        endpoints.iter().all(|(_, it)| it.all(said)) && endpoints.iter().any(|(_, it)| it.all(ours));
    if applies {
        endpoints.retain(|(_, it)| it.all(ours));
    }
    applies
}
