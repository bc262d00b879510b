//! The connect decision by table.

use core::{cell::Cell, net::SocketAddr};

use super::*;
use crate::{addr::PortBe, route::environment_key};

#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Fake {
    workload: Option<Workload>,
    agent: bool,
    flags: u32,
    tcp: bool,
    destination: SocketAddr,
    routes: Vec<(RouteKey, Route)>,
    unhealthy: Vec<SocketAddr>,
    fast_open: bool,
    /// The next random numbers, the first lowest; after them, zeros.
    random: Cell<u128>,
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
    fn agent_flags(&self) -> u32 {
        self.flags
    }
    fn is_tcp(&self) -> bool {
        self.tcp
    }
    fn destination(&self) -> Endpoint {
        self.destination.into()
    }
    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.routes.iter().find(|(k, _)| k == key).map(|(_, r)| *r)
    }
    fn is_unhealthy(&self, endpoint: &Endpoint) -> bool {
        self.unhealthy.iter().any(|u| Endpoint::from(*u) == *endpoint)
    }
    fn is_fast_open(&self) -> bool {
        self.fast_open
    }
    fn random(&self) -> u32 {
        let numbers = self.random.get();
        self.random.set(numbers >> 32);
        (numbers & 0xffff_ffff) as u32
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

fn group(environment: u64, at: &str, endpoints: &[&str], flags: u16) -> Vec<(RouteKey, Route)> {
    let key = |slot| RouteKey::new(environment, addr(at).into(), slot);
    let count = u16::try_from(endpoints.len()).unwrap();
    let first = endpoints.first().map_or(Endpoint::NONE, |e| addr(e).into());
    let share = u32::try_from((1 << 32) / u64::from(count.max(2))).unwrap();
    let mut entries = vec![(key(0), Route { endpoint: first, count, flags, share, ..Route::default() })];
    for (slot, endpoint) in (1..).zip(&endpoints[count.min(1).into()..]) {
        let endpoint = addr(endpoint).into();
        entries
            .push((key(slot.into()), Route { endpoint, share: u32::MAX, alias: slot, ..Route::default() }));
    }
    entries
}

const PLAIN: &str = "10.96.0.1:80";
const ITSELF: &str = "10.96.0.2:80";
const V6: &str = "[fd00::1]:80";
const MANY: &str = "10.96.0.3:80";
const EMPTY: &str = "10.96.0.4:80";
const STRICT: &str = "10.96.0.5:80";
const PATIENT: &str = "10.96.0.6:80";
const MIXED: &str = "[fd00::2]:80";

/// A connection to a variant; each test changes one fact.
fn connection() -> Fake {
    let pr1 = environment_key(b"pr-1");
    let mut routes = Vec::new();
    routes.extend(group(BASE, PLAIN, &["10.1.0.1:8080"], 0));
    routes.extend(group(pr1, PLAIN, &["10.2.0.1:8080"], 0));
    routes.extend(group(BASE, ITSELF, &[], ROUTE_ITSELF));
    routes.extend(group(BASE, V6, &["[fd01::1]:8080"], 0));
    routes.extend(group(pr1, V6, &["[fd02::1]:8080"], 0));
    routes.extend(group(BASE, MANY, &["10.1.0.1:1", "10.1.0.2:2", "10.1.0.3:3"], 0));
    routes.extend(group(BASE, EMPTY, &[], 0));
    routes.extend(group(BASE, STRICT, &["10.1.0.1:8080"], ROUTE_REFUSE));
    routes.extend(group(pr1, STRICT, &[], 0));
    routes.extend(group(BASE, PATIENT, &["10.1.0.1:8080"], ROUTE_WAIT));
    routes.extend(group(pr1, PATIENT, &[], 0));
    routes.extend(group(BASE, MIXED, &["10.1.0.1:8080"], 0));
    routes.extend([(
        RouteKey::new(REVERSE, addr("10.1.0.1:8080").into(), 0),
        Route { endpoint: addr(PLAIN).into(), ..Route::default() },
    )]);
    Fake {
        workload: Some(Workload {
            id: 1,
            netns_cookie: 7,
            environment: pr1,
            header: 99,
            listener_v4: PortBe::from_host(4001),
            listener_v6: PortBe::from_host(6001),
            flags: 0,
        }),
        agent: false,
        flags: AGENT_INJECT,
        tcp: true,
        destination: addr(PLAIN),
        routes,
        unhealthy: vec![],
        fast_open: false,
        random: Cell::new(0),
        netns: 7,
        bound: false,
        age_ns: 0,
    }
}

fn with(change: impl FnOnce(&mut Fake)) -> Decision {
    let mut fake = connection();
    change(&mut fake);
    decide(&fake)
}

fn to(endpoint: &str, reason: Reason) -> Decision {
    Decision::Direct { to: addr(endpoint).into(), header: 0, watch: false, reason }
}

fn relay4(reason: Reason) -> Decision {
    Decision::Relay { to: addr("127.0.0.1:4001").into(), graft: false, reason }
}

fn instrumented(f: &mut Fake) {
    f.workload.as_mut().unwrap().flags = WORKLOAD_HEADER;
}

fn flag(f: &mut Fake, service: &str, flags: u16) {
    let key = RouteKey::new(BASE, addr(service).into(), 0);
    f.routes.iter_mut().find(|(k, _)| *k == key).unwrap().1.flags |= flags;
}

fn base_of(f: &mut Fake) {
    f.workload.as_mut().unwrap().environment = environment_key(b"other");
}

#[test]
fn left_alone() {
    use Decision::Pass;
    for (name, got, reason) in [
        ("unmanaged", with(|f| f.workload = None), Reason::NotManaged),
        ("agent", with(|f| f.agent = true), Reason::IsAgent),
        ("udp", with(|f| f.tcp = false), Reason::NotTcp),
        ("bypassed", with(|f| f.workload.as_mut().unwrap().flags = WORKLOAD_BYPASS), Reason::Bypassed),
        ("elsewhere", with(|f| f.destination = addr("10.9.9.9:80")), Reason::NotAService),
        ("other port", with(|f| f.destination = addr("10.96.0.1:81")), Reason::NotAService),
        ("an endpoint itself", with(|f| f.destination = addr("10.1.0.1:8080")), Reason::NotAService),
        ("base is the address itself", with(|f| f.destination = addr(ITSELF)), Reason::NoVariant),
    ] {
        assert_eq!(got, Pass(reason), "{name}");
    }
}

#[test]
fn direct() {
    for (name, got, want) in [
        ("variant", with(|_| {}), to("10.2.0.1:8080", Reason::Variant)),
        (
            "v4-mapped",
            with(|f| f.destination = addr("[::ffff:10.96.0.1]:80")),
            to("10.2.0.1:8080", Reason::Variant),
        ),
        ("v6", with(|f| f.destination = addr(V6)), to("[fd02::1]:8080", Reason::Variant)),
        ("no variant", with(base_of), to("10.1.0.1:8080", Reason::NoVariant)),
        (
            "no environment",
            with(|f| f.workload.as_mut().unwrap().environment = 0),
            to("10.1.0.1:8080", Reason::NoEnvironment),
        ),
        ("works with a stale agent", with(|f| f.age_ns = u64::MAX), to("10.2.0.1:8080", Reason::Variant)),
        ("and in another netns", with(|f| f.netns = 8), to("10.2.0.1:8080", Reason::Variant)),
        (
            "translated before",
            with(|f| (f.flags |= AGENT_REVERSE, f.destination = addr("10.1.0.1:8080")).1),
            to("10.2.0.1:8080", Reason::Variant),
        ),
    ] {
        assert_eq!(got, want, "{name}");
    }
    assert_eq!(with(|f| f.destination = addr(EMPTY)), Decision::Refuse(Reason::BaseEmpty));
    assert_eq!(with(|f| f.destination = addr(STRICT)), Decision::Refuse(Reason::VariantEmptyRefused));
    let waits = |f: &mut Fake| f.destination = addr(PATIENT);
    assert_eq!(with(waits), relay4(Reason::RelayWait));
    assert_eq!(
        with(|f| (waits(f), f.age_ns = u64::MAX).1),
        Decision::Refuse(Reason::VariantEmptyRefused),
        "nobody to wait at, and the base is not for those who wait"
    );
    let lenient = with(|f| {
        let key = RouteKey::new(BASE, addr(STRICT).into(), 0);
        f.routes.iter_mut().find(|(k, _)| *k == key).unwrap().1.flags = 0;
        f.destination = addr(STRICT);
    });
    assert_eq!(lenient, to("10.1.0.1:8080", Reason::VariantEmptyBase));
}

#[test]
fn injected() {
    let inject =
        |to: &str, reason| Decision::Direct { to: addr(to).into(), header: 99, watch: false, reason };
    let propagate = |f: &mut Fake| flag(f, PLAIN, ROUTE_PROPAGATE);
    assert_eq!(with(propagate), inject("10.2.0.1:8080", Reason::Variant));
    assert_eq!(with(|f| (propagate(f), base_of(f)).1), inject("10.1.0.1:8080", Reason::NoVariant));
    let itself = with(|f| (flag(f, ITSELF, ROUTE_PROPAGATE), f.destination = addr(ITSELF)).1);
    assert_eq!(itself, inject(ITSELF, Reason::NoVariant), "the destination stays, the header is written");
    let no_context = with(|f| (propagate(f), f.workload.as_mut().unwrap().header = 0).1);
    assert_eq!(no_context, to("10.2.0.1:8080", Reason::Variant), "nothing to tell");

    assert_eq!(
        with(|f| flag(f, PLAIN, ROUTE_PROPAGATE | ROUTE_SERVER_FIRST)),
        relay4(Reason::RelayServerFirst)
    );
    assert_eq!(with(|f| (propagate(f), f.flags = 0).1), relay4(Reason::RelayNoInject));
    assert_eq!(with(|f| (propagate(f), f.flags |= AGENT_FULL).1), relay4(Reason::RelayFull));
    assert_eq!(with(|f| (propagate(f), f.fast_open = true).1), relay4(Reason::RelayFastOpen));
    let strip = with(|f| f.fast_open = true);
    assert_eq!(
        strip,
        to("10.2.0.1:8080", Reason::Variant),
        "without a header Fast Open is nobody's business"
    );
    let silent = with(|f| (propagate(f), f.fast_open = true, f.workload.as_mut().unwrap().header = 0).2);
    assert_eq!(silent, to("10.2.0.1:8080", Reason::Variant));
    let stale = with(|f| (propagate(f), f.fast_open = true, f.age_ns = u64::MAX).2);
    assert_eq!(stale, to("10.1.0.1:8080", Reason::AgentStale));
    let proof = with(|f| (flag(f, PLAIN, ROUTE_PROPAGATE | ROUTE_PROOF), f.flags = 0).1);
    assert_eq!(proof, inject("10.2.0.1:8080", Reason::Variant));
}

#[test]
fn relayed() {
    let relay6 = Decision::Relay { to: addr("[::1]:6001").into(), graft: false, reason: Reason::RelayHeader };
    let stale = HEARTBEAT_STALE_NS + 1;
    assert_eq!(with(instrumented), relay4(Reason::RelayHeader));
    let asked = with(|f| f.workload.as_mut().unwrap().flags = WORKLOAD_RELAY);
    assert_eq!(asked, relay4(Reason::RelayAsked));
    let mapped = with(|f| (instrumented(f), f.destination = addr("[::ffff:10.96.0.1]:80")).1);
    assert_eq!(mapped, relay4(Reason::RelayHeader));
    assert_eq!(with(|f| (instrumented(f), f.destination = addr(V6)).1), relay6);
    assert_eq!(
        with(|f| (instrumented(f), f.age_ns = HEARTBEAT_STALE_NS).1),
        relay4(Reason::RelayHeader),
        "beats just in time"
    );
    assert_eq!(
        with(|f| f.destination = addr(MIXED)),
        Decision::Relay { to: addr("[::1]:6001").into(), graft: false, reason: Reason::RelayFamily }
    );
    // Where the relay cannot be reached, its connections go to the base.
    for (name, got, reason) in [
        ("stale", with(|f| (instrumented(f), f.age_ns = stale).1), Reason::AgentStale),
        ("other netns", with(|f| (instrumented(f), f.netns = 8).1), Reason::OtherNetns),
        ("bound to device", with(|f| (instrumented(f), f.bound = true).1), Reason::BoundToDevice),
        (
            "no listener",
            with(|f| (instrumented(f), f.workload.as_mut().unwrap().listener_v4 = PortBe::NONE).1),
            Reason::NoListener,
        ),
    ] {
        assert_eq!(got, to("10.1.0.1:8080", reason), "{name}");
    }
    let itself = with(|f| (instrumented(f), f.age_ns = stale, f.destination = addr(ITSELF)).2);
    assert_eq!(itself, Decision::Pass(Reason::AgentStale));
    let mixed = with(|f| (f.age_ns = stale, f.destination = addr(MIXED)).1);
    assert_eq!(mixed, Decision::Pass(Reason::AgentStale), "no endpoint of its family");
}

/// A half, and the numbers next to a third: slot 0 is for the numbers below a third, slots 1 and 2 are for the lower and the
/// upper half of the second number.
const HALF: u32 = 1 << 31;
const THIRD: u32 = 0x5555_5555;

/// Where a connection goes to one of three evenly weighted endpoints, of which some are unhealthy.
fn draw(random: &[u32], unhealthy: &[usize]) -> usize {
    let endpoints = ["10.1.0.1:1", "10.1.0.2:2", "10.1.0.3:3"];
    let decision = with(|f| {
        f.destination = addr(MANY);
        f.random.set(random.iter().rev().fold(0, |numbers, number| numbers << 32 | u128::from(*number)));
        f.unhealthy = unhealthy.iter().map(|i| addr(endpoints[*i])).collect();
    });
    let Decision::Direct { to, header: 0, watch: true, reason: Reason::NoVariant } = decision else {
        panic!("{decision:?}")
    };
    endpoints.iter().position(|endpoint| to == addr(endpoint).into()).unwrap()
}

#[test]
fn endpoints_are_drawn_by_their_shares() {
    for (random, slot) in [
        ([0, 0], 0),
        ([THIRD - 1, u32::MAX], 0),
        ([THIRD, 0], 1),
        ([u32::MAX, HALF - 1], 1),
        ([THIRD, HALF], 2),
        ([u32::MAX, u32::MAX], 2),
    ] {
        assert_eq!(draw(&random, &[]), slot, "{random:?}");
    }
}

#[test]
fn a_slot_passes_on_what_it_does_not_keep() {
    let draw = |part: u32| {
        with(|f| {
            let slot = |slot| RouteKey::new(BASE, addr(MANY).into(), slot);
            for (key, route) in &mut f.routes {
                if *key == slot(0) {
                    route.share = 0;
                } else if *key == slot(1) {
                    (route.share, route.alias) = (HALF, 2);
                }
            }
            f.destination = addr(MANY);
            // Two slots: slot 1 is met by numbers below a half, twice as much being the part.
            f.random.set(u128::from(part / 2) << 32);
        })
    };
    for (part, to) in
        [(0, "10.1.0.2:2"), (HALF - 2, "10.1.0.2:2"), (HALF, "10.1.0.3:3"), (u32::MAX, "10.1.0.3:3")]
    {
        let Decision::Direct { to: got, .. } = draw(part) else { panic!("{part}") };
        assert_eq!(got, addr(to).into(), "{part}");
    }
}

#[test]
fn unhealthy_endpoints_are_passed_over() {
    for (name, random, unhealthy, slot) in [
        ("another draw", &[0, 0][..], &[0][..], 1),
        ("by the others' shares", &[0, HALF], &[0], 2),
        ("any other", &[THIRD, 0, 0], &[1], 0),
        ("any other", &[THIRD, 0, THIRD, HALF], &[1], 2),
        ("the same again: the heaviest", &[THIRD, 0, THIRD, 0], &[1], 0),
        ("the next of the other draw", &[0, 0], &[0, 1], 2),
        ("round", &[THIRD, 0, THIRD, HALF], &[1, 2], 0),
        ("round, past the first", &[0, HALF], &[0, 2], 1),
        ("all: as drawn", &[0, HALF], &[0, 1, 2], 0),
        ("all: as drawn", &[THIRD, 0, 0], &[0, 1, 2], 1),
        ("all: as drawn", &[THIRD, HALF, 0], &[0, 1, 2], 2),
    ] {
        assert_eq!(draw(random, unhealthy), slot, "{name}: {random:?} without {unhealthy:?}");
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
