//! Contexts through OpenTelemetry's propagators and back.
use std::collections::HashMap;

use opentelemetry::{
    Context as Propagated, KeyValue,
    baggage::BaggageExt as _,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use picop_common::{
    header::{Detected, MAX_LEN, SIGNATURE, VERSION, detect},
    protocol::{Context, Dropped, EnvId},
    telemetry::{EnvIdPropagator, current, extract, inject, propagator},
};
use proptest::prelude::*;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn env(name: &str) -> EnvId {
    EnvId::new(name).unwrap()
}

fn context(body: &str) -> Context {
    let wire = [&SIGNATURE[..], &[VERSION, u8::try_from(body.len()).unwrap()], body.as_bytes()].concat();
    let Detected::Header(header) = detect(&wire) else { panic!("{body:?}") };
    Context::from_header(&header)
}

fn text(context: &Context, key: &str) -> Option<String> {
    context.get(key).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_header_is_handed_on_whole() {
    let body =
        format!("Baggage:userId=alice\r\nEnv-Id:pr-1\r\nTraceparent:{TRACEPARENT}\r\nTracestate:rojo=1");
    let came = context(&body);
    let propagated = extract(&came);
    assert_eq!(propagated.get::<EnvId>(), Some(&env("pr-1")));
    assert_eq!(propagated.span().span_context().trace_id().to_string(), &TRACEPARENT[3..35]);
    assert_eq!(propagated.baggage().get("userId").map(ToString::to_string).as_deref(), Some("alice"));
    let (goes, dropped) = inject(&propagated);
    assert_eq!(dropped, Dropped::default());
    assert_eq!(goes, Some(came));
}

#[test]
fn a_span_of_its_own_is_the_parent_of_what_it_dials() {
    let span = SpanContext::new(
        TraceId::from_hex(&TRACEPARENT[3..35]).unwrap(),
        SpanId::from_hex("00f067aa0ba902b7").unwrap(),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    let served = extract(&context("Env-Id:pr-1")).with_remote_span_context(span);
    let _guard = served.attach();
    let (header, _) = current();
    let header = header.expect("a header");
    assert_eq!(header.env_id(), Some(env("pr-1")));
    let parent = TRACEPARENT.replace("b7ad6b7169203331", "00f067aa0ba902b7");
    assert_eq!(text(&header, "traceparent"), Some(parent));
}

#[test]
fn nothing_to_say_is_no_header() {
    assert_eq!(inject(&Propagated::new()), (None, Dropped::default()));
    assert_eq!(extract(&context("")).get::<EnvId>(), None);
}

/// An environment is also read from `baggage`, and from then on has a key of its own.
#[test]
fn environment_in_baggage() {
    let propagated = extract(&context("Baggage:a=1,env-id=pr-7"));
    assert_eq!(propagated.get::<EnvId>(), Some(&env("pr-7")));
    let (goes, _) = inject(&propagated);
    assert_eq!(goes.and_then(|context| text(&context, "env-id")).as_deref(), Some("pr-7"));
}

#[test]
fn what_is_no_name_is_not_there() {
    for body in ["Env-Id:a\0b", "Env-Id:", "Env-Id:  "] {
        assert_eq!(extract(&context(body)).get::<EnvId>(), None, "{body:?}");
    }
    // Nor does it take away what was known.
    let known = Propagated::new().with_value(env("pr-1"));
    let carrier = HashMap::from([("env-id".to_owned(), "\0".to_owned())]);
    let extracted = EnvIdPropagator::new().extract_with_context(&known, &carrier);
    assert_eq!(extracted.get::<EnvId>(), Some(&env("pr-1")));
}

/// Through HTTP's headers, or whatever else is a map.
#[test]
fn as_one_of_a_services_propagators() {
    let propagator = propagator();
    let fields: Vec<_> = propagator.fields().collect();
    for field in ["env-id", "traceparent", "tracestate", "baggage"] {
        assert!(fields.contains(&field), "{fields:?}");
    }
    let mut carrier = HashMap::new();
    let before =
        Propagated::new().with_value(env("pr-1")).with_baggage([KeyValue::new("url", "http://a:1/?b=c,d;e")]);
    propagator.inject_context(&before, &mut carrier);
    assert_eq!(carrier["env-id"], "pr-1");
    let after = propagator.extract(&carrier);
    assert_eq!(after.get::<EnvId>(), Some(&env("pr-1")));
    assert_eq!(after.baggage().get("url"), before.baggage().get("url"));
}

#[test]
fn what_does_not_fit_is_dropped_and_told() {
    let name = env(&"e".repeat(200));
    let entries = (0..10).map(|at| KeyValue::new(format!("key{at}"), "some value"));
    let (header, dropped) = inject(&Propagated::new().with_value(name.clone()).with_baggage(entries));
    let header = header.expect("a header");
    assert_eq!(header.env_id(), Some(name));
    let kept = text(&header, "baggage").map_or(0, |baggage| baggage.split(',').count());
    assert_eq!((kept + dropped.baggage, dropped.lines), (10, 0));
    assert!(dropped.baggage > 0 && header.wire().len() <= MAX_LEN);
}

proptest! {
    /// Whatever a service has in its context, the header is one, and the environment is in it.
    #[test]
    fn always_a_header(
        name in "[a-z0-9 /:,=%é-]{1,248}",
        // No percent sign: opentelemetry_sdk 0.31 does not encode it, and an entry that decodes to no UTF-8 is not read again.
        pairs in proptest::collection::btree_map("[a-z]{1,20}", "[ -$&-~é]{0,60}", 0..8),
    ) {
        let Ok(environment) = EnvId::new(&name) else { return Ok(()) };
        let baggage = pairs.into_iter().map(|(key, value)| KeyValue::new(key, value));
        let propagated = Propagated::new().with_value(environment.clone()).with_baggage(baggage);
        let (header, dropped) = inject(&propagated);
        let header = header.expect("an environment to tell");
        prop_assert_eq!(header.env_id(), Some(environment.clone()));
        let back = extract(&header);
        prop_assert_eq!(back.get::<EnvId>(), Some(&environment));
        if dropped.is_nothing() {
            let count = |context: &Propagated| context.baggage().len();
            prop_assert_eq!(count(&back), count(&propagated));
        }
    }
}
