//! The facts of a connection that nobody makes.

use std::cell::RefCell;

use picop_common::{
    addr::Endpoint,
    connect::{Decision, Facts, Reason, decide},
    maps::{AGENT_REVERSE, Workload},
    route::{BASE, REVERSE, Route, RouteKey},
};

/// What is known of it. What only the socket could say is assumed to be the usual.
#[derive(Clone)]
pub struct Probe<'a> {
    /// What the kernel knows of its workload.
    pub workload: Option<Workload>,
    /// Bits `AGENT_*` in effect.
    pub agent_flags: u32,
    /// Where it goes.
    pub destination: Endpoint,
    /// The kernel's table.
    pub routes: &'a dyn Fn(&RouteKey) -> Option<Route>,
    /// Endpoints to be passed over.
    pub unhealthy: &'a dyn Fn(&Endpoint) -> bool,
    /// The heartbeat's age.
    pub heartbeat_age_ns: u64,
    /// Whether it uses TCP Fast Open.
    pub fast_open: bool,
    /// Whether it is bound to an interface.
    pub bound_to_device: bool,
    /// The rules tried, while it is being decided.
    pub tried: Option<&'a RefCell<Vec<(Reason, bool)>>>,
}

impl Probe<'_> {
    /// Decides, and says which rules were tried.
    pub fn decide(&self) -> (Decision, Vec<(Reason, bool)>) {
        let tried = RefCell::default();
        let decision = decide(&Probe { tried: Some(&tried), ..self.clone() });
        (decision, tried.into_inner())
    }

    /// The address of the service that is meant: another one where the destination is one of its base endpoints.
    pub fn service_address(&self) -> Endpoint {
        if (self.routes)(&RouteKey::new(BASE, self.destination, 0)).is_some()
            || self.agent_flags & AGENT_REVERSE == 0
        {
            return self.destination;
        }
        (self.routes)(&RouteKey::new(REVERSE, self.destination, 0))
            .map_or(self.destination, |route| route.endpoint)
    }
}

impl Facts for Probe<'_> {
    fn workload(&self) -> Option<Workload> {
        self.workload
    }

    fn is_agent(&self) -> bool {
        false
    }

    fn agent_flags(&self) -> u32 {
        self.agent_flags
    }

    fn is_tcp(&self) -> bool {
        true
    }

    fn destination(&self) -> Endpoint {
        self.destination
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        (self.routes)(key)
    }

    fn is_unhealthy(&self, endpoint: &Endpoint) -> bool {
        (self.unhealthy)(endpoint)
    }

    fn is_fast_open(&self) -> bool {
        self.fast_open
    }

    /// The heaviest endpoint: one of those that may be drawn, and all of a group have the same family unless none has the
    /// destination's.
    fn random(&self) -> u32 {
        0
    }

    fn netns_cookie(&self) -> u64 {
        self.workload.map_or(0, |workload| workload.netns_cookie)
    }

    fn is_bound_to_device(&self) -> bool {
        self.bound_to_device
    }

    fn heartbeat_age_ns(&self) -> u64 {
        self.heartbeat_age_ns
    }

    fn tried(&self, rule: Reason, holds: bool) -> bool {
        if let Some(tried) = self.tried {
            tried.borrow_mut().push((rule, holds));
        }
        holds
    }
}
