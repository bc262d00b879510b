//! `picop explain`: what would become of a connection, and why. Decided by the code that decides for the hooks, and by the
//! relay's where the hooks would hand it over; on what the kernel's maps hold now.

mod draw;
mod probe;
mod rules;
mod what_if;

use std::{net::SocketAddr, time::Duration};

use picop_common::{
    connect::{self, Decision as KernelDecision},
    route::{BASE, RouteKey},
};
use serde::{Deserialize, Serialize};

use self::probe::Probe;
use super::{api::ApiError, state::State};
use crate::{
    intercept::{heartbeat::now_ns, workloads::ManagedWorkload},
    protocol::{Context, EnvId},
    route::{self, Backends, Balancing, ContextSource, HeaderPolicy, RouteTable, WorkloadSpec},
};

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Query {
    /// The workload: its name, or the end or any other part of it that no other one's has. `-` for a process of none.
    pub from: String,
    /// Where to: an address and port, or a service's name.
    pub to: String,
    /// The environment that the application names in a header of its own.
    pub environment: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The workload.
    pub workload: String,
    /// Where it connects to.
    pub destination: String,
    /// The service there.
    pub service: Option<String>,
    /// The environment that counts.
    pub environment: Option<String>,
    /// Where that comes from: `header`, `workload` or `none`.
    pub env_source: String,
    /// The rules that were tried, in order.
    pub rules: Vec<Rule>,
    /// `passthrough`, `direct`, `relay` or `refused`.
    pub path: String,
    /// Why that path: the kernel's reason.
    pub kernel_reason: String,
    /// Why there: the relay's reason if it is relayed, else the kernel's.
    pub reason: String,
    /// What the server is told: `propagate`, `strip` or `none`.
    pub header: String,
    /// Where it would go, most likely first.
    pub backends: Vec<Candidate>,
    /// That it waits: connected to the agent, and to nobody else yet.
    #[serde(default)]
    pub waits: Option<Waiting>,
    /// What would make it go another way.
    pub otherwise: Vec<Otherwise>,
    /// What cannot be known beforehand, or was not taken into account.
    pub notes: Vec<String>,
    /// The version of the routes.
    pub routes_version: u64,
}

/// A rule that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Who tries it: `kernel` or `relay`.
    pub by: String,
    /// The reason that it is, if it holds.
    pub rule: String,
    /// Whether it holds.
    pub holds: bool,
    /// What it asks, in words.
    pub asks: String,
}

/// Where a connection may go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The endpoint.
    pub address: String,
    /// Its share of the connections, if all endpoints work.
    pub share: f64,
    /// It did not take a connection a moment ago, and is passed over where there are others.
    pub passed_over: bool,
}

/// How a connection waits for its variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// For so many milliseconds at most.
    pub at_most_ms: u64,
    /// Who says for how long: `the service`, or `--variant-wait`.
    pub of: String,
    /// What ends it, and where the connection goes then.
    pub ends: Vec<String>,
}

/// A change, and what it would lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Otherwise {
    /// The change.
    pub change: String,
    /// What would become of the connection then.
    pub then: String,
}

/// Of several endpoints.
const STAYS: &str =
    "all connections of this workload get this endpoint, as long as it is there (balancing by client)";

/// Answers `explain`.
pub fn answer(state: &State, query: &Query) -> Result<Explanation, ApiError> {
    let table = state.routes.load();
    let destination = destination(&table, &query.to)?;
    let workload = if query.from == "-" { None } else { Some(workload(state, &query.from)?) };
    let named = query.environment.as_deref().map(EnvId::new).transpose();
    let named = named.map_err(|error| ApiError::Asked(format!("--env: {error}")))?;
    let routes = state.maps.routes_in_effect().map_err(ApiError::failed)?;
    let kernel = match &workload {
        Some(managed) => state.maps.workload(managed.id).map_err(ApiError::failed)?,
        None => None,
    };
    let now = now_ns();
    let probe = Probe {
        workload: kernel,
        agent_flags: state.maps.agent_flags(),
        destination: destination.into(),
        routes: &|key| routes.get(key),
        unhealthy: &|endpoint| state.maps.is_ejected((*endpoint).into(), now),
        heartbeat_age_ns: now.saturating_sub(state.maps.last_beat().map_err(ApiError::failed)?),
        fast_open: false,
        bound_to_device: false,
        tried: None,
    };
    let spec = workload.as_ref().map(|managed| managed.spec.load_full());
    let name = workload.as_ref().map_or("(none)", |managed| &managed.name);
    Ok(explained(&probe, name, spec.as_deref(), &table, named.as_ref(), state.args.variant_wait))
}

/// The same of what is known already: pure. `variant_wait` is how long connections wait whose service says nothing of that.
pub fn explained(
    probe: &Probe<'_>,
    name: &str,
    spec: Option<&WorkloadSpec>,
    table: &RouteTable,
    named: Option<&EnvId>,
    variant_wait: Duration,
) -> Explanation {
    let (decision, tried) = probe.decide();
    let destination = SocketAddr::from(probe.destination);
    let mut rules: Vec<_> = tried.iter().map(|(rule, holds)| rules::of_kernel(*rule, *holds)).collect();
    let reason = reason_of(&decision);
    let mut answer = Explanation {
        workload: name.to_owned(),
        destination: destination.to_string(),
        service: table.service_at(&probe.service_address().into()).map(|service| service.name.clone()),
        environment: spec.and_then(|spec| spec.environment.as_ref()).map(ToString::to_string),
        env_source: String::new(),
        rules: Vec::new(),
        path: path_of(&decision).to_owned(),
        kernel_reason: reason.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        header: "none".to_owned(),
        backends: Vec::new(),
        waits: None,
        otherwise: what_if::changes(probe, table, &decision),
        notes: Vec::new(),
        routes_version: table.version(),
    };
    match decision {
        KernelDecision::Pass(_) => answer.backends = vec![sure(destination)],
        KernelDecision::Refuse(_) => {}
        KernelDecision::Direct { to, header, watch, .. } => {
            answer.header = told(header != 0, answer.environment.is_some());
            let drawn = watch && !draw::is_by_client(probe, &tried);
            answer.backends =
                if drawn { draw::candidates(probe, &tried) } else { vec![sure(SocketAddr::from(to))] };
            if watch && !drawn {
                answer.notes.push(STAYS.to_owned());
            }
        }
        KernelDecision::Relay { .. } => {
            let client = probe.workload.map_or(0, |workload| workload.id);
            relayed(&mut answer, &mut rules, spec, table, destination, named, client);
            if answer.reason == route::Reason::VariantEmptyWaits.as_str() {
                answer.waits = Some(waiting(&answer, table, destination, variant_wait));
            }
        }
    }
    if answer.env_source.is_empty() {
        let source = if answer.environment.is_some() { "workload" } else { "none" };
        source.clone_into(&mut answer.env_source);
        if named.is_some() {
            answer.notes.push(
                "the environment of --env does not count: nothing reads a header on this connection"
                    .to_owned(),
            );
        }
    }
    answer.rules = rules;
    answer
}

/// What the relay would decide, once it has the connection.
fn relayed(
    answer: &mut Explanation,
    rules: &mut Vec<Rule>,
    spec: Option<&WorkloadSpec>,
    table: &RouteTable,
    destination: SocketAddr,
    named: Option<&EnvId>,
    client: u64,
) {
    let reads = spec.is_some_and(|spec| spec.context == ContextSource::Header);
    let from_header = named.filter(|_| reads);
    if named.is_some() && !reads {
        answer
            .notes
            .push("the environment of --env does not count: the workload is not `context: header`".into());
    }
    if reads && named.is_none() {
        answer.notes.push("with a header on the connection, its environment would count (--env)".into());
    }
    let facts = route::Facts {
        table,
        destination,
        from_header,
        of_workload: spec.and_then(|spec| spec.environment.as_ref()),
    };
    let decision = route::decide_telling(&facts, &mut |rule, holds| {
        rules.push(rules::of_relay(rule, holds));
        holds
    });
    decision.reason.as_str().clone_into(&mut answer.reason);
    answer.environment = decision.environment.as_ref().map(ToString::to_string);
    decision.source.as_str().clone_into(&mut answer.env_source);
    let known = from_header.is_some() || spec.is_some_and(|spec| spec.own.as_ref().is_some_and(has_words));
    answer.header = told(known && decision.header == HeaderPolicy::Propagate, known);
    match &decision.backends {
        Backends::Refused if decision.reason == route::Reason::VariantEmptyWaits => {}
        Backends::Refused => {
            answer
                .notes
                .push("a relayed connection is refused by a reset after its connect has succeeded".into());
        }
        Backends::Itself(address) => answer.backends = vec![sure(*address)],
        backends @ Backends::Endpoints(endpoints)
            if decision.service.as_ref().is_some_and(|service| service.balancing == Balancing::Client) =>
        {
            let order = backends.order(Balancing::Client, client, 0);
            answer.backends = order.first().map(|first| sure(*first)).into_iter().collect();
            if endpoints.serving().count() > 1 {
                answer.notes.push(STAYS.to_owned());
            }
        }
        Backends::Endpoints(endpoints) => {
            let total: u64 = endpoints.serving().map(|it| u64::from(it.weight.get())).sum();
            answer.backends = endpoints
                .serving()
                .map(|it| Candidate {
                    address: it.address.to_string(),
                    share: f64::from(it.weight.get()) / u32::try_from(total).map_or(f64::INFINITY, f64::from),
                    passed_over: false,
                })
                .collect();
            answer.backends.sort_by(|a, b| b.share.total_cmp(&a.share));
        }
    }
}

/// That a connection waits, for how long, and what ends that.
fn waiting(
    answer: &Explanation,
    table: &RouteTable,
    destination: SocketAddr,
    otherwise: Duration,
) -> Waiting {
    let service = table.service_meant(&destination);
    let own = service.and_then(|service| service.timeouts.variant_wait);
    let name = service.map_or_else(|| destination.to_string(), |service| service.name.clone());
    let environment = answer.environment.as_deref().unwrap_or("none");
    Waiting {
        at_most_ms: own.unwrap_or(otherwise).as_millis().try_into().unwrap_or(u64::MAX),
        of: if own.is_some() { "the service" } else { "--variant-wait" }.to_owned(),
        ends: vec![
            format!(
                "the variant of {name} in {environment} gets an endpoint that takes connections: to that endpoint"
            ),
            format!(
                "{name} has no variant in {environment} any more, or its fallback is `base`: to the base"
            ),
            "its fallback is `refuse`: reset".to_owned(),
            "the client goes away".to_owned(),
            "the time is over: reset".to_owned(),
        ],
    }
}

fn has_words(context: &Context) -> bool {
    !context.wire().is_empty()
}

fn told(propagated: bool, known: bool) -> String {
    match (propagated, known) {
        (true, _) => "propagate",
        (false, true) => "strip",
        (false, false) => "none",
    }
    .to_owned()
}

fn sure(address: SocketAddr) -> Candidate {
    Candidate { address: address.to_string(), share: 1.0, passed_over: false }
}

fn reason_of(decision: &KernelDecision) -> connect::Reason {
    match decision {
        KernelDecision::Pass(reason)
        | KernelDecision::Refuse(reason)
        | KernelDecision::Relay { reason, .. }
        | KernelDecision::Direct { reason, .. } => *reason,
    }
}

fn path_of(decision: &KernelDecision) -> &'static str {
    match decision {
        KernelDecision::Pass(_) => "passthrough",
        KernelDecision::Refuse(_) => "refused",
        KernelDecision::Relay { .. } => "relay",
        KernelDecision::Direct { .. } => "direct",
    }
}

/// The group of endpoints that a decision drew from.
fn group_of(probe: &Probe<'_>, variant: bool) -> RouteKey {
    let environment = probe.workload.map_or(BASE, |workload| workload.environment);
    RouteKey::new(if variant { environment } else { BASE }, probe.service_address(), 0)
}

fn destination(table: &RouteTable, to: &str) -> Result<SocketAddr, ApiError> {
    if let Ok(address) = to.parse() {
        return Ok(address);
    }
    let service = table.services().iter().find(|service| service.name == to);
    let address = service.and_then(|service| service.addresses.first().copied());
    address.ok_or_else(|| {
        ApiError::Unknown(format!("{to:?} is neither an address with a port nor the name of a service"))
    })
}

fn workload(state: &State, name: &str) -> Result<std::sync::Arc<ManagedWorkload>, ApiError> {
    let all = state.registry.managed();
    let name = name.trim_matches('/');
    let ways: [&dyn Fn(&str) -> bool; 3] =
        [&|it| it == name, &|it| it.ends_with(name), &|it| it.contains(name)];
    for way in ways {
        let mut fitting = all.iter().filter(|workload| way(&workload.name));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => return Ok(std::sync::Arc::clone(one)),
            (Some(one), Some(other)) => {
                return Err(ApiError::Asked(format!(
                    "{name:?} may be {} or {}; say more of the name",
                    one.name, other.name
                )));
            }
            (None, _) => {}
        }
    }
    let pending = state.registry.pending().into_iter().find(|pending| pending.name.contains(name));
    Err(ApiError::Unknown(match pending {
        Some(pending) => format!("workload {} is not managed yet: {}", pending.name, pending.why),
        None => {
            format!("no workload is called {name:?} (`picop workloads` lists them; `-` is a process of none)")
        }
    }))
}

#[cfg(test)]
mod tests;
