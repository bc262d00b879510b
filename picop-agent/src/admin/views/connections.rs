//! Connections that are open: relayed ones as the agent knows them, direct ones as the kernel's sockets say.

use std::sync::{Arc, atomic::Ordering};

use serde::{Deserialize, Serialize};

use crate::{
    admin::{api::ApiError, state::State},
    intercept::{
        sockets::{self, DirectSocket},
        workloads::ManagedWorkload,
    },
    route::{EnvSource, RouteTable},
    telemetry::live::Open,
};

/// Which ones are asked for; all that are given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Of this environment; `-` for none.
    pub environment: Option<String>,
    /// To this service.
    pub service: Option<String>,
    /// Of workloads whose name contains this.
    pub workload: Option<String>,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// `direct` or `relay`.
    pub path: String,
    /// Its workload.
    pub workload: String,
    /// Its client's own address.
    pub client: String,
    /// The service, if it still is one.
    pub service: Option<String>,
    /// Its environment. Of a direct one, that of its workload now.
    pub environment: Option<String>,
    /// Where that came from.
    pub env_source: String,
    /// Where it wanted to go.
    pub original: Option<String>,
    /// Where it goes.
    pub backend: Option<String>,
    /// Why there; what the kernel decided is counted, but not kept with the connection.
    pub reason: Option<String>,
    /// What it is doing: `header` (to come, or being read), `connecting`, `open`, `closing`.
    pub state: String,
    /// Payload bytes from client to server: of direct ones, those acknowledged (the header included).
    pub bytes_up: u64,
    /// Payload bytes from server to client.
    pub bytes_down: u64,
    /// How long it has been open; not known of direct ones.
    pub age_ms: Option<u64>,
    /// Of direct ones, TCP's smoothed round-trip time.
    pub rtt_us: Option<u32>,
}

/// The answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    /// In order of workload and client.
    pub connections: Vec<Connection>,
    /// Workloads whose sockets could not be looked at, and why.
    pub problems: Vec<String>,
}

/// Answers `connections`.
pub async fn all(state: &State, filter: &Filter) -> Result<Connections, ApiError> {
    let mut answer = Connections::default();
    answer.connections.extend(state.hub.live().all().iter().map(relayed));
    let table = state.routes.load();
    let wanted = |workload: &ManagedWorkload| {
        filter.workload.as_ref().is_none_or(|part| workload.name.contains(part.as_str()))
    };
    let managed: Vec<_> = state.registry.managed().into_iter().filter(|w| wanted(w)).collect();
    match sockets::direct(&state.netns, &state.maps, &managed).await {
        Ok(found) => {
            for (workload, socket) in &found.sockets {
                answer.connections.push(direct(&table, workload, socket));
            }
            answer.problems = found.problems;
        }
        Err(error) => answer.problems.push(crate::telemetry::chain(&error)),
    }
    answer.connections.retain(|connection| fits(connection, filter));
    answer.connections.sort_by(|a, b| (&a.workload, &a.client).cmp(&(&b.workload, &b.client)));
    Ok(answer)
}

fn fits(connection: &Connection, filter: &Filter) -> bool {
    let environment = filter.environment.as_deref();
    environment.is_none_or(|wanted| connection.environment.as_deref().unwrap_or("-") == wanted)
        && filter.service.as_ref().is_none_or(|wanted| connection.service.as_ref() == Some(wanted))
        && filter.workload.as_ref().is_none_or(|part| connection.workload.contains(part))
}

fn relayed(open: &Arc<Open>) -> Connection {
    let progress = open.progress();
    let state = match (&progress.reason, &progress.backend) {
        (None, _) => "header",
        (Some(_), None) => "connecting",
        (Some(_), Some(_)) => "open",
    };
    Connection {
        path: "relay".to_owned(),
        workload: open.workload.to_string(),
        client: open.client.to_string(),
        service: progress.service.map(|service| service.name.clone()),
        environment: progress.environment.map(|environment| environment.to_string()),
        env_source: progress.source.unwrap_or(EnvSource::None).as_str().to_owned(),
        original: progress.original.map(|address| address.to_string()),
        backend: progress.backend.map(|address| address.to_string()),
        reason: progress.reason.map(|reason| reason.as_str().to_owned()),
        state: state.to_owned(),
        bytes_up: open.carried.up.load(Ordering::Relaxed),
        bytes_down: open.carried.down.load(Ordering::Relaxed),
        age_ms: Some(u64::try_from(open.age().as_millis()).unwrap_or(u64::MAX)),
        rtt_us: None,
    }
}

fn direct(table: &RouteTable, workload: &ManagedWorkload, socket: &DirectSocket) -> Connection {
    let spec = workload.spec.load();
    let environment = spec.environment.as_ref();
    let source = if environment.is_some() { EnvSource::Workload } else { EnvSource::None };
    Connection {
        path: "direct".to_owned(),
        workload: workload.name.to_string(),
        client: socket.client.to_string(),
        service: table.service_meant(&socket.original).map(|service| service.name.clone()),
        environment: environment.map(ToString::to_string),
        env_source: source.as_str().to_owned(),
        original: Some(socket.original.to_string()),
        backend: Some(socket.backend.to_string()),
        reason: None,
        state: socket.state.as_str().to_owned(),
        bytes_up: socket.bytes_up,
        bytes_down: socket.bytes_down,
        age_ms: None,
        rtt_us: Some(socket.rtt_us),
    }
}
