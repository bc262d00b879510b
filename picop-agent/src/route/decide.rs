//! Where a connection goes, and why.
use std::{net::SocketAddr, sync::Arc};

use picop_common::route::client_slot;

use super::{
    affinity,
    endpoints::Endpoints,
    service::{Balancing, Base, Fallback, HeaderPolicy, Service, unmapped},
    table::RouteTable,
};
use crate::protocol::EnvId;

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The table to decide by: one for the whole connection.
    pub table: &'a RouteTable,
    /// Where the client wanted to go.
    pub destination: SocketAddr,
    /// The environment in the header it sent on this connection, if it was asked for one and sent one.
    pub from_header: Option<&'a EnvId>,
    /// The environment its workload belongs to.
    pub of_workload: Option<&'a EnvId>,
}

impl<'a> Facts<'a> {
    /// The connection's environment: what its own header says goes before what its workload is.
    pub fn environment(&self) -> (Option<&'a EnvId>, EnvSource) {
        match (self.from_header, self.of_workload) {
            (Some(environment), _) => (Some(environment), EnvSource::Header),
            (None, Some(environment)) => (Some(environment), EnvSource::Workload),
            (None, None) => (None, EnvSource::None),
        }
    }
}

/// Where a connection's environment came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnvSource {
    /// The header on the connection.
    Header,
    /// The workload that made the connection.
    Workload,
    /// It has none.
    None,
}

impl EnvSource {
    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Workload => "workload",
            Self::None => "none",
        }
    }
}

/// Why a connection goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No service has this address: to the address itself. A service removed between `connect(2)` and the decision.
    NotAService,
    /// It has no environment: to the base.
    NoEnvironment,
    /// No service and no workload is of that environment: to the base.
    UnknownEnvironment,
    /// The service has no variant there: to the base.
    NoVariant,
    /// To the variant.
    Variant,
    /// The variant has nothing ready: to the base.
    VariantEmptyBase,
    /// The variant has nothing ready, and the base must not stand in: refused.
    VariantEmptyRefused,
    /// The variant has nothing ready, and the connection is to wait until it has: refused, once it has waited.
    VariantEmptyWaits,
    /// It should go to the base, which has nothing ready: refused.
    BaseEmpty,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NotAService,
        Self::NoEnvironment,
        Self::UnknownEnvironment,
        Self::NoVariant,
        Self::Variant,
        Self::VariantEmptyBase,
        Self::VariantEmptyRefused,
        Self::VariantEmptyWaits,
        Self::BaseEmpty,
    ];

    /// The name in logs and metrics. Stable: dashboards and tests depend on it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAService => "not_a_service",
            Self::NoEnvironment => "no_environment",
            Self::UnknownEnvironment => "unknown_environment",
            Self::NoVariant => "no_variant",
            Self::Variant => "variant",
            Self::VariantEmptyBase => "variant_empty_base",
            Self::VariantEmptyRefused => "variant_empty_refused",
            Self::VariantEmptyWaits => "variant_empty_waits",
            Self::BaseEmpty => "base_empty",
        }
    }
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backends {
    /// To the address the client asked for.
    Itself(SocketAddr),
    /// To one of these, of which some get connections.
    Endpoints(Endpoints),
    /// Nowhere.
    Refused,
}

impl Backends {
    /// Each address once, in the order in which a client tries them, without drained ones: by its service's
    /// [`Balancing`], and with that of the turn as in [`in_turn`](Self::in_turn).
    pub fn order(&self, balancing: Balancing, client: u64, turn: usize) -> Vec<SocketAddr> {
        match (self, balancing) {
            (Self::Endpoints(endpoints), Balancing::Client) => {
                affinity::order(endpoints, client_slot(client, affinity::SLOTS))
            }
            _ => self.in_turn(turn).collect(),
        }
    }

    /// Each address once, in the order to try them, without drained ones. `turn` says where to start: counting it up from
    /// connection to connection spreads them by weight, whatever else is counted with it. The order of the others differs
    /// from turn to turn, so that the share of one that fails goes to all others by weight as well.
    pub fn in_turn(&self, turn: usize) -> impl Iterator<Item = SocketAddr> + use<> {
        match self {
            Self::Itself(address) => vec![*address],
            Self::Endpoints(endpoints) => endpoints.in_turn(turn),
            Self::Refused => vec![],
        }
        .into_iter()
    }
}

/// What was chosen for a connection, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Where to connect.
    pub backends: Backends,
    /// Why there.
    pub reason: Reason,
    /// Whether to write a header to the backend.
    pub header: HeaderPolicy,
    /// The connection's environment, known or not: what a header says, wherever the connection goes.
    pub environment: Option<EnvId>,
    /// Where that came from.
    pub source: EnvSource,
    /// The service at the destination.
    pub service: Option<Arc<Service>>,
}

/// Decides about one connection. The same facts give the same decision.
pub fn decide(facts: &Facts<'_>) -> Decision {
    decide_telling(facts, &mut |_, holds| holds)
}

/// Is told of every rule that is tried, in order, and whether it holds; answers that.
pub type Tried<'a> = dyn FnMut(Reason, bool) -> bool + 'a;

/// [`decide`], which tells on the way what it tries.
pub fn decide_telling(facts: &Facts<'_>, tried: &mut Tried<'_>) -> Decision {
    let (environment, source) = facts.environment();
    let service = facts.table.service_meant(&facts.destination);
    tried(Reason::NotAService, service.is_none());
    let (backends, reason) = match service {
        // The client's own address family, but the address that v4-mapped stands for: the agent's socket is a plain one.
        None => (Backends::Itself(unmapped(facts.destination)), Reason::NotAService),
        Some(service) => match variant(facts.table, service, environment, tried) {
            Ok(endpoints) => (Backends::Endpoints(endpoints.clone()), Reason::Variant),
            Err(why @ (Reason::VariantEmptyRefused | Reason::VariantEmptyWaits)) => (Backends::Refused, why),
            Err(why) => base(service, facts.destination, why, tried),
        },
    };
    Decision {
        backends,
        reason,
        // Only a server that is known to read headers is sent one.
        header: service.map_or(HeaderPolicy::Strip, |service| service.header),
        environment: environment.cloned(),
        source,
        service: service.cloned(),
    }
}

/// The endpoints of the variant that `environment` has of `service`, or why they are not to be used.
fn variant<'s>(
    table: &RouteTable,
    service: &'s Service,
    environment: Option<&EnvId>,
    tried: &mut Tried<'_>,
) -> Result<&'s Endpoints, Reason> {
    tried(Reason::NoEnvironment, environment.is_none());
    let environment = environment.ok_or(Reason::NoEnvironment)?;
    let Some(endpoints) = service.variant(environment) else {
        if tried(Reason::UnknownEnvironment, !table.knows(environment)) {
            return Err(Reason::UnknownEnvironment);
        }
        tried(Reason::NoVariant, true);
        return Err(Reason::NoVariant);
    };
    tried(Reason::NoVariant, false);
    if tried(Reason::Variant, !endpoints.is_empty()) {
        return Ok(endpoints);
    }
    if tried(Reason::VariantEmptyRefused, service.fallback == Fallback::Refuse) {
        return Err(Reason::VariantEmptyRefused);
    }
    if tried(Reason::VariantEmptyWaits, service.fallback == Fallback::Wait) {
        return Err(Reason::VariantEmptyWaits);
    }
    tried(Reason::VariantEmptyBase, true);
    Err(Reason::VariantEmptyBase)
}

fn base(
    service: &Service,
    destination: SocketAddr,
    why: Reason,
    tried: &mut Tried<'_>,
) -> (Backends, Reason) {
    match &service.base {
        Base::Itself => (Backends::Itself(unmapped(destination)), why),
        Base::Endpoints(endpoints) if tried(Reason::BaseEmpty, endpoints.is_empty()) => {
            (Backends::Refused, Reason::BaseEmpty)
        }
        Base::Endpoints(endpoints) => (Backends::Endpoints(endpoints.clone()), why),
    }
}

#[cfg(test)]
mod tests;
