//! The connect decision by table.

use core::net::SocketAddr;

use super::*;
use crate::addr::PortBe;

#[derive(Clone)]
struct Fake {
    workload: Option<Workload>,
    agent: bool,
    tcp: bool,
    destination: SocketAddr,
    services: Vec<(SocketAddr, Service)>,
    netns: u64,
    bound: bool,
    age_ns: u64,
}

impl Facts for Fake {
    fn workload(&self) -> Option<Workload> {
        self.workload
    }
    fn is_agent(&self) -> bool {
        self.agent
    }
    fn is_tcp(&self) -> bool {
        self.tcp
    }
    fn destination(&self) -> Endpoint {
        self.destination.into()
    }
    fn service(&self, at: &Endpoint) -> Option<Service> {
        self.services.iter().find(|(a, _)| Endpoint::from(*a) == *at).map(|(_, s)| *s)
    }
    fn netns_cookie(&self) -> u64 {
        self.netns
    }
    fn is_bound_to_device(&self) -> bool {
        self.bound
    }
    fn heartbeat_age_ns(&self) -> u64 {
        self.age_ns
    }
}

fn addr(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

/// A connection that is relayed; each test changes one fact.
fn relayed() -> Fake {
    Fake {
        workload: Some(Workload {
            netns_cookie: 7,
            listener_v4: PortBe::from_host(4001),
            listener_v6: PortBe::from_host(6001),
            flags: 0,
        }),
        agent: false,
        tcp: true,
        destination: addr("10.96.0.1:80"),
        services: vec![
            (addr("10.96.0.1:80"), Service { base: addr("10.1.0.1:8080").into(), flags: 0 }),
            (addr("10.96.0.2:80"), Service::default()),
            (addr("[fd00::1]:80"), Service { base: addr("10.1.0.1:8080").into(), flags: 0 }),
        ],
        netns: 7,
        bound: false,
        age_ns: 0,
    }
}

fn with(change: impl FnOnce(&mut Fake)) -> Decision {
    let mut fake = relayed();
    change(&mut fake);
    decide(&fake)
}

#[test]
fn every_reason_has_its_fact() {
    use Decision::{Direct, Pass, Relay};
    let relay4 = Relay(addr("127.0.0.1:4001").into());
    let relay6 = Relay(addr("[::1]:6001").into());
    let stale = HEARTBEAT_STALE_NS + 1;
    let bypass = |f: &mut Fake| f.workload.as_mut().unwrap().flags = WORKLOAD_BYPASS;
    let table: Vec<(&str, Decision, Decision)> = vec![
        ("plain", with(|_| {}), relay4),
        ("v4-mapped", with(|f| f.destination = addr("[::ffff:10.96.0.1]:80")), relay4),
        ("v6", with(|f| f.destination = addr("[fd00::1]:80")), relay6),
        ("beats just in time", with(|f| f.age_ns = HEARTBEAT_STALE_NS), relay4),
        ("unmanaged", with(|f| f.workload = None), Pass(Reason::NotManaged)),
        ("agent", with(|f| f.agent = true), Pass(Reason::IsAgent)),
        ("udp", with(|f| f.tcp = false), Pass(Reason::NotTcp)),
        ("bypassed", with(bypass), Pass(Reason::Bypassed)),
        ("elsewhere", with(|f| f.destination = addr("10.9.9.9:80")), Pass(Reason::NotAService)),
        ("other port", with(|f| f.destination = addr("10.96.0.1:81")), Pass(Reason::NotAService)),
        ("other netns", with(|f| f.netns = 8), Pass(Reason::OtherNetns)),
        ("bound to device", with(|f| f.bound = true), Pass(Reason::BoundToDevice)),
        (
            "no listener",
            with(|f| f.workload.as_mut().unwrap().listener_v4 = PortBe::NONE),
            Pass(Reason::NoListener),
        ),
        (
            "stale, with a base",
            with(|f| f.age_ns = stale),
            Direct(addr("10.1.0.1:8080").into(), Reason::AgentStaleToBase),
        ),
        (
            "stale, base is the address itself",
            with(|f| (f.age_ns, f.destination) = (stale, addr("10.96.0.2:80"))),
            Pass(Reason::AgentStale),
        ),
        (
            "stale, base of another family",
            with(|f| (f.age_ns, f.destination) = (stale, addr("[fd00::1]:80"))),
            Pass(Reason::AgentStale),
        ),
    ];
    for (name, got, want) in table {
        assert_eq!(got, want, "{name}");
    }
}

/// What comes first in the decision wins over what comes later: an unmanaged or bypassed process is never touched,
/// whatever else holds.
#[test]
fn order() {
    let all = |f: &mut Fake| {
        f.agent = true;
        f.tcp = false;
        f.age_ns = u64::MAX;
    };
    assert_eq!(with(|f| (all(f), f.workload = None).1), Decision::Pass(Reason::NotManaged));
    assert_eq!(with(all), Decision::Pass(Reason::IsAgent));
}

#[test]
fn reasons_index_the_counters() {
    for (i, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, i);
    }
    const { assert!(Reason::COUNT <= crate::maps::COUNTERS_MAX) };
    let mut names: Vec<_> = Reason::ALL.map(Reason::as_str).into();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::COUNT);
}
