//! What every connection tells: one hub, which those who want to know read from.

use std::sync::Arc;

use super::{
    events::Events,
    live::Live,
    metrics::{Metrics, labels::Limits},
    spans::Spans,
};

/// Where connections tell what becomes of them. A clone is the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    live: Live,
    events: Events,
    metrics: Metrics,
    spans: Option<Spans>,
}

impl Hub {
    /// One that counts under so many names, and makes spans if there is somebody to.
    pub fn new(limits: Limits, spans: Option<Spans>) -> Self {
        Self(Arc::new(Inner { metrics: Metrics::new(limits), spans, ..Inner::default() }))
    }

    /// Where spans are made, if anybody wants them.
    pub fn spans(&self) -> Option<&Spans> {
        self.0.spans.as_ref()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Relayed connections that are open.
    pub fn live(&self) -> &Live {
        &self.0.live
    }

    /// What happens, as it happens.
    pub fn events(&self) -> &Events {
        &self.0.events
    }
}
