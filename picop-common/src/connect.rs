//! What happens to a connection, decided at `connect(2)`.
//!
//! [`decide`] is the whole policy of the `connect4|6` hooks. It asks its [`Facts`] in order of cost and stops at the first
//! that settles it, so that a connection of an unmanaged process costs one map lookup.

use crate::{
    addr::{Endpoint, Ip},
    maps::{Service, WORKLOAD_BYPASS, Workload},
};

/// How old the agent's heartbeat may be before connections stop being sent to it. It beats five times as often.
pub const HEARTBEAT_STALE_NS: u64 = 1_000_000_000;

/// What the hook knows of a connection. Methods, not fields: each may cost a helper call or a map lookup.
pub trait Facts {
    /// The managed workload the calling process belongs to.
    fn workload(&self) -> Option<Workload>;
    /// Whether the caller is the agent itself.
    fn is_agent(&self) -> bool;
    /// Whether the socket is plain TCP (not UDP, not MPTCP).
    fn is_tcp(&self) -> bool;
    /// Where the application wants to go.
    fn destination(&self) -> Endpoint;
    /// The service at an address.
    fn service(&self, at: &Endpoint) -> Option<Service>;
    /// `SO_NETNS_COOKIE` of the socket's network namespace.
    fn netns_cookie(&self) -> u64;
    /// Whether the socket is bound to an interface (`SO_BINDTODEVICE`): loopback is out of its reach.
    fn is_bound_to_device(&self) -> bool;
    /// Nanoseconds since the agent's last heartbeat.
    fn heartbeat_age_ns(&self) -> u64;
}

/// Why a connection took the path it took. Doubles as index of the counter array, so the order is an interface between
/// the two sides of one build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// The process belongs to no workload.
    NotManaged = 0,
    /// It is the agent.
    IsAgent = 1,
    /// Not plain TCP.
    NotTcp = 2,
    /// The workload is bypassed.
    Bypassed = 3,
    /// The destination is no service.
    NotAService = 4,
    /// The process is in another network namespace than its workload's listener.
    OtherNetns = 5,
    /// The socket is bound to an interface.
    BoundToDevice = 6,
    /// The workload has no listener of this address family.
    NoListener = 7,
    /// The agent does not answer: to the service's address itself.
    AgentStale = 8,
    /// The agent does not answer: straight to a base endpoint.
    AgentStaleToBase = 9,
    /// To the agent's listener.
    Relay = 10,
    /// Socket storage could not be had: left alone.
    NoStorage = 11,
    /// An original destination could not be stored; the agent resets that connection.
    NoOriginal = 12,
    /// A peer name was answered.
    PeerName = 13,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them, in order.
    pub const ALL: [Self; 14] = [
        Self::NotManaged,
        Self::IsAgent,
        Self::NotTcp,
        Self::Bypassed,
        Self::NotAService,
        Self::OtherNetns,
        Self::BoundToDevice,
        Self::NoListener,
        Self::AgentStale,
        Self::AgentStaleToBase,
        Self::Relay,
        Self::NoStorage,
        Self::NoOriginal,
        Self::PeerName,
    ];

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotManaged => "not_managed",
            Self::IsAgent => "is_agent",
            Self::NotTcp => "not_tcp",
            Self::Bypassed => "bypassed",
            Self::NotAService => "not_a_service",
            Self::OtherNetns => "other_netns",
            Self::BoundToDevice => "bound_to_device",
            Self::NoListener => "no_listener",
            Self::AgentStale => "agent_stale",
            Self::AgentStaleToBase => "agent_stale_to_base",
            Self::Relay => "relay",
            Self::NoStorage => "no_storage",
            Self::NoOriginal => "no_original",
            Self::PeerName => "peer_name",
        }
    }
}

/// What the hook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave the connection alone.
    Pass(Reason),
    /// Rewrite it to the agent's listener.
    Relay(Endpoint),
    /// Rewrite it to a backend.
    Direct(Endpoint, Reason),
}

/// Decides about one connection. Inlined into the hooks, where each fact is gathered as it is asked for.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a BPF call passes five registers; facts and decision do not fit")]
pub fn decide(facts: &impl Facts) -> Decision {
    let Some(workload) = facts.workload() else { return Decision::Pass(Reason::NotManaged) };
    if facts.is_agent() {
        return Decision::Pass(Reason::IsAgent);
    }
    if !facts.is_tcp() {
        return Decision::Pass(Reason::NotTcp);
    }
    if workload.flags & WORKLOAD_BYPASS != 0 {
        return Decision::Pass(Reason::Bypassed);
    }
    let destination = facts.destination();
    let Some(service) = facts.service(&destination) else { return Decision::Pass(Reason::NotAService) };
    if facts.heartbeat_age_ns() > HEARTBEAT_STALE_NS {
        // Across families there is no rewrite: a v6-only socket cannot reach a v4 endpoint, a v4 one no v6 endpoint.
        return if service.base.is_some() && service.base.ip.is_v4() == destination.ip.is_v4() {
            Decision::Direct(service.base, Reason::AgentStaleToBase)
        } else {
            Decision::Pass(Reason::AgentStale)
        };
    }
    if facts.netns_cookie() != workload.netns_cookie {
        return Decision::Pass(Reason::OtherNetns);
    }
    if facts.is_bound_to_device() {
        return Decision::Pass(Reason::BoundToDevice);
    }
    let (loopback, port) = if destination.ip.is_v4() {
        (Ip::LOOPBACK_V4, workload.listener_v4)
    } else {
        (Ip::LOOPBACK_V6, workload.listener_v6)
    };
    if port.is_some() {
        Decision::Relay(Endpoint::new(loopback, port))
    } else {
        Decision::Pass(Reason::NoListener)
    }
}

#[cfg(test)]
mod tests;
