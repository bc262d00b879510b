//! Metrics of what the agent does not count itself: what the kernel counts and holds, routes, workloads.

use std::{net::SocketAddr, sync::PoisonError, time::UNIX_EPOCH};

use aya::programs::{ProgramInfo, loaded_programs};
use picop_common::{
    addr::Endpoint,
    connect::Reason,
    maps::{HEADERS_MAX, ORIGINALS_MAX, ROUTES_MAX, SOCKS_MAX, UNHEALTHY_MAX, WORKLOADS_MAX},
};
use prometheus::{
    CounterVec, GaugeVec, IntCounterVec, IntGaugeVec, Opts, core::Collector, proto::MetricFamily,
};

use super::{api::ApiError, state::State};
use crate::{
    intercept::{
        canary::{self, Status},
        snapshot::Snapshot,
        told,
    },
    telemetry::{metrics::families, spans::Stats},
};

/// Reasons that mean: not the way it should have gone.
const FALLBACKS: [Reason; 10] = [
    Reason::VariantEmptyBase,
    Reason::RelayNoInject,
    Reason::RelayFull,
    Reason::RelayFastOpen,
    Reason::RelayFamily,
    Reason::AgentStale,
    Reason::OtherNetns,
    Reason::BoundToDevice,
    Reason::NoListener,
    Reason::NoStorage,
];

/// Families in the making. Each is made anew when it is asked for: what it says is kept elsewhere.
#[derive(Default)]
struct Made(Vec<MetricFamily>);

impl Made {
    fn counter(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) {
        let family = IntCounterVec::new(Opts::new(name, help), &[label]).expect("a valid family");
        for (of, value) in values {
            family.with_label_values(&[of]).inc_by(value);
        }
        self.0.extend(family.collect());
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, usize)>,
    ) {
        let family = IntGaugeVec::new(Opts::new(name, help), &[label]).expect("a valid family");
        for (of, value) in values {
            family.with_label_values(&[of]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.0.extend(family.collect());
    }

    /// One without a label.
    fn one(&mut self, name: &str, help: &str, value: f64) {
        let family = GaugeVec::new(Opts::new(name, help), &[]).expect("a valid family");
        family.with_label_values::<&str>(&[]).set(value);
        self.0.extend(family.collect());
    }

    fn one_counter(&mut self, name: &str, help: &str, value: u64) {
        let family = IntCounterVec::new(Opts::new(name, help), &[]).expect("a valid family");
        family.with_label_values::<&str>(&[]).inc_by(value);
        self.0.extend(family.collect());
    }
}

/// All of them.
pub fn all(state: &State) -> Result<Vec<MetricFamily>, ApiError> {
    let mut made = Made::default();
    let snapshot = Snapshot::of(&state.maps).map_err(ApiError::failed)?;
    kernel(&mut made, &snapshot);
    routes(&mut made, state);
    usage(&mut made, state)?;
    if state.timing.is_some() {
        programs(&mut made, &state.programs);
    }
    if let Some(spans) = state.hub.spans() {
        let Stats { exported, dropped, failed } = spans.stats();
        made.counter(
            "picop_trace_spans_total",
            "Spans, by whether a receiver took them, there was no room for them, or it did not take them.",
            "result",
            [("exported", exported), ("dropped", dropped), ("failed", failed)]
                .map(|(name, n)| (name.to_owned(), n)),
        );
    }
    let (managed, pending) = state.registry.counts();
    made.gauge(
        "picop_workloads",
        "Workloads, by whether they are managed yet.",
        "state",
        [("managed", managed), ("pending", pending)],
    );
    made.gauge(
        "picop_connections_open",
        "Connections that are open. Direct ones are not known without asking for each: see `picop connections`.",
        "path",
        [("relay", state.hub.live().count())],
    );
    let report = state.canary.borrow().clone();
    let live = |status: &Status| f64::from(u8::from(*status == Status::Live));
    made.one(
        "picop_interception_live",
        "Whether the canary's connections are intercepted (1) or not (0).",
        live(&report.interception),
    );
    made.one(
        "picop_injection_live",
        "Whether the kernel is proven to write headers right (1) or not (0).",
        live(&report.injection),
    );
    made.one_counter(
        "picop_label_overflows_total",
        "Connections that were counted as (other), as there are too many pairs of service and environment.",
        state.hub.metrics().labels().overflows(),
    );
    let build = IntGaugeVec::new(Opts::new("picop_build_info", "1, with picop's version."), &["version"]);
    let build = build.expect("a valid family");
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    made.0.extend(build.collect());
    Ok(made.0)
}

fn kernel(made: &mut Made, snapshot: &Snapshot) {
    let named = |(reason, count): &(Reason, u64)| (reason.as_str().to_owned(), *count);
    made.counter(
        "picop_kernel_connections_total",
        "Connections of the attached cgroup by what the kernel decided, since the programs were loaded; the canary's too.",
        "reason",
        snapshot.connections.iter().map(named),
    );
    let fallbacks = snapshot.connections.iter().filter(|(reason, _)| FALLBACKS.contains(reason));
    made.counter(
        "picop_fallbacks_total",
        "Connections that did not go the way they should have, by why.",
        "reason",
        fallbacks.map(named),
    );
    made.counter(
        "picop_kernel_events_total",
        "What happened to connections after they were decided, since the programs were loaded; to the canary's too.",
        "event",
        snapshot.events.iter().map(|(event, count)| (event.as_str().to_owned(), *count)),
    );
    let entries = &snapshot.entries;
    let maps = [
        ("routes", entries.routes.unwrap_or_default(), ROUTES_MAX),
        ("workloads", entries.workloads, WORKLOADS_MAX),
        ("headers", entries.headers, HEADERS_MAX),
        ("originals", entries.originals, ORIGINALS_MAX),
        ("unhealthy", entries.unhealthy, UNHEALTHY_MAX),
        ("socks", snapshot.enrolled_now, SOCKS_MAX),
        ("slots", entries.grafts, picop_common::graft::SLOTS),
    ];
    made.gauge(
        "picop_map_entries",
        "Entries of the maps that are shared with the kernel.",
        "map",
        maps.map(|(name, entries, _)| (name, entries)),
    );
    made.gauge(
        "picop_map_capacity",
        "Entries that these maps hold at most.",
        "map",
        maps.map(|(name, _, capacity)| (name, capacity)),
    );
}

/// How often the programs ran, and how long. One that cannot be looked at is left out.
fn programs(made: &mut Made, ids: &[u32]) {
    let infos: Vec<_> = loaded_programs().flatten().filter(|info| ids.contains(&info.id())).collect();
    let named = |info: &ProgramInfo| info.name_as_str().unwrap_or_default().to_owned();
    made.counter(
        "picop_program_runs_total",
        "Runs of the kernel programs, since timing began.",
        "program",
        infos.iter().map(|info| (named(info), info.run_count())),
    );
    let family = CounterVec::new(
        Opts::new("picop_program_run_seconds_total", "The time that they took."),
        &["program"],
    )
    .expect("a valid family");
    for info in &infos {
        family.with_label_values(&[named(info)]).inc_by(info.run_time().as_secs_f64());
    }
    made.0.extend(family.collect());
}

/// Connections that the kernel decided by itself, under the names that their addresses have now.
fn usage(made: &mut Made, state: &State) -> Result<(), ApiError> {
    let (table, labels) = (state.routes.load(), state.hub.metrics().labels());
    let mut names = state.names.lock().unwrap_or_else(PoisonError::into_inner);
    let counter = |opts, labels| IntCounterVec::new(opts, labels).expect("a valid family");
    let opened = counter(families::opened(), &families::OPENED);
    let closed = counter(families::closed(), &families::CLOSED);
    let bytes = counter(families::bytes(), &families::BYTES);
    let canary = [canary::RELAYED, canary::DIRECT].map(Endpoint::from);
    for (key, usage) in state.maps.usage().map_err(ApiError::failed)? {
        if canary.contains(&key.original) {
            continue;
        }
        let original = SocketAddr::from(key.original);
        let service = names.service(&table, original);
        let environment = names.environment(&table, key.environment);
        let (service, environment) = labels.of(&service, &environment);
        let reason = Reason::ALL.get(usize::from(key.reason)).map_or("unknown", |reason| reason.as_str());
        let path = told::path(u32::from(key.verdict));
        opened.with_label_values(&[&*service, &*environment, reason, path]).inc_by(usage.opened);
        if usage.closed > 0 {
            closed.with_label_values(&[&*service, &*environment, path, "closed"]).inc_by(usage.closed);
            for (direction, count) in [("up", usage.up), ("down", usage.down)] {
                bytes.with_label_values(&[&*service, &*environment, path, direction]).inc_by(count);
            }
        }
    }
    for family in [opened, closed, bytes] {
        made.0.extend(family.collect());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "neither versions nor numbers of services reach 2^53")]
fn routes(made: &mut Made, state: &State) {
    let (table, source) = (state.routes.load(), state.routes.status());
    let size = |count: usize| count as f64;
    made.one(
        "picop_routes_version",
        "The version of the routes in effect; 0 for none.",
        table.version() as f64,
    );
    made.one("picop_routes_services", "Services in them.", size(table.services().len()));
    made.one("picop_routes_environments", "Environments in them.", size(table.environments().len()));
    let at = source.loaded_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    made.one(
        "picop_routes_loaded_timestamp_seconds",
        "When the routes' source was last read and found good.",
        at.unwrap_or_default().as_secs_f64(),
    );
    made.one_counter(
        "picop_routes_rejected_total",
        "Updates of the routes that were refused.",
        source.rejected,
    );
}
