use std::{cell::Cell, collections::HashMap, net::SocketAddr};

use picop_common::{
    addr::{Endpoint, PortBe},
    connect::{Decision as KernelDecision, Facts, HEARTBEAT_STALE_NS, decide},
    maps::{
        AGENT_FULL, AGENT_INJECT, AGENT_REVERSE, WORKLOAD_BYPASS, WORKLOAD_HEADER, WORKLOAD_RELAY, Workload,
    },
    route::{Route, RouteKey, environment_key},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    intercept::table,
    route::{
        Balancing, Base, CgroupPattern, Endpoints, Fallback, PathChoice, Service, SpeaksFirst, Weight,
        WeightedEndpoint,
    },
};

const WAIT: Duration = Duration::from_secs(30);
const NAMES: [&str; 4] = ["pr-1", "pr-2", "pr-3", "unheard-of"];

fn env(name: &str) -> EnvId {
    EnvId::new(name).unwrap()
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let one = (1..=6_u8, any::<bool>(), prop_oneof![Just(0_u32), Just(1), 1..=100_u32]).prop_map(
        |(n, v6, weight)| {
            let address = if v6 { format!("[fd00::{n}]:8080") } else { format!("10.1.0.{n}:8080") };
            WeightedEndpoint { address: address.parse().unwrap(), weight: Weight::new(weight).unwrap() }
        },
    );
    vec(one, 0..4).prop_map(|all| {
        let mut seen = Vec::new();
        all.into_iter()
            .filter(|it| {
                let new = !seen.contains(&it.address);
                seen.push(it.address);
                new
            })
            .collect()
    })
}

fn service(number: u8) -> impl Strategy<Value = Service> {
    let variants = vec((select(&NAMES[..3]), endpoints()), 0..3);
    let base = option::of(endpoints());
    let fallback = select(&[Fallback::Base, Fallback::Refuse, Fallback::Wait][..]);
    (variants, base, fallback, any::<(bool, bool, bool)>()).prop_map(
        move |(variants, base, fallback, (propagate, first, by_client))| Service {
            variants: variants.into_iter().map(|(name, it)| (env(name), it)).collect(),
            base: base.map_or(Base::Itself, Base::Endpoints),
            header: if propagate { HeaderPolicy::Propagate } else { HeaderPolicy::Strip },
            fallback,
            balancing: if by_client { Balancing::Client } else { Balancing::Weighted },
            speaks_first: if first { SpeaksFirst::Server } else { SpeaksFirst::Client },
            ..Service::new(
                format!("service-{number}"),
                vec![
                    format!("10.96.0.{number}:80").parse().unwrap(),
                    format!("[fd96::{number}]:80").parse().unwrap(),
                ],
            )
        },
    )
}

fn workload() -> impl Strategy<Value = WorkloadSpec> {
    let choice = (option::of(select(&NAMES[..])), any::<bool>(), 0..8_u8, 0..8_u8);
    choice.prop_map(|(environment, header, relay, bypass)| {
        let environment = environment.map(env);
        WorkloadSpec {
            own: environment.as_ref().map(Context::for_env),
            environment,
            context: if header { ContextSource::Header } else { ContextSource::None },
            path: if relay == 0 { PathChoice::Relay } else { PathChoice::Auto },
            bypass: bypass == 0,
            ..WorkloadSpec::new(CgroupPattern::new("pods/one").unwrap())
        }
    })
}

fn in_kernel(spec: &WorkloadSpec) -> Workload {
    let bit = |set, bit| if set { bit } else { 0 };
    Workload {
        id: 1,
        netns_cookie: 5,
        environment: spec.environment.as_ref().map_or(0, |e| environment_key(e.as_str().as_bytes())),
        header: spec.own.as_ref().map_or(0, |_| 77),
        listener_v4: PortBe::from_host(4000),
        listener_v6: PortBe::NONE,
        flags: bit(spec.bypass, WORKLOAD_BYPASS)
            | bit(spec.context == ContextSource::Header, WORKLOAD_HEADER)
            | bit(spec.path == PathChoice::Relay, WORKLOAD_RELAY),
    }
}

/// What a hook sees: as [`Probe`], but with the kernel's dice, and telling nobody.
struct Hook<'a> {
    probe: &'a Probe<'a>,
    dice: Cell<u32>,
}

impl Facts for Hook<'_> {
    fn workload(&self) -> Option<Workload> {
        self.probe.workload
    }
    fn is_agent(&self) -> bool {
        false
    }
    fn agent_flags(&self) -> u32 {
        self.probe.agent_flags
    }
    fn is_tcp(&self) -> bool {
        true
    }
    fn destination(&self) -> Endpoint {
        self.probe.destination
    }
    fn route(&self, key: &RouteKey) -> Option<Route> {
        (self.probe.routes)(key)
    }
    fn is_unhealthy(&self, endpoint: &Endpoint) -> bool {
        (self.probe.unhealthy)(endpoint)
    }
    fn is_fast_open(&self) -> bool {
        self.probe.fast_open
    }
    fn random(&self) -> u32 {
        self.dice.set(self.dice.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.dice.get()
    }
    fn netns_cookie(&self) -> u64 {
        self.probe.workload.map_or(0, |workload| workload.netns_cookie)
    }
    fn is_bound_to_device(&self) -> bool {
        self.probe.bound_to_device
    }
    fn heartbeat_age_ns(&self) -> u64 {
        self.probe.heartbeat_age_ns
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever the tables: the explanation is what the hook decides and what the relay then decides, and the last rule it
    /// shows to hold is the reason.
    #[test]
    fn it_says_what_is_decided(
        services in (service(1), service(2)),
        spec in option::of(workload()),
        to in select(vec!["10.96.0.1:80", "10.96.0.2:80", "[fd96::1]:80", "[::ffff:10.96.0.2]:80", "10.1.0.1:8080", "10.9.9.9:9"]),
        named in option::of(select(&NAMES[..])),
        (inject, full, reverse, stale) in any::<(bool, bool, bool, bool)>(),
        (sick, dice) in (0..7_u8, any::<u32>()),
    ) {
        let table = RouteTable::new(vec![services.0, services.1], spec.iter().cloned().collect()).unwrap();
        let entries: HashMap<_, _> = table::entries(&table).unwrap().into_iter().collect();
        let destination: SocketAddr = to.parse().unwrap();
        let bit = |set, bit| if set { bit } else { 0 };
        let sick = Endpoint::from(format!("10.1.0.{sick}:8080").parse::<SocketAddr>().unwrap());
        let probe = Probe {
            workload: spec.as_ref().map(in_kernel),
            agent_flags: bit(inject, AGENT_INJECT) | bit(full, AGENT_FULL) | bit(reverse, AGENT_REVERSE),
            destination: destination.into(),
            routes: &|key| entries.get(key).copied(),
            unhealthy: &|endpoint| *endpoint == sick,
            heartbeat_age_ns: if stale { HEARTBEAT_STALE_NS + 1 } else { 0 },
            fast_open: false,
            bound_to_device: false,
            tried: None,
        };
        let named = named.map(env);
        let said = explained(&probe, "one", spec.as_ref(), &table, named.as_ref(), WAIT);
        let done = decide(&Hook { probe: &probe, dice: Cell::new(dice) });

        // Endpoints of both families: which one is drawn decides about the path. None of the table's groups has both.
        prop_assert_eq!(&said.path, path_of(&done));
        prop_assert_eq!(&said.kernel_reason, reason_of(&done).as_str());
        let last = |by: &str| said.rules.iter().rfind(|rule| rule.by == by && rule.holds).map(|rule| rule.rule.clone());
        prop_assert_eq!(last("kernel").unwrap(), said.kernel_reason.clone());
        let backends: Vec<_> = said.backends.iter().map(|it| it.address.clone()).collect();
        match done {
            KernelDecision::Pass(_) => prop_assert_eq!(backends, vec![SocketAddr::from(probe.destination).to_string()]),
            KernelDecision::Refuse(_) => prop_assert!(backends.is_empty()),
            KernelDecision::Direct { to, .. } => {
                let to = SocketAddr::from(to).to_string();
                let found = said.backends.iter().find(|it| it.address == to);
                prop_assert!(found.is_some_and(|it| it.share > 0.0), "{} of {:?}", to, said.backends);
            }
            KernelDecision::Relay { .. } => {
                let spec = spec.as_ref().unwrap();
                let decision = route::decide(&route::Facts {
                    table: &table,
                    destination: SocketAddr::from(probe.destination),
                    from_header: named.as_ref().filter(|_| spec.context == ContextSource::Header),
                    of_workload: spec.environment.as_ref(),
                });
                prop_assert_eq!(&said.reason, decision.reason.as_str());
                prop_assert_eq!(last("relay").unwrap(), said.reason.clone());
                let balancing = decision.service.as_ref().map_or_else(Balancing::default, |it| it.balancing);
                let mut to = decision.backends.order(balancing, 1, usize::try_from(dice).unwrap());
                if balancing == Balancing::Client {
                    to.truncate(1);
                }
                prop_assert_eq!(to.len(), said.backends.len());
                prop_assert!(to.iter().all(|to| backends.contains(&to.to_string())));
            }
        }
        let waits = said.path == "relay" && said.reason == "variant_empty_waits";
        prop_assert_eq!(said.waits.as_ref().map(|it| it.at_most_ms), waits.then_some(WAIT.as_millis().try_into().unwrap()));
        let shares: f64 = said.backends.iter().map(|it| it.share).sum();
        prop_assert!(said.backends.is_empty() || (shares - 1.0).abs() < 1e-6, "{}", shares);
    }
}
