use super::*;
use crate::doctor::check::Verdict;

fn cgroup(level: u32) -> Cgroup {
    Cgroup { dir: "/sys/fs/cgroup/pods".into(), rel: "pods".into(), id: 7, level }
}

fn at(count: u32, shared: bool) -> Vec<Others> {
    vec![Others { hook: "connect4", count: 0, shared: false }, Others { hook: "sock_ops", count, shared }]
}

#[test]
fn a_program_that_wants_to_be_alone_keeps_the_agent_out() {
    for (others, verdict, said) in [
        (Ok(at(0, false)), Verdict::Ok, "/sys/fs/cgroup/pods"),
        (Ok(at(2, true)), Verdict::Ok, "2 at sock_ops"),
        (Ok(at(1, false)), Verdict::Missing, "is at sock_ops"),
        (Err(io::ErrorKind::PermissionDenied.into()), Verdict::Unknown, "permission denied"),
    ] {
        let finding = attach_point(&Ok(cgroup(1)), &others);
        assert_eq!(finding.verdict, verdict, "{others:?}");
        assert!(finding.detail.contains(said), "{}", finding.detail);
    }
}

#[test]
fn the_root_is_named() {
    assert!(attach_point(&Ok(cgroup(0)), &Ok(Vec::new())).detail.contains("the root"));
    assert!(!attach_point(&Ok(cgroup(1)), &Ok(Vec::new())).detail.contains("the root"));
}

#[test]
fn a_path_that_is_no_cgroup_is_missing() {
    let point = Err(CgroupError::NotACgroup { path: "/nope".into(), mount: "/sys/fs/cgroup".into() });
    let finding = attach_point(&point, &Ok(Vec::new()));
    assert_eq!(finding.verdict, Verdict::Missing);
    assert!(finding.detail.contains("/nope") && finding.detail.contains("--cgroup"), "{}", finding.detail);
}
