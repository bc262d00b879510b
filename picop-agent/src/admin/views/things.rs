//! The agent itself, environments and workloads.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    admin::{api::ApiError, state::State},
    intercept::{canary::Status as CanaryStatus, snapshot::Snapshot},
    route::{ContextSource, PathChoice, WorkloadSpec},
};

/// The agent at one glance.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// picop's version.
    pub version: &'static str,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it began.
    pub uptime_s: u64,
    /// The cgroup it is attached to.
    pub attached_to: String,
    /// Whether connections are intercepted: `live`, or what is wrong.
    pub interception: String,
    /// Whether the kernel writes headers: `live`, or what is wrong.
    pub injection: String,
    /// The routes.
    pub routes: RoutesStatus,
    /// Workloads that are managed.
    pub workloads_managed: usize,
    /// Workloads that are not yet.
    pub workloads_pending: usize,
    /// Relayed connections that are open.
    pub relayed_now: usize,
    /// What the kernel counts and holds.
    pub kernel: Snapshot,
}

/// The routes at one glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoutesStatus {
    /// The version in effect; 0 for none.
    pub version: u64,
    /// Services in it.
    pub services: usize,
    /// Environments in it.
    pub environments: usize,
    /// Seconds since their source was last read and found good.
    pub age_s: Option<u64>,
    /// Updates that were refused.
    pub rejected: u64,
    /// Why the last one was, if it was.
    pub last_error: Option<String>,
}

/// One environment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// Services that have a variant in it which takes connections.
    pub variants: Vec<String>,
    /// Services whose variant in it has nothing ready.
    pub empty: Vec<String>,
    /// Managed workloads that belong to it.
    pub workloads: Vec<String>,
    /// Relayed connections of it that are open.
    pub relayed_now: usize,
}

/// One workload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// Its cgroup, relative to the cgroup v2 mount.
    pub name: String,
    /// `managed`, or `pending`.
    pub state: String,
    /// Why it is not managed yet.
    pub why: Option<String>,
    /// The environment it belongs to.
    pub environment: Option<String>,
    /// `header` if its connections may begin with one, else `none`.
    pub context: String,
    /// `auto`, `relay`, or `bypass`.
    pub path: String,
    /// Its cgroup's id.
    pub cgroup_id: Option<u64>,
    /// The agent's ports on the loopback addresses of its network namespace, IPv4 and IPv6; 0 for none.
    pub listeners: Option<(u16, u16)>,
    /// Relayed connections of it that are open.
    pub relayed_now: usize,
}

/// What is logged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    /// In tracing's filter syntax.
    pub filter: String,
}

/// Answers `status`.
pub fn status(state: &State) -> Result<Status, ApiError> {
    let report = state.canary.borrow().clone();
    let (workloads_managed, workloads_pending) = state.registry.counts();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        uptime_s: state.started.elapsed().as_secs(),
        attached_to: state.attached_to.display().to_string(),
        interception: canary(&report.interception),
        injection: canary(&report.injection),
        routes: routes_status(state),
        workloads_managed,
        workloads_pending,
        relayed_now: state.hub.live().count(),
        kernel: Snapshot::of(&state.maps).map_err(ApiError::failed)?,
    })
}

fn routes_status(state: &State) -> RoutesStatus {
    let (table, source) = (state.routes.load(), state.routes.status());
    let age = |at| SystemTime::now().duration_since(at).unwrap_or_default().as_secs();
    RoutesStatus {
        version: table.version(),
        services: table.services().len(),
        environments: table.environments().len(),
        age_s: source.loaded_at.map(age),
        rejected: source.rejected,
        last_error: source.last_error,
    }
}

fn canary(status: &CanaryStatus) -> String {
    match status {
        CanaryStatus::Live => "live".to_owned(),
        CanaryStatus::Unknown => "not known yet".to_owned(),
        CanaryStatus::Dead(why) | CanaryStatus::Slow(why) => why.clone(),
    }
}

/// Answers `environments`.
pub fn environments(state: &State) -> Vec<Environment> {
    let table = state.routes.load();
    let mut all: BTreeMap<String, Environment> = table
        .environments()
        .map(|e| (e.to_string(), Environment { name: e.to_string(), ..Environment::default() }))
        .collect();
    for service in table.services() {
        for (environment, endpoints) in &service.variants {
            if let Some(entry) = all.get_mut(environment.as_str()) {
                let list = if endpoints.is_empty() { &mut entry.empty } else { &mut entry.variants };
                list.push(service.name.clone());
            }
        }
    }
    for workload in state.registry.managed() {
        if let Some(environment) = &workload.spec.load().environment
            && let Some(entry) = all.get_mut(environment.as_str())
        {
            entry.workloads.push(workload.name.to_string());
        }
    }
    for open in state.hub.live().all() {
        // One that only a header names is no environment of the table's.
        if let Some(environment) = open.progress().environment
            && let Some(entry) = all.get_mut(environment.as_str())
        {
            entry.relayed_now += 1;
        }
    }
    all.into_values().collect()
}

/// Answers `workloads`.
pub fn workloads(state: &State) -> Result<Vec<Workload>, ApiError> {
    let table = state.routes.load();
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for connection in state.hub.live().all() {
        *open.entry(connection.workload.to_string()).or_default() += 1;
    }
    let mut all = Vec::new();
    for managed in state.registry.managed() {
        let kernel = state.maps.workload(managed.id).map_err(ApiError::failed)?;
        let mut line = described(&managed.name, Some(&managed.spec.load()));
        line.cgroup_id = Some(managed.id);
        line.listeners = kernel.map(|w| (w.listener_v4.to_host(), w.listener_v6.to_host()));
        line.relayed_now = open.get(&*managed.name).copied().unwrap_or_default();
        all.push(line);
    }
    for pending in state.registry.pending() {
        let mut line = described(&pending.name, table.workload_for(&pending.name));
        "pending".clone_into(&mut line.state);
        line.why = Some(pending.why);
        all.push(line);
    }
    Ok(all)
}

fn described(name: &str, spec: Option<&WorkloadSpec>) -> Workload {
    let path = match spec {
        Some(spec) if spec.bypass => "bypass",
        Some(spec) if spec.path == PathChoice::Relay => "relay",
        _ => "auto",
    };
    let header = spec.is_some_and(|spec| spec.context == ContextSource::Header);
    Workload {
        name: name.to_owned(),
        state: "managed".to_owned(),
        why: None,
        environment: spec.and_then(|spec| spec.environment.as_ref()).map(ToString::to_string),
        context: if header { "header" } else { "none" }.to_owned(),
        path: path.to_owned(),
        cgroup_id: None,
        listeners: None,
        relayed_now: 0,
    }
}

/// Answers `config`.
pub fn config(state: &State) -> serde_json::Value {
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "attached_to": state.attached_to.display().to_string(),
        "log_filter": state.logs.filter(),
        "arguments": state.args,
    })
}
