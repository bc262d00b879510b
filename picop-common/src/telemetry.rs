//! Contexts as OpenTelemetry propagates them.
//!
//! A PiCoP header is a TextMap carrier: beside the environment it has `traceparent`, `tracestate` and `baggage`. A service
//! that is instrumented for OpenTelemetry hands all of them on by [`extract`] when it accepts a connection, and by [`inject`],
//! or [`current`], when it dials. The environment is an [`EnvId`] among the values of an [`opentelemetry::Context`].
//!
//! Where HTTP headers are carriers, [`EnvIdPropagator`] goes beside the other propagators of the service.
use std::collections::BTreeMap;

use opentelemetry::{
    Context as Propagated,
    propagation::{
        Extractor, Injector, TextMapCompositePropagator, TextMapPropagator, text_map_propagator::FieldIter,
    },
};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};

use crate::{
    header::{ENV_ID, Field},
    protocol::{Context, Dropped, EnvId},
};

/// The environment's key in carriers: look-ups in headers ignore case.
const KEY: &str = "env-id";

/// Carries the environment, as `env-id`.
#[derive(Debug)]
pub struct EnvIdPropagator {
    fields: [String; 1],
}

impl EnvIdPropagator {
    /// It has nothing to set up.
    pub fn new() -> Self {
        Self { fields: [KEY.to_owned()] }
    }
}

impl Default for EnvIdPropagator {
    fn default() -> Self {
        Self::new()
    }
}

impl TextMapPropagator for EnvIdPropagator {
    fn inject_context(&self, context: &Propagated, injector: &mut dyn Injector) {
        if let Some(environment) = context.get::<EnvId>() {
            injector.set(KEY, environment.as_str().to_owned());
        }
    }

    /// What is no name of an environment counts as not there.
    fn extract_with_context(&self, context: &Propagated, extractor: &dyn Extractor) -> Propagated {
        let name = extractor.get(KEY).or_else(|| extractor.get(ENV_ID)).map(str::trim);
        match name.and_then(|name| EnvId::new(name).ok()) {
            Some(environment) => context.with_value(environment),
            None => context.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.fields)
    }
}

/// All that a header carries: environment, trace (`traceparent`, `tracestate`) and `baggage`.
pub fn propagator() -> TextMapCompositePropagator {
    TextMapCompositePropagator::new(vec![
        Box::new(EnvIdPropagator::new()),
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ])
}

/// What a connection's header says, on top of the current context.
///
/// A client that names its environment in `baggage` only, as `env-id=`, is taken at its word.
pub fn extract(context: &Context) -> Propagated {
    let extracted = propagator().extract(context);
    match context.env_id() {
        Some(environment) => extracted.with_value(environment),
        None => extracted,
    }
}

/// The header for a connection that is dialled in this context, or none, and what does not fit into its 255 bytes: entries at
/// the end of `baggage` first, then of `tracestate`. The environment always fits.
pub fn inject(context: &Propagated) -> (Option<Context>, Dropped) {
    let mut pairs = Pairs::default();
    propagator().inject_context(context, &mut pairs);
    let there = pairs.0.iter().filter(|(_, value)| !value.is_empty());
    Context::of_fields(there.map(|(key, value)| Field::new(key, value)).collect())
}

/// The header for a connection that is dialled now.
pub fn current() -> (Option<Context>, Dropped) {
    Propagated::map_current(inject)
}

#[derive(Default)]
struct Pairs(BTreeMap<String, String>);

impl Injector for Pairs {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value);
    }
}

/// A value that is not UTF-8 counts as not there.
impl Extractor for Context {
    fn get(&self, key: &str) -> Option<&str> {
        str::from_utf8(Context::get(self, key)?).ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.fields().filter_map(|field| str::from_utf8(field.key).ok()).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let values = self.fields().filter(|field| field.is(key));
        let texts: Vec<_> = values.filter_map(|field| str::from_utf8(field.value).ok()).collect();
        Some(texts).filter(|texts| !texts.is_empty())
    }
}
