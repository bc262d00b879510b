//! The families of what the agent itself sees.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, exponential_buckets, proto::MetricFamily,
};

/// Labels of connections.
pub const OPENED: [&str; 4] = ["service", "environment", "reason", "path"];
/// Labels of ended ones.
pub const CLOSED: [&str; 4] = ["service", "environment", "path", "outcome"];
/// Labels of payload.
pub const BYTES: [&str; 4] = ["service", "environment", "path", "direction"];
/// The family that what the kernel decides by itself is counted under as well.
pub const OPENED_NAME: &str = "picop_connections_opened_total";

/// All of them. A clone counts into the same.
#[derive(Clone, Debug)]
pub struct Families {
    registry: Registry,
    /// Connections.
    pub opened: IntCounterVec,
    /// Ended ones.
    pub closed: IntCounterVec,
    /// Payload.
    pub bytes: IntCounterVec,
    /// From accept to decision.
    pub header_wait: HistogramVec,
    /// From decision to a backend's answer.
    pub connect: HistogramVec,
    /// Both.
    pub setup: HistogramVec,
    /// From accept to end.
    pub lasted: HistogramVec,
}

/// How the connections of [`OPENED_NAME`] are described.
pub fn opened() -> Opts {
    Opts::new(
        OPENED_NAME,
        "Connections to services, by data path and reason. Relayed ones are counted by the agent when it has decided \
         them, the others by the kernel.",
    )
}

/// Connections that have ended.
pub fn closed() -> Opts {
    Opts::new(
        "picop_connections_closed_total",
        "Connections to services that have ended. How is known of relayed ones; of direct ones the kernel counts the end \
         alone (Linux 6.12), and of those left alone nothing.",
    )
}

/// What they carried.
pub fn bytes() -> Opts {
    Opts::new(
        "picop_bytes_total",
        "Payload bytes of connections to services that have ended: carried by the agent (relay), by the kernel past it \
         (graft), or between client and server (direct; Linux 6.12).",
    )
}

impl Default for Families {
    /// Nothing counted yet.
    fn default() -> Self {
        let counter = |opts, labels: &[&str]| IntCounterVec::new(opts, labels).expect("a valid family");
        // 25 us to 26 s: a handshake on the same node takes a few tens of microseconds.
        let buckets = exponential_buckets(25e-6, 4.0, 11).expect("more than nothing");
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.clone());
            HistogramVec::new(opts, &["service"]).expect("a valid family")
        };
        let all = Self {
            registry: Registry::new(),
            opened: counter(opened(), &OPENED),
            closed: counter(closed(), &CLOSED),
            bytes: counter(bytes(), &BYTES),
            header_wait: histogram(
                "picop_header_wait_seconds",
                "From a relayed connection's accept to its decision, a header on it being waited for and read.",
            ),
            connect: histogram(
                "picop_upstream_connect_seconds",
                "From a relayed connection's decision to a backend's taking it.",
            ),
            setup: histogram(
                "picop_setup_seconds",
                "From a relayed connection's accept to a backend's taking it.",
            ),
            lasted: histogram(
                "picop_connection_duration_seconds",
                "From a relayed connection's accept to its end.",
            ),
        };
        let register = |family: Box<dyn prometheus::core::Collector>| {
            all.registry.register(family).expect("one family a name");
        };
        for family in [&all.opened, &all.closed, &all.bytes] {
            register(Box::new(family.clone()));
        }
        for family in [&all.header_wait, &all.connect, &all.setup, &all.lasted] {
            register(Box::new(family.clone()));
        }
        all
    }
}

impl Families {
    /// As they are now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}
