use super::*;
use crate::doctor::check::Verdict;

fn seen(inside: u64, cookie: u64) -> Seen {
    Seen { inside: NetnsId::for_test(4, inside), cookie: Ok(cookie) }
}

fn failed<T>() -> Result<T, String> {
    Err("EPERM".to_owned())
}

#[test]
fn only_being_in_the_other_namespace_proves_setns() {
    let id = |ino| Ok(NetnsId::for_test(4, ino));
    for (own, fresh, inside, expected) in [
        (id(1), id(2), Ok(seen(2, 0)), Verdict::Ok),
        (id(1), id(2), Ok(seen(1, 0)), Verdict::Missing),
        (id(1), id(2), failed(), Verdict::Missing),
        (id(1), id(1), Ok(seen(1, 0)), Verdict::Unknown),
        (id(1), failed(), failed(), Verdict::Unknown),
        (failed(), id(2), Ok(seen(2, 0)), Verdict::Unknown),
    ] {
        assert_eq!(
            setns(own.clone(), fresh.clone(), &inside).verdict,
            expected,
            "{own:?} {fresh:?} {inside:?}"
        );
    }
}

#[test]
fn cookies_must_differ_between_namespaces() {
    for (own, inside, expected) in [
        (Ok(1), Ok(seen(2, 7)), Verdict::Ok),
        (Ok(7), Ok(seen(2, 7)), Verdict::Missing),
        (failed(), Ok(seen(2, 7)), Verdict::Missing),
        (Ok(1), Ok(Seen { cookie: failed(), ..seen(2, 7) }), Verdict::Missing),
        (Ok(1), failed(), Verdict::Ok),
    ] {
        assert_eq!(cookie(&own, &inside).verdict, expected, "{own:?} {inside:?}");
    }
}
