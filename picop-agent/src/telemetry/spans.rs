//! Traces: a span for each relayed connection, and for those direct ones that are sampled, by OTLP. What is sent where, and
//! how much of it, is said by the variables of OpenTelemetry (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_PROTOCOL`,
//! `OTEL_TRACES_SAMPLER`, ...: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! A span is made when its connection has ended, out of what was noted for its access line anyway. It goes into a bounded
//! queue; when that is full, because nobody takes them, it is dropped and counted.

mod queue;

use std::{
    collections::{HashMap, HashSet},
    env,
    hash::{BuildHasher as _, RandomState},
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    KeyValue,
    propagation::TextMapPropagator as _,
    trace::{Event, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};

use crate::protocol::Context;

pub use queue::Stats;

/// Of so many relayed connections that are part of no trace there is one span, if `OTEL_TRACES_SAMPLER` does not say
/// otherwise. (OpenTelemetry's own default is one of each: 35 us of CPU time for every connection of a node.)
const ONE_IN: u32 = 100;

/// Environments that are remembered as seen.
const ENVIRONMENTS: usize = 100_000;

/// Spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SpansError {
    /// The variables do not fit together.
    #[error("the exporter of traces cannot be made of the OTEL_ variables")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A protocol that is none of those served.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL={0}: here are grpc and http/protobuf")]
    Protocol(String),
    /// Its thread does not start.
    #[error("cannot start the thread that sends traces")]
    Thread(#[source] io::Error),
}

/// Whoever makes spans.
#[derive(Debug)]
pub struct Spans {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    queue: queue::Queue,
    /// Whether the variables say which spans to make. If not, this does: what a caller samples, and a few of the others.
    own_choice: bool,
    seen: Mutex<HashSet<String>>,
}

/// What a connection's span says.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    /// The trace that it is part of, if its header says so.
    pub parent: Option<&'a opentelemetry::Context>,
    /// When it began.
    pub began: SystemTime,
    /// How long it lasted.
    pub lasted: Duration,
    /// When, after that, something happened to it.
    pub happened: Vec<(&'static str, Duration)>,
    /// Who made it.
    pub workload: &'a str,
    /// To which service.
    pub service: Option<&'a str>,
    /// In which environment.
    pub environment: Option<&'a str>,
    /// Where that came from.
    pub env_source: &'static str,
    /// Where its client wanted to go.
    pub original: Option<SocketAddr>,
    /// Where it went.
    pub backend: Option<SocketAddr>,
    /// On which path.
    pub path: &'static str,
    /// For which reason.
    pub reason: Option<&'static str>,
    /// What its server was told.
    pub header: &'static str,
    /// Payload bytes, to the server and to the client, of relayed ones.
    pub bytes: Option<(u64, u64)>,
    /// How it ended, of relayed ones.
    pub outcome: Option<&'static str>,
    /// What went wrong.
    pub error: Option<&'a str>,
    /// Whether it is the first of its environment.
    pub is_first: bool,
}

/// Whether the variables ask for traces: they name an endpoint, and nothing forbids it.
pub fn are_wanted() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|set| set.eq_ignore_ascii_case(value));
    let named = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    named.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
        && !is("OTEL_SDK_DISABLED", "true")
        && !is("OTEL_TRACES_EXPORTER", "none")
}

impl Spans {
    /// Starts sending, as the variables say.
    pub fn start() -> Result<Self, SpansError> {
        let mut resource = Resource::builder();
        if env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("picop");
        }
        let resource =
            resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        let queue = queue::Queue::start(&resource)?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(queue.processor())
            .build();
        let own_choice = env::var_os("OTEL_TRACES_SAMPLER").is_none();
        Ok(Self { tracer: provider.tracer("picop"), provider, queue, own_choice, seen: Mutex::default() })
    }

    /// What became of spans so far.
    pub fn stats(&self) -> Stats {
        self.queue.stats()
    }

    /// The trace that a connection is part of, by its header.
    pub fn parent(&self, context: &Context) -> Option<opentelemetry::Context> {
        let carried: HashMap<String, String> = ["traceparent", "tracestate"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), String::from_utf8(context.get(key)?.to_vec()).ok()?)))
            .collect();
        let parent =
            TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &carried);
        parent.span().span_context().is_valid().then_some(parent)
    }

    /// Whether to make a span of a relayed connection, as far as that is decided here: before anything is put together for it.
    pub fn wants(&self, parent: Option<&opentelemetry::Context>) -> bool {
        match parent {
            _ if !self.own_choice => true,
            Some(parent) => parent.span().span_context().is_sampled(),
            None => RandomState::new().hash_one(()).is_multiple_of(u64::from(ONE_IN)),
        }
    }

    /// Says so when an environment is used for the first time.
    pub fn used(&self, environment: Option<&str>) -> bool {
        let Some(environment) = environment.filter(|environment| self.is_first(environment)) else {
            return false;
        };
        tracing::info!(environment, "environment first used");
        true
    }

    /// Makes a connection's span, if it is sampled.
    pub fn tell(&self, it: &Connection<'_>) {
        let at = |after: Duration| it.began + after;
        let mut events: Vec<_> =
            it.happened.iter().map(|(name, after)| Event::new(*name, at(*after), Vec::new(), 0)).collect();
        if let Some(environment) = it.environment.filter(|_| it.is_first) {
            let which = KeyValue::new("picop.environment", environment.to_owned());
            events.push(Event::new("environment first used", it.began, vec![which], 0));
        }
        let status = match (it.error, it.outcome) {
            (Some(error), _) => Status::error(error.to_owned()),
            (None, Some(outcome)) if outcome != "ok" => Status::error(outcome),
            _ => Status::Unset,
        };
        let builder =
            SpanBuilder::from_name(it.service.map_or("connect".to_owned(), |name| format!("connect {name}")))
                .with_kind(SpanKind::Client)
                .with_start_time(it.began)
                .with_end_time(at(it.lasted))
                .with_attributes(attributes(it))
                .with_events(events)
                .with_status(status);
        let none = opentelemetry::Context::new();
        let mut span = self.tracer.build_with_context(builder, it.parent.unwrap_or(&none));
        opentelemetry::trace::Span::end_with_timestamp(&mut span, at(it.lasted));
    }

    fn is_first(&self, environment: &str) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        !seen.contains(environment) && seen.len() < ENVIRONMENTS && seen.insert(environment.to_owned())
    }

    /// Sends what is left, for so long at most.
    pub fn finish(&self, patience: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(patience) {
            tracing::warn!(%error, "some traces were not sent");
        }
    }
}

fn attributes(it: &Connection<'_>) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("network.transport", "tcp"),
        KeyValue::new("picop.workload", it.workload.to_owned()),
        KeyValue::new("picop.env_source", it.env_source),
        KeyValue::new("picop.path", it.path),
        KeyValue::new("picop.header", it.header),
    ];
    let mut address = |names: [&'static str; 2], address: Option<SocketAddr>| {
        if let Some(address) = address {
            all.push(KeyValue::new(names[0], address.ip().to_string()));
            all.push(KeyValue::new(names[1], i64::from(address.port())));
        }
    };
    address(["server.address", "server.port"], it.original);
    address(["network.peer.address", "network.peer.port"], it.backend);
    let words = [
        ("picop.service", it.service),
        ("picop.environment", it.environment),
        ("picop.reason", it.reason),
        ("picop.outcome", it.outcome),
    ];
    all.extend(words.into_iter().filter_map(|(name, word)| Some(KeyValue::new(name, word?.to_owned()))));
    if let Some((up, down)) = it.bytes {
        let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        all.push(KeyValue::new("picop.bytes_up", number(up)));
        all.push(KeyValue::new("picop.bytes_down", number(down)));
    }
    all
}
