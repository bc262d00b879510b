use crate::header::{MAX_BODY, SIGNATURE, VERSION};
use proptest::prelude::*;

use super::*;

fn wire(body: &str) -> Vec<u8> {
    let length = u8::try_from(body.len()).expect("a body");
    [&SIGNATURE[..], &[VERSION, length], body.as_bytes()].concat()
}

fn context(body: &str) -> Context {
    let bytes = wire(body);
    let Detected::Header(header) = detect(&bytes) else { panic!("not a header: {body:?}") };
    Context::from_header(&header)
}

fn env(name: &str) -> EnvId {
    EnvId::new(name).unwrap()
}

#[test]
fn where_the_environment_is_found() {
    use EnvSource::{Baggage, Header};
    for (body, name, source) in [
        ("env-id:pr-1", "pr-1", Header),
        ("ENV-ID: pr-1 ", "pr-1", Header),
        ("Env-Id:pr-1\r\nEnv-Id:pr-2", "pr-1", Header),
        ("baggage:env-id=pr-2\r\nenv-id:pr-1", "pr-1", Header),
        ("Baggage:env-id=pr-2\r\nEnv-Id:", "pr-2", Baggage),
        ("Baggage:a=1, env-id = pr-2;ttl=1 ,b=2", "pr-2", Baggage),
        ("Baggage:a=1\r\nBaggage:env-id=pr-2", "pr-2", Baggage),
        ("Baggage:env-id=%E7%92%B0%e5%a2%83%", "環境%", Baggage),
        ("Baggage:env-id=%zz%4", "%zz%4", Baggage),
    ] {
        assert_eq!(context(body).env(), Some((&env(name), source)), "{body:?}");
        assert_eq!(context(body).env_id(), Some(env(name)), "{body:?}");
    }
}

#[test]
fn no_environment() {
    for body in [
        "",
        "env-id",
        "Env-Id:",
        "Env-Id:   ",
        "k:v",
        "Baggage:env-id",
        "Baggage:env-id=",
        "Baggage:Env-Id=x,x=env-id",
    ] {
        assert_eq!((context(body).env_id(), context(body).rejected_env()), (None, None), "{body:?}");
    }
}

#[test]
fn what_is_no_name_is_reported_and_does_not_route() {
    for body in ["Env-Id:a\0b", "Env-Id:a\nb\r\nBaggage:env-id=pr-2", "Baggage:env-id=a%0ab"] {
        assert_eq!(context(body).env_id(), None, "{body:?}");
        assert!(matches!(context(body).rejected_env(), Some(EnvIdError::Control { .. })), "{body:?}");
    }
    assert!(matches!(context("Baggage:env-id=%FF").rejected_env(), Some(EnvIdError::NotUtf8(_))));
}

#[test]
fn unmodified_contexts_are_sent_verbatim() {
    for body in ["env-id: pr-1 \r\n\r\nB:2\r\nA:1\r\n", "no colon", "", "env-id:a\0b"] {
        assert_eq!(context(body).wire(), wire(body));
    }
    let odd = context("env-id: pr-1 \r\n\r\nB:2\r\nA:1\r\n");
    assert_eq!(odd.with_env(&env("other")), (odd.clone(), Dropped::default()));
}

#[test]
fn a_context_of_its_environment_alone() {
    let longest = "e".repeat(EnvId::MAX_LEN);
    for name in ["pr-1", "環境一", &longest] {
        let made = Context::for_env(&env(name));
        assert_eq!(made.wire(), wire(&format!("Env-Id:{name}")));
        assert_eq!(made, context(&format!("Env-Id:{name}")));
    }
}

#[test]
fn an_environment_is_added() {
    for (body, added) in [
        ("", "Env-Id:pr-1"),
        ("traceparent:00-a-b-01\r\nbaggage:a=1", "Baggage:a=1\r\nEnv-Id:pr-1\r\nTraceparent:00-a-b-01"),
        // In the place of one that names nothing.
        ("env-id:\r\nk:v\r\n", "Env-Id:pr-1\r\nK:v"),
        ("env-id:a\0b", "Env-Id:pr-1"),
        // A server may know of `Env-Id` only.
        ("baggage:env-id=pr-1", "Baggage:env-id=pr-1\r\nEnv-Id:pr-1"),
    ] {
        let (with, dropped) = context(body).with_env(&env("pr-1"));
        assert_eq!(with.wire(), wire(added), "{body:?}: {}", with.wire().escape_ascii());
        assert_eq!(with.env(), Some((&env("pr-1"), EnvSource::Header)));
        assert!(dropped.is_nothing());
    }
}

#[test]
fn what_does_not_fit_is_dropped_in_order() {
    let x = |count| "x".repeat(count);
    let parent = format!("traceparent:{}", x(55));
    let cases = [
        // Entries go from the end, whole, and only as many as must; an empty one is not counted.
        (
            format!("{parent}\r\nbaggage:a={},b=2,c={},", x(100), x(60)),
            format!("Baggage:a={},b=2\r\nEnv-Id:pr-1234567890\r\nTraceparent:{}", x(100), x(55)),
            Dropped { baggage: 1, ..Dropped::default() },
        ),
        // All of the baggage, if need be, and then tracestate.
        (
            format!("tracestate:r={},s={}\r\nbaggage:a=1,b=2", x(100), x(120)),
            format!("Env-Id:pr-1234567890\r\nTracestate:r={}", x(100)),
            Dropped { baggage: 2, tracestate: 1, lines: 0 },
        ),
        // Then whatever is longest.
        (
            format!("short:1\r\nlong:{}", x(240)),
            "Env-Id:pr-1234567890\r\nShort:1".to_owned(),
            Dropped { lines: 1, ..Dropped::default() },
        ),
        // What cannot be written goes even if it would fit.
        (
            "a b:1\r\n:x\r\nk:v".to_owned(),
            "Env-Id:pr-1234567890\r\nK:v".to_owned(),
            Dropped { lines: 2, ..Dropped::default() },
        ),
    ];
    for (body, expected, count) in cases {
        let (with, dropped) = context(&body).with_env(&env("pr-1234567890"));
        assert!(with.wire() == wire(&expected), "{body:?}: {}", with.wire().escape_ascii());
        assert_eq!(dropped, count, "{body:?}");
    }
}

proptest! {
    #[test]
    fn adding_an_environment_always_ends_in_a_header_that_names_it(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..=MAX_BODY),
            "((baggage|tracestate|k|env-id|a b)?:?[a,=% ]{0,60}\r\n){0,9}".prop_map(String::into_bytes),
        ],
        name in "[a-z0-9-]{1,248}",
    ) {
        let body = &body[..body.len().min(MAX_BODY)];
        let bytes = [&SIGNATURE[..], &[VERSION, u8::try_from(body.len()).unwrap()], body].concat();
        let Detected::Header(header) = detect(&bytes) else { panic!("not a header") };
        let before = Context::from_header(&header);
        let (after, dropped) = before.with_env(&env(&name));

        let Detected::Header(read) = detect(after.wire()) else { panic!("not a header") };
        prop_assert_eq!(read.wire_len(), after.wire().len());
        prop_assert_eq!(&Context::from_header(&read), &after);
        if matches!(before.env(), Some((_, EnvSource::Header))) {
            prop_assert_eq!((&after, dropped), (&before, Dropped::default()));
        } else {
            prop_assert_eq!(after.env_id(), Some(env(&name)));
        }
        if dropped.is_nothing() {
            for field in header.fields().filter(|field| !field.is_blank() && !field.is("env-id")) {
                prop_assert!(read.fields().any(|kept| kept.key.eq_ignore_ascii_case(field.key)));
            }
        }
    }
}
