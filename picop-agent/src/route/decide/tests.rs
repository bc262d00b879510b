use std::{collections::HashSet, net::SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::route::{
    CgroupPattern, WorkloadSpec,
    strategies::{addr, env, environment, service, service_address, services, table},
};

fn endpoints(addresses: &[&str]) -> Endpoints {
    addresses.iter().map(|a| addr(a)).collect()
}

/// cart: base elsewhere, variants pr-1 (two) and pr-2 (none ready). db: base itself, refuses. hollow: base with nothing ready.
fn shop() -> RouteTable {
    let cart = Service {
        header: HeaderPolicy::Propagate,
        base: Base::Endpoints(endpoints(&["10.77.0.2:80"])),
        variants: [
            (env("pr-1"), endpoints(&["10.77.0.3:80", "10.77.0.4:80"])),
            (env("pr-2"), Endpoints::default()),
        ]
        .into(),
        ..Service::new("cart", vec![addr("10.96.0.10:80"), addr("[fd00::10]:80")])
    };
    let db = Service {
        variants: [(env("pr-2"), Endpoints::default())].into(),
        fallback: Fallback::Refuse,
        ..Service::new("db", vec![addr("10.96.0.20:6379")])
    };
    let hollow = Service {
        base: Base::Endpoints(Endpoints::default()),
        variants: [(env("pr-2"), Endpoints::default()), (env("pr-1"), endpoints(&["10.77.0.9:80"]))].into(),
        ..Service::new("hollow", vec![addr("10.96.0.30:80")])
    };
    let mut tester = WorkloadSpec::new(CgroupPattern::new("tester").unwrap());
    tester.environment = Some(env("only-a-workload"));
    RouteTable::new(vec![cart, db, hollow], vec![tester]).unwrap()
}

#[test]
fn table_of_reasons() {
    use Reason::*;
    let shop = shop();
    for (destination, environment, backends, reason) in [
        ("10.96.0.99:80", Some("pr-1"), vec!["10.96.0.99:80"], NotAService),
        ("10.96.0.10:81", None, vec!["10.96.0.10:81"], NotAService),
        ("[::ffff:10.96.0.99]:80", None, vec!["10.96.0.99:80"], NotAService),
        ("10.96.0.10:80", None, vec!["10.77.0.2:80"], NoEnvironment),
        ("10.96.0.10:80", Some("nobody"), vec!["10.77.0.2:80"], UnknownEnvironment),
        ("10.96.0.10:80", Some("only-a-workload"), vec!["10.77.0.2:80"], NoVariant),
        ("10.96.0.10:80", Some("pr-1"), vec!["10.77.0.3:80", "10.77.0.4:80"], Variant),
        ("10.96.0.10:80", Some("PR-1"), vec!["10.77.0.2:80"], UnknownEnvironment),
        ("[::ffff:10.96.0.10]:80", Some("pr-1"), vec!["10.77.0.3:80", "10.77.0.4:80"], Variant),
        ("[fd00::10]:80", Some("pr-1"), vec!["10.77.0.3:80", "10.77.0.4:80"], Variant),
        ("10.96.0.10:80", Some("pr-2"), vec!["10.77.0.2:80"], VariantEmptyBase),
        ("10.96.0.20:6379", None, vec!["10.96.0.20:6379"], NoEnvironment),
        ("10.96.0.20:6379", Some("pr-1"), vec!["10.96.0.20:6379"], NoVariant),
        ("10.96.0.20:6379", Some("pr-2"), vec![], VariantEmptyRefused),
        ("[::ffff:10.96.0.20]:6379", Some("pr-1"), vec!["10.96.0.20:6379"], NoVariant),
        ("10.96.0.30:80", None, vec![], BaseEmpty),
        ("10.96.0.30:80", Some("pr-2"), vec![], BaseEmpty),
        ("10.96.0.30:80", Some("pr-1"), vec!["10.77.0.9:80"], Variant),
    ] {
        let environment = environment.map(env);
        let facts = Facts {
            table: &shop,
            destination: addr(destination),
            from_header: environment.as_ref(),
            of_workload: None,
        };
        let decision = decide(&facts);
        let got: Vec<_> = decision.backends.in_turn(0).collect();
        let expected: Vec<_> = backends.iter().map(|b| addr(b)).collect();
        assert_eq!((got, decision.reason), (expected, reason), "{destination} in {environment:?}");
        assert_eq!(decision.environment, environment, "it is passed on wherever the connection goes");
    }
}

#[test]
fn header_goes_before_workload() {
    let shop = shop();
    let (pr1, pr2) = (env("pr-1"), env("pr-2"));
    for (from_header, of_workload, expected, source) in [
        (None, None, None, EnvSource::None),
        (Some(&pr1), None, Some(&pr1), EnvSource::Header),
        (None, Some(&pr2), Some(&pr2), EnvSource::Workload),
        (Some(&pr1), Some(&pr2), Some(&pr1), EnvSource::Header),
    ] {
        let facts = Facts { table: &shop, destination: addr("10.96.0.10:80"), from_header, of_workload };
        let decision = decide(&facts);
        assert_eq!((decision.environment.as_ref(), decision.source), (expected, source));
    }
}

#[test]
fn header_policy_is_the_services() {
    let shop = shop();
    for (destination, header, name) in [
        ("10.96.0.10:80", HeaderPolicy::Propagate, Some("cart")),
        ("10.96.0.20:6379", HeaderPolicy::Strip, Some("db")),
        ("10.96.0.99:80", HeaderPolicy::Strip, None),
    ] {
        let facts =
            Facts { table: &shop, destination: addr(destination), from_header: None, of_workload: None };
        let decision = decide(&facts);
        assert_eq!((decision.header, decision.service.as_ref().map(|s| s.name.as_str())), (header, name));
    }
}

#[test]
fn a_link_local_destination_keeps_its_zone() {
    let destination: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
    let table = RouteTable::default();
    let decision = decide(&Facts { table: &table, destination, from_header: None, of_workload: None });
    assert_eq!(decision.backends, Backends::Itself(destination));
}

#[test]
fn names_of_reasons_are_distinct() {
    let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
}

fn at(table: &RouteTable, number: usize, environment: Option<&EnvId>) -> Decision {
    decide(&Facts {
        table,
        destination: service_address(number),
        from_header: environment,
        of_workload: None,
    })
}

proptest! {
    #[test]
    fn an_unknown_environment_is_as_none(services in services(), number in 0..5usize) {
        let table = table(services);
        let unknown = env("never-heard-of");
        let (with, without) = (at(&table, number, Some(&unknown)), at(&table, number, None));
        prop_assert_eq!(&with.backends, &without.backends);
        prop_assert_eq!(with.header, without.header);
        prop_assert_eq!(
            with.reason,
            if without.reason == Reason::BaseEmpty { Reason::BaseEmpty } else { Reason::UnknownEnvironment }
        );
    }

    #[test]
    fn each_reason_means_what_it_says(
        services in services(), number in 0..5usize, environment in proptest::option::of(environment())
    ) {
        let service = services[number].clone();
        let table = table(services);
        let decision = at(&table, number, environment.as_ref());
        let variant = environment.as_ref().and_then(|e| service.variants.get(e));
        let refused = decision.backends == Backends::Refused;
        prop_assert_eq!(decision.backends.in_turn(0).next().is_none(), refused);
        prop_assert_eq!(
            refused,
            matches!(
                decision.reason,
                Reason::VariantEmptyRefused | Reason::VariantEmptyWaits | Reason::BaseEmpty
            )
        );
        match decision.reason {
            Reason::NotAService => prop_assert!(false, "it is a service"),
            Reason::NoEnvironment => prop_assert!(environment.is_none()),
            Reason::UnknownEnvironment => prop_assert!(!table.knows(environment.as_ref().unwrap())),
            Reason::NoVariant => prop_assert!(variant.is_none() && table.knows(environment.as_ref().unwrap())),
            Reason::Variant => {
                prop_assert_eq!(&decision.backends, &Backends::Endpoints(variant.unwrap().clone()));
            }
            Reason::VariantEmptyBase => {
                prop_assert!(variant.unwrap().is_empty() && service.fallback == Fallback::Base);
            }
            Reason::VariantEmptyRefused => {
                prop_assert!(variant.unwrap().is_empty() && service.fallback == Fallback::Refuse);
            }
            Reason::VariantEmptyWaits => {
                prop_assert!(variant.unwrap().is_empty() && service.fallback == Fallback::Wait);
            }
            Reason::BaseEmpty => {
                prop_assert!(matches!(&service.base, Base::Endpoints(endpoints) if endpoints.is_empty()));
            }
        }
        if !refused && decision.reason != Reason::Variant {
            let base = match service.base {
                Base::Itself => Backends::Itself(service_address(number)),
                Base::Endpoints(endpoints) => Backends::Endpoints(endpoints),
            };
            prop_assert_eq!(decision.backends, base);
        }
    }

    #[test]
    fn other_services_change_nothing(
        services in services(), other in service(3), environment in proptest::option::of(environment())
    ) {
        let before = table(services.clone());
        let mut swapped = services;
        swapped[3] = other;
        swapped.swap(0, 4);
        let after = table(swapped);
        let (before, after) = (at(&before, 2, environment.as_ref()), at(&after, 2, environment.as_ref()));
        prop_assert_eq!(&before.backends, &after.backends);
        // Another service may be what makes an environment known, which shows in the reason alone.
        let named = |reason| if reason == Reason::UnknownEnvironment { Reason::NoVariant } else { reason };
        prop_assert_eq!(named(before.reason), named(after.reason));
    }

    #[test]
    fn v4_mapped_is_the_same_case(
        services in services(), number in 0..6usize, environment in proptest::option::of(environment())
    ) {
        let table = table(services);
        let SocketAddr::V4(v4) = service_address(number) else { unreachable!("services are at IPv4 addresses") };
        let facts = Facts {
            table: &table,
            destination: v4.into(),
            from_header: environment.as_ref(),
            of_workload: None,
        };
        let mapped = SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()));
        prop_assert_eq!(decide(&facts), decide(&Facts { destination: mapped, ..facts }));
    }
}
