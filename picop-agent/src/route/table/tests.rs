use std::net::Ipv6Addr;

use super::*;
use crate::route::{
    CgroupPattern,
    strategies::{addr, env},
};

fn service(name: &str, address: &str) -> Service {
    Service::new(name, vec![addr(address)])
}

fn workload(cgroup: &str) -> WorkloadSpec {
    WorkloadSpec::new(CgroupPattern::new(cgroup).unwrap())
}

#[test]
fn addresses() {
    let table = RouteTable::new(
        vec![
            service("v4", "10.96.0.1:80"),
            service("mapped", "[::ffff:10.96.0.2]:80"),
            service("v6", "[fd00::1]:80"),
        ],
        vec![],
    )
    .unwrap();
    for (address, expected) in [
        ("10.96.0.1:80", Some("v4")),
        ("[::ffff:10.96.0.1]:80", Some("v4")),
        ("10.96.0.2:80", Some("mapped")),
        ("[::ffff:10.96.0.2]:80", Some("mapped")),
        ("[fd00::1]:80", Some("v6")),
        ("10.96.0.1:81", None),
        ("10.96.0.3:80", None),
        ("[fd00::2]:80", None),
        // v4-compatible (deprecated) is not v4-mapped.
        ("[::10.96.0.1]:80", None),
    ] {
        let found = table.service_at(&addr(address)).map(|service| service.name.as_str());
        assert_eq!(found, expected, "{address}");
    }
    let labelled = std::net::SocketAddrV6::new("fd00::1".parse::<Ipv6Addr>().unwrap(), 80, 7, 3);
    assert!(table.service_at(&labelled.into()).is_some(), "flow label and zone do not matter");
}

#[test]
fn refusals() {
    let refused = |services| RouteTable::new(services, vec![]).unwrap_err();
    let address = addr("10.96.0.1:80");
    assert_eq!(
        refused(vec![service("a", "10.96.0.1:80"), service("b", "[::ffff:10.96.0.1]:80")]),
        TableError::DuplicateAddress { address, first: "a".into(), second: "b".into() }
    );
    assert_eq!(
        refused(vec![Service::new("a", vec![address, address])]),
        TableError::DuplicateAddress { address, first: "a".into(), second: "a".into() }
    );
    assert_eq!(
        refused(vec![service("a", "10.96.0.1:80"), service("a", "10.96.0.2:80")]),
        TableError::DuplicateName { name: "a".into() }
    );
    let to_itself = Endpoints::from(vec![address]);
    let mut base = service("a", "10.96.0.1:80");
    base.base = Base::Endpoints(to_itself.clone());
    assert_eq!(refused(vec![base]), TableError::Loop { address, service: "a".into() });
    let mut variant = service("a", "10.96.0.1:80");
    variant.variants.insert(env("pr-1"), to_itself);
    assert_eq!(refused(vec![variant]), TableError::Loop { address, service: "a".into() });
}

#[test]
fn first_matching_workload_wins() {
    let mut entries = vec![
        workload("kubepods/*/pod-a"),
        workload("kubepods/best/pod-a"),
        workload("kubepods/best/pod-b"),
        workload("kubepods/best/*"),
        workload("kubepods/best/pod-b"),
        workload("**"),
    ];
    for (number, entry) in (1..).zip(&mut entries) {
        entry.max_connections = Some(number);
    }
    let table = RouteTable::new(vec![], entries).unwrap();
    for (path, expected) in [
        ("kubepods/best/pod-a", 1),
        ("kubepods/best/pod-b", 3),
        ("/kubepods/best/pod-b/", 3),
        ("kubepods/best/pod-c", 4),
        ("kubepods/best/pod-b/container", 6),
    ] {
        assert_eq!(table.workload_for(path).and_then(|w| w.max_connections), Some(expected), "{path}");
    }
    let table = RouteTable::new(vec![], vec![workload("kubepods/*")]).unwrap();
    assert!(table.workload_for("kubepods/pod").is_some());
    assert!(table.workload_for("system.slice/pod").is_none());
}

#[test]
fn environments_are_those_of_services_and_workloads() {
    let mut with_variant = service("a", "10.96.0.1:80");
    with_variant.variants.insert(env("pr-1"), Endpoints::default());
    let mut of_env = workload("a");
    of_env.environment = Some(env("pr-2"));
    let table = RouteTable::new(vec![with_variant], vec![of_env]).unwrap();
    let mut names: Vec<_> = table.environments().map(EnvId::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["pr-1", "pr-2"]);
    assert!(table.knows(&env("pr-1")) && table.knows(&env("pr-2")) && !table.knows(&env("pr-3")));
}

#[test]
fn same_routes_looks_at_everything_but_the_version() {
    let table = |name| RouteTable::new(vec![service(name, "10.96.0.1:80")], vec![workload("a")]).unwrap();
    assert!(table("a").same_routes(&table("a").with_version(7)));
    assert!(!table("a").same_routes(&table("b")));
    let without = RouteTable::new(vec![service("a", "10.96.0.1:80")], vec![]).unwrap();
    assert!(!table("a").same_routes(&without));
}

/// 10,000 services with ten variants each, spread over 1,000 environments.
#[test]
fn a_large_table() {
    const SERVICES: u32 = 10_000;
    const ENVIRONMENTS: u32 = 1000;
    let service_address = |n: u32| SocketAddr::from(((0x0a60_0000 + n).to_be_bytes(), 80));
    let endpoint = |n: u32, v: u32| SocketAddr::from(((0x0b00_0000 + n * 10 + v).to_be_bytes(), 8080));
    let environment = |n: u32, v: u32| env(&format!("pr-{}", (n * 7 + v * 13) % ENVIRONMENTS));
    let services = (0..SERVICES)
        .map(|n| Service {
            variants: (0..10).map(|v| (environment(n, v), Endpoints::from(vec![endpoint(n, v)]))).collect(),
            ..Service::new(format!("service-{n}"), vec![service_address(n)])
        })
        .collect();
    // Anything quadratic in here would be noticed by whoever waits for this test.
    let table = RouteTable::new(services, vec![]).unwrap();
    assert_eq!(table.environments().len(), 1000);
    assert_eq!(table.services().iter().map(|s| s.variants.len()).sum::<usize>(), 100_000);

    let mut copies: HashMap<&EnvId, HashSet<*const u8>> = HashMap::new();
    for env in table.services().iter().flat_map(|service| service.variants.keys()) {
        copies.entry(env).or_default().insert(env.as_str().as_ptr());
    }
    assert!(copies.values().all(|pointers| pointers.len() == 1), "each name is in memory once");

    for n in 0..SERVICES {
        let found = table.service_at(&service_address(n)).unwrap();
        for v in 0..10 {
            assert_eq!(found.variant(&environment(n, v)), Some(&vec![endpoint(n, v)].into()));
        }
    }
}
