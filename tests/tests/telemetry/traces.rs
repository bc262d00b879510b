//! Traces, as a collector receives them.

use std::net::{SocketAddr, TcpListener};

use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};
use testbed::{hex, http, require_privilege, wait_until};

use crate::collector::{self, Received, attribute};
use crate::scene::{Result, SOON, Scene, connect, served};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn of(at: SocketAddr, protocol: &str) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{at}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_on".to_owned()),
    ]
}

fn wait(received: &Received, count: usize) -> Result<Vec<Span>> {
    Ok(wait_until(&format!("{count} spans"), SOON, || {
        let spans = received.spans();
        (spans.len() >= count).then_some(spans)
    })?)
}

fn traced(protocol: &str, (at, received): (SocketAddr, Received)) -> Result {
    let scene = Scene::new("traces")?;
    let env = of(at, protocol);
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let agent = scene.agent(&[], &env)?;
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let not_sampled = format!("00-{}-{PARENT}-00", TRACE.replace('4', "5"));
    let header = |traceparent| [("Env-Id", "pr-1"), ("Traceparent", traceparent)];
    // First the one that is not to be seen: what comes after it would come after its span.
    connect(&scene, &scene.instrumented, scene.cart, 1, &header(not_sampled.as_str()))?;
    connect(&scene, &scene.instrumented, scene.cart, 1, &header(sampled.as_str()))?;
    connect(&scene, &scene.instrumented, scene.billing, 1, &[("Env-Id", "pr-1")])?;

    let spans = wait(&received, 2)?;
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert!(received.services().iter().all(|name| name == "picop"), "{:?}", received.services());
    let child = spans.iter().find(|span| !span.parent_span_id.is_empty()).ok_or("a child")?;
    assert_eq!(
        (hex::encode(&child.trace_id), hex::encode(&child.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(child.name, "connect cart");
    let variant = scene.variant;
    for (name, value) in [
        ("picop.service", "cart".to_owned()),
        ("picop.environment", "pr-1".to_owned()),
        ("picop.env_source", "header".to_owned()),
        ("picop.reason", "variant".to_owned()),
        ("picop.path", "relay".to_owned()),
        ("picop.outcome", "ok".to_owned()),
        ("picop.bytes_up", "1".to_owned()),
        ("picop.workload", scene.instrumented.cgroup_path_rel().to_owned()),
        ("server.address", scene.cart.ip().to_string()),
        ("network.peer.address", variant.ip().to_string()),
        ("network.peer.port", variant.port().to_string()),
    ] {
        assert_eq!(attribute(&child.attributes, name).as_ref(), Some(&value), "{name} of {child:#?}");
    }
    assert!(child.start_time_unix_nano > 0 && child.start_time_unix_nano <= child.end_time_unix_nano);
    let events: Vec<_> = child.events.iter().map(|event| event.name.as_str()).collect();
    for name in ["decided", "connected", "environment first used"] {
        // The environment was first used by the one that was not sampled: it is told of in a log line, and not here.
        assert_eq!(events.contains(&name), name != "environment first used", "{events:?}");
    }
    let root = spans.iter().find(|span| span.parent_span_id.is_empty()).ok_or("a root")?;
    assert_ne!(root.trace_id, child.trace_id);
    let status = root.status.as_ref().map(Status::code);
    assert_eq!(
        (status, attribute(&root.attributes, "picop.outcome")),
        (Some(StatusCode::Error), Some("refused".into()))
    );
    drop(agent);
    Ok(())
}

#[test]
fn spans_are_children_of_the_header_over_grpc() -> Result {
    require_privilege!(Ok(()));
    traced("grpc", collector::grpc()?)
}

#[test]
fn spans_are_children_of_the_header_over_http() -> Result {
    require_privilege!(Ok(()));
    traced("http/protobuf", collector::http()?)
}

/// Direct connections are sampled: all of them, if that is what is asked for.
#[test]
fn direct_connections_are_sampled() -> Result {
    require_privilege!(Ok(()));
    let (at, received) = collector::grpc()?;
    let scene = Scene::new("sampled")?;
    let env = of(at, "grpc");
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let _agent = scene.agent(&["--trace-direct", "1"], &env)?;
    connect(&scene, &scene.member, scene.cart, 20, &[])?;
    let spans = wait(&received, 20)?;
    assert_eq!(spans.len(), 20);
    let all = |name: &str, value: &str| {
        spans.iter().all(|span| attribute(&span.attributes, name).as_deref() == Some(value))
    };
    assert!(
        all("picop.path", "direct") && all("picop.environment", "pr-1") && all("picop.reason", "variant"),
        "{spans:#?}"
    );
    let first =
        spans.iter().filter(|span| span.events.iter().any(|event| event.name == "environment first used"));
    assert_eq!(first.count(), 1);
    Ok(())
}

/// Connections that are part of no trace.
const OTHERS: usize = 2000;

/// Without a word about sampling: what a caller samples, and about one in a hundred of the others.
#[test]
fn few_of_the_others_without_a_sampler() -> Result {
    require_privilege!(Ok(()));
    let (at, received) = collector::grpc()?;
    let scene = Scene::new("few")?;
    let env = of(at, "grpc");
    let env: Vec<_> = env
        .iter()
        .filter(|(name, _)| *name != "OTEL_TRACES_SAMPLER")
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let _agent = scene.agent(&[], &env)?;
    connect(&scene, &scene.instrumented, scene.cart, OTHERS, &[("Env-Id", "pr-1")])?;
    let (sampled, not_sampled) = (format!("00-{TRACE}-{PARENT}-01"), format!("00-{TRACE}-{PARENT}-00"));
    for parent in [&not_sampled, &sampled] {
        connect(&scene, &scene.instrumented, scene.cart, 5, &[("Env-Id", "pr-1"), ("Traceparent", parent)])?;
    }
    // Spans come in order: those of the last connections are the last.
    let children = |spans: &[Span]| spans.iter().filter(|span| !span.parent_span_id.is_empty()).count();
    let spans = wait_until("the sampled ones", SOON, || {
        let spans = received.spans();
        (children(&spans) >= 5).then_some(spans)
    })?;
    assert_eq!(children(&spans), 5, "of what its caller does not sample there is nothing");
    // 20 are expected. Outside of this it is once in a hundred million times.
    let others = spans.len() - 5;
    assert!((1..=55).contains(&others), "{others} of {OTHERS}");
    Ok(())
}

/// A collector that takes connections and never answers: connections go on, memory does not, and what is lost is counted.
#[test]
fn a_collector_that_hangs_costs_nobody_anything() -> Result {
    require_privilege!(Ok(()));
    let hangs = TcpListener::bind("127.0.0.1:0")?;
    let scene = Scene::new("hangs")?;
    let mut env = of(hangs.local_addr()?, "grpc");
    env.push(("OTEL_BSP_MAX_QUEUE_SIZE", "16".to_owned()));
    env.push(("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8".to_owned()));
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let agent = scene.agent(&["--metrics", "127.0.0.1:0"], &env)?;
    let answers = connect(&scene, &scene.instrumented, scene.cart, 500, &[("Env-Id", "pr-1")])?;
    let variant = scene.variant.to_string();
    assert!(answers.iter().all(|answer| *answer == variant), "{answers:?}");
    let metrics = served(&agent, "--metrics")?;
    let dropped = wait_until("spans to be dropped", SOON, || {
        let text = http::text(metrics, "/metrics", "").ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("picop_trace_spans_total{result=\"dropped\"} "))?;
        line.parse::<u64>().ok().filter(|dropped| *dropped > 0)
    })?;
    // One batch is on its way, one queue is full.
    assert!(dropped >= 500 - 8 - 16, "{dropped}");
    Ok(())
}
