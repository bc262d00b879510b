//! The plan by table.

use super::*;
use crate::route::CgroupPattern;

fn spec(environment: &str) -> WorkloadSpec {
    WorkloadSpec {
        environment: Some(environment.parse().unwrap()),
        ..WorkloadSpec::new(CgroupPattern::new("pods/*").unwrap())
    }
}

fn netns(ino: u64) -> NetnsId {
    NetnsId::for_test(4, ino)
}

#[test]
fn plan_by_table() {
    let managed = |entries: &[(u64, &str, u64)]| -> BTreeMap<u64, (WorkloadSpec, NetnsId)> {
        entries.iter().map(|(id, env, ns)| (*id, (spec(env), netns(*ns)))).collect()
    };
    let found = |entries: &[(u64, &str, Option<u64>)]| -> BTreeMap<u64, (WorkloadSpec, Option<NetnsId>)> {
        entries.iter().map(|(id, env, ns)| (*id, (spec(env), ns.map(netns)))).collect()
    };
    let nothing = Plan::default();
    for (name, managed, found, expected) in [
        ("nothing", managed(&[]), found(&[]), nothing),
        (
            "first seen, even without a namespace yet",
            managed(&[]),
            found(&[(1, "a", Some(1)), (2, "a", None)]),
            Plan { add: vec![1, 2], ..Plan::default() },
        ),
        ("unchanged", managed(&[(1, "a", 1)]), found(&[(1, "a", Some(1))]), Plan::default()),
        ("empty for a moment", managed(&[(1, "a", 1)]), found(&[(1, "a", None)]), Plan::default()),
        (
            "moved to another environment",
            managed(&[(1, "a", 1)]),
            found(&[(1, "b", Some(1))]),
            Plan { update: vec![1], ..Plan::default() },
        ),
        (
            "new sandbox",
            managed(&[(1, "a", 1)]),
            found(&[(1, "b", Some(2))]),
            Plan { add: vec![1], remove: vec![1], ..Plan::default() },
        ),
        (
            "gone",
            managed(&[(1, "a", 1), (2, "a", 2)]),
            found(&[(2, "a", Some(2))]),
            Plan { remove: vec![1], ..Plan::default() },
        ),
    ] {
        assert_eq!(plan(&managed, &found), expected, "{name}");
    }
}
