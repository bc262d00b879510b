use super::*;
use crate::{doctor::check::Verdict, intercept::programs::SOCK_ADDR};

#[test]
fn verdicts() {
    for (trial, expected) in [
        (Trial::NotTried("why"), Verdict::Unknown),
        (Trial::NotInObject, Verdict::Missing),
        (Trial::NotLoaded("EINVAL".into()), Verdict::Missing),
        (Trial::NoCgroup, Verdict::Unknown),
        (Trial::NotAttached("EPERM".into()), Verdict::Missing),
        (Trial::NotListed, Verdict::Missing),
        (Trial::NotRead("EPERM".into()), Verdict::Unknown),
        (Trial::NotDetached("EBADF".into()), Verdict::Degraded),
        (Trial::Works, Verdict::Ok),
    ] {
        assert_eq!(verdict(&trial).verdict, expected, "{trial:?}");
    }
}

#[test]
fn what_the_kernel_says_is_in_the_detail() {
    for trial in [
        Trial::NotLoaded("EINVAL".into()),
        Trial::NotAttached("EINVAL".into()),
        Trial::NotRead("EINVAL".into()),
        Trial::NotDetached("EINVAL".into()),
    ] {
        assert!(verdict(&trial).detail.contains("EINVAL"), "{trial:?}");
    }
}

#[test]
fn every_program_that_the_agent_attaches_is_tried() {
    let tried: Vec<_> = INTERCEPTION.iter().map(|(_, name, kind)| (*name, *kind)).collect();
    for program in SOCK_ADDR.into_iter().chain([(SOCK_OPS, bpf_attach_type::BPF_CGROUP_SOCK_OPS)]) {
        assert!(tried.contains(&program), "{program:?}");
    }
    assert_eq!(tried.len(), SOCK_ADDR.len() + 1);
}

#[test]
fn without_an_object_nothing_is_claimed() {
    assert!(interception(None, None).iter().all(|check| check.verdict == Verdict::Unknown && check.blocks()));
    let (check, map) = sk_msg(None);
    assert_eq!(check.verdict, Verdict::Unknown);
    assert!(map.is_none());
}
