//! What the agent tells of itself, received by those it is meant for: Prometheus' tools, an OpenTelemetry collector, a
//! browser.

mod collector;
mod metrics;
mod monitoring;
mod page;
mod scene;
mod traces;
