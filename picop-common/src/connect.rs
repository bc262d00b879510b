//! What happens to a connection, decided at `connect(2)`.
//!
//! [`decide`] is the whole policy of the `connect4|6` hooks. It asks its [`Facts`] in order of cost and stops at the first
//! that settles it, so that a connection of an unmanaged process costs one map lookup.

use crate::{
    addr::{Endpoint, Ip},
    maps::{
        AGENT_FULL, AGENT_GRAFT, AGENT_GRAFT_AUTO, AGENT_INJECT, AGENT_REVERSE, WORKLOAD_BYPASS,
        WORKLOAD_HEADER, WORKLOAD_RELAY, Workload,
    },
    route::{
        BASE, REVERSE, ROUTE_BY_CLIENT, ROUTE_GRAFT_ALWAYS, ROUTE_GRAFT_NEVER, ROUTE_ITSELF, ROUTE_PROOF,
        ROUTE_PROPAGATE, ROUTE_REFUSE, ROUTE_SERVER_FIRST, ROUTE_WAIT, Route, RouteKey, client_slot,
    },
};

mod reason;

pub use reason::{Event, Reason};

/// How old the agent's heartbeat may be before connections stop being sent to it. It beats five times as often.
pub const HEARTBEAT_STALE_NS: u64 = 1_000_000_000;

/// For how long an endpoint that did not take a connection is passed over where there are others.
pub const EJECTION_NS: u64 = 5_000_000_000;

/// How many endpoints are looked at for a healthy one, the drawn one included.
const TRIES: u32 = 4;

/// What the hook knows of a connection. Methods, not fields: each may cost a helper call or a map lookup.
pub trait Facts {
    /// The managed workload the calling process belongs to.
    fn workload(&self) -> Option<Workload>;
    /// Whether the caller is the agent itself.
    fn is_agent(&self) -> bool;
    /// Bits `AGENT_*`.
    fn agent_flags(&self) -> u32;
    /// Whether the socket is plain TCP (not UDP, not MPTCP).
    fn is_tcp(&self) -> bool;
    /// Where the application wants to go.
    fn destination(&self) -> Endpoint;
    /// An entry of the route table; all of one version.
    fn route(&self, key: &RouteKey) -> Option<Route>;
    /// Whether an endpoint was seen not to work a moment ago.
    fn is_unhealthy(&self, endpoint: &Endpoint) -> bool;
    /// Whether the socket is known to be about to use TCP Fast Open: to send before it is connected.
    fn is_fast_open(&self) -> bool;
    /// A random number.
    fn random(&self) -> u32;
    /// `SO_NETNS_COOKIE` of the socket's network namespace.
    fn netns_cookie(&self) -> u64;
    /// Whether the socket is bound to an interface (`SO_BINDTODEVICE`): loopback is out of its reach.
    fn is_bound_to_device(&self) -> bool;
    /// Nanoseconds since the agent's last heartbeat.
    fn heartbeat_age_ns(&self) -> u64;
    /// Told of every rule that is tried, in order, and whether it holds; answers that. `picop explain` writes them down; for
    /// the hooks it is nothing.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see decide")]
    fn tried(&self, rule: Reason, holds: bool) -> bool {
        let _ = rule;
        holds
    }
}

/// What the hook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave the connection alone.
    Pass(Reason),
    /// Rewrite it to the agent's listener.
    Relay {
        /// The listener.
        to: Endpoint,
        /// Whether the socket is to be enrolled for a graft.
        graft: bool,
        /// Why there.
        reason: Reason,
    },
    /// Rewrite it to a backend.
    Direct {
        /// The backend.
        to: Endpoint,
        /// The header to write in front of the first bytes; 0 for none.
        header: u64,
        /// Whether there are other endpoints: then one that refuses is worth knowing.
        watch: bool,
        /// Why there.
        reason: Reason,
    },
    /// Answer ECONNREFUSED.
    Refuse(Reason),
}

/// Decides about one connection. Inlined into the hooks, where each fact is gathered as it is asked for.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a BPF call passes five registers; facts and decision do not fit")]
pub fn decide(facts: &impl Facts) -> Decision {
    let Some(workload) = facts.workload() else {
        facts.tried(Reason::NotManaged, true);
        return Decision::Pass(Reason::NotManaged);
    };
    facts.tried(Reason::NotManaged, false);
    if facts.tried(Reason::IsAgent, facts.is_agent()) {
        return Decision::Pass(Reason::IsAgent);
    }
    if facts.tried(Reason::NotTcp, !facts.is_tcp()) {
        return Decision::Pass(Reason::NotTcp);
    }
    if facts.tried(Reason::Bypassed, workload.flags & WORKLOAD_BYPASS != 0) {
        return Decision::Pass(Reason::Bypassed);
    }
    let agent = facts.agent_flags();
    let destination = facts.destination();
    let Some((service, address)) = service(facts, agent, destination) else {
        facts.tried(Reason::NotAService, true);
        return Decision::Pass(Reason::NotAService);
    };
    facts.tried(Reason::NotAService, false);
    if facts.tried(Reason::RelayHeader, workload.flags & WORKLOAD_HEADER != 0) {
        return relay(facts, &workload, &service, destination, Reason::RelayHeader);
    }
    if facts.tried(Reason::RelayAsked, workload.flags & WORKLOAD_RELAY != 0) {
        return relay(facts, &workload, &service, destination, Reason::RelayAsked);
    }

    let (group, environment, reason) = match variant(facts, &workload, &service, address) {
        Ok(variant) => (variant, workload.environment, Reason::Variant),
        Err(Reason::VariantEmptyRefused) => return Decision::Refuse(Reason::VariantEmptyRefused),
        Err(Reason::RelayWait) => {
            let waits = relay(facts, &workload, &service, destination, Reason::RelayWait);
            if matches!(waits, Decision::Relay { .. }) {
                return waits;
            }
            // Whoever would rather wait than reach the base does not want it now.
            facts.tried(Reason::VariantEmptyRefused, true);
            return Decision::Refuse(Reason::VariantEmptyRefused);
        }
        Err(why) => (service, BASE, why),
    };
    let inject = service.flags & ROUTE_PROPAGATE != 0 && workload.header != 0;
    if inject {
        if facts.tried(Reason::RelayServerFirst, service.flags & ROUTE_SERVER_FIRST != 0) {
            return relay(facts, &workload, &service, destination, Reason::RelayServerFirst);
        }
        let unproven = agent & AGENT_INJECT == 0 && service.flags & ROUTE_PROOF == 0;
        if facts.tried(Reason::RelayNoInject, unproven) {
            return relay(facts, &workload, &service, destination, Reason::RelayNoInject);
        }
        if facts.tried(Reason::RelayFull, agent & AGENT_FULL != 0) {
            return relay(facts, &workload, &service, destination, Reason::RelayFull);
        }
        if facts.tried(Reason::RelayFastOpen, facts.is_fast_open()) {
            return relay(facts, &workload, &service, destination, Reason::RelayFastOpen);
        }
    }
    let header = if inject { workload.header } else { 0 };
    if environment == BASE && service.flags & ROUTE_ITSELF != 0 {
        // Where the client is going anyway. What it was translated to by another program stays translated.
        return if inject {
            Decision::Direct { to: destination, header, watch: false, reason }
        } else {
            Decision::Pass(reason)
        };
    }
    if facts.tried(Reason::BaseEmpty, group.count == 0) {
        return Decision::Refuse(Reason::BaseEmpty);
    }
    let to = endpoint(facts, &group, environment, address, workload.id);
    if facts.tried(Reason::RelayFamily, to.ip.is_v4() != destination.ip.is_v4()) {
        // A v6-only socket cannot reach a v4 endpoint, a v4 one no v6 endpoint; the agent can.
        return relay(facts, &workload, &service, destination, Reason::RelayFamily);
    }
    Decision::Direct { to, header, watch: group.count > 1, reason }
}

/// The service at an address, and its own address: that is another one where a program before this one has translated it
/// to one of the base endpoints.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see decide")]
fn service(facts: &impl Facts, agent: u32, destination: Endpoint) -> Option<(Route, Endpoint)> {
    if let Some(service) = facts.route(&RouteKey::new(BASE, destination, 0)) {
        return Some((service, destination));
    }
    if agent & AGENT_REVERSE == 0 {
        return None;
    }
    let address = facts.route(&RouteKey::new(REVERSE, destination, 0))?.endpoint;
    Some((facts.route(&RouteKey::new(BASE, address, 0))?, address))
}

/// The workload's variant of the service, or why it has none to use.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see decide")]
fn variant(
    facts: &impl Facts,
    workload: &Workload,
    service: &Route,
    address: Endpoint,
) -> Result<Route, Reason> {
    if facts.tried(Reason::NoEnvironment, workload.environment == BASE) {
        return Err(Reason::NoEnvironment);
    }
    let Some(variant) = facts.route(&RouteKey::new(workload.environment, address, 0)) else {
        facts.tried(Reason::NoVariant, true);
        return Err(Reason::NoVariant);
    };
    facts.tried(Reason::NoVariant, false);
    if facts.tried(Reason::Variant, variant.count > 0) {
        return Ok(variant);
    }
    if facts.tried(Reason::VariantEmptyRefused, service.flags & ROUTE_REFUSE != 0) {
        return Err(Reason::VariantEmptyRefused);
    }
    if facts.tried(Reason::RelayWait, service.flags & ROUTE_WAIT != 0) {
        return Err(Reason::RelayWait);
    }
    facts.tried(Reason::VariantEmptyBase, true);
    Err(Reason::VariantEmptyBase)
}

/// One of the endpoints, drawn by weight; another one if that is known not to work. If none of a few works, the one that was
/// drawn: what is known may be wrong, and refusing surely is.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see decide")]
fn endpoint(facts: &impl Facts, group: &Route, environment: u64, address: Endpoint, client: u64) -> Endpoint {
    let count = u32::from(group.count);
    if count == 1 {
        return group.endpoint;
    }
    let group = Group { facts, entry: group, environment, address };
    if group.entry.flags & ROUTE_BY_CLIENT != 0 {
        return group.of_client(client);
    }
    let (drawn, first) = group.draw();
    if !facts.is_unhealthy(&first) {
        return first;
    }
    // The share of one that fails is for all others, not for its neighbour alone: another draw. One slot is one endpoint, so
    // another slot is another endpoint. The heaviest, which would come up again and again, is left out of it; any other one
    // that comes up again (at most every other time) leaves it to the heaviest.
    let (mut slot, mut next) = if drawn == 0 { group.draw_other() } else { group.draw() };
    if slot == drawn {
        (slot, next) = (0, group.entry.endpoint);
    }
    let mut tried = 1;
    loop {
        if !facts.is_unhealthy(&next) {
            return next;
        }
        tried += 1;
        if tried >= TRIES || tried >= count {
            return first;
        }
        slot = after(slot, count);
        if slot == drawn {
            slot = after(slot, count);
        }
        next = group.at(slot);
    }
}

/// The slot after a slot, of `count`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see decide")]
fn after(slot: u32, count: u32) -> u32 {
    if slot + 1 < count { slot + 1 } else { 0 }
}

/// Endpoints to choose from, two at least.
struct Group<'a, F> {
    facts: &'a F,
    /// Slot 0.
    entry: &'a Route,
    environment: u64,
    address: Endpoint,
}

impl<F: Facts> Group<'_, F> {
    /// The endpoint of a client's slot; if that is known not to work, the one that the slot's clients try next, unless that
    /// is known of it too.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see decide")]
    fn of_client(&self, client: u64) -> Endpoint {
        let slot = client_slot(client, u32::from(self.entry.count));
        let own = if slot == 0 { Some(*self.entry) } else { self.entry_at(slot) };
        let Some(own) = own else { return self.entry.endpoint };
        if self.facts.is_unhealthy(&own.endpoint) {
            let next = self.at(u32::from(own.alias));
            if !self.facts.is_unhealthy(&next) {
                return next;
            }
        }
        own.endpoint
    }

    /// A slot and its endpoint, by weight: [`route`](crate::route) says how.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see decide")]
    fn draw(&self) -> (u32, Endpoint) {
        if self.facts.random() < self.entry.share { (0, self.entry.endpoint) } else { self.draw_other() }
    }

    /// The same of the slots after 0.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see decide")]
    fn draw_other(&self) -> (u32, Endpoint) {
        // The number is a fraction of 2^32. Times the slots: the slot, and as fraction what part of it was met.
        let met = u64::from(self.facts.random()) * u64::from(self.entry.count - 1);
        let (slot, part) = (1 + (met >> 32) as u32, (met & 0xffff_ffff) as u32);
        let Some(entry) = self.entry_at(slot) else { return (0, self.entry.endpoint) };
        if part < entry.share {
            return (slot, entry.endpoint);
        }
        let alias = u32::from(entry.alias);
        (alias, self.at(alias))
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see decide")]
    fn at(&self, slot: u32) -> Endpoint {
        let heaviest = self.entry.endpoint;
        if slot == 0 { heaviest } else { self.entry_at(slot).map_or(heaviest, |entry| entry.endpoint) }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see decide")]
    fn entry_at(&self, slot: u32) -> Option<Route> {
        self.facts.route(&RouteKey::new(self.environment, self.address, slot))
    }
}

/// To the agent, if it can be reached; otherwise to the base, as far as that can be told here.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see decide")]
fn relay(
    facts: &impl Facts,
    workload: &Workload,
    service: &Route,
    destination: Endpoint,
    why: Reason,
) -> Decision {
    let (loopback, port) = if destination.ip.is_v4() {
        (Ip::LOOPBACK_V4, workload.listener_v4)
    } else {
        (Ip::LOOPBACK_V6, workload.listener_v6)
    };
    let reason = if facts.tried(Reason::AgentStale, facts.heartbeat_age_ns() > HEARTBEAT_STALE_NS) {
        Reason::AgentStale
    } else if facts.tried(Reason::OtherNetns, facts.netns_cookie() != workload.netns_cookie) {
        Reason::OtherNetns
    } else if facts.tried(Reason::BoundToDevice, facts.is_bound_to_device()) {
        Reason::BoundToDevice
    } else if facts.tried(Reason::NoListener, !port.is_some()) {
        Reason::NoListener
    } else {
        let graft = grafts(facts.agent_flags(), service.flags);
        return Decision::Relay { to: Endpoint::new(loopback, port), graft, reason: why };
    };
    let base = service.endpoint;
    if service.flags & ROUTE_ITSELF != 0 || service.count == 0 || base.ip.is_v4() != destination.ip.is_v4() {
        Decision::Pass(reason)
    } else {
        Decision::Direct { to: base, header: 0, watch: false, reason }
    }
}

/// Whether the service's relayed connections may be grafted on this node.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see decide")]
const fn grafts(agent: u32, service: u16) -> bool {
    agent & AGENT_GRAFT != 0
        && (service & ROUTE_GRAFT_ALWAYS != 0
            || (service & ROUTE_GRAFT_NEVER == 0 && agent & AGENT_GRAFT_AUTO != 0))
}

#[cfg(test)]
mod tests;
