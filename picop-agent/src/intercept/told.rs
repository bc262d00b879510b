//! Connections that the kernel decided by itself, for those who ask for them: `--log-direct`, `picop trace`. Telling costs
//! such a connection about as much again as deciding it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use picop_common::{
    connect::Reason,
    maps::{TOLD_DIRECT, TOLD_INJECT, TOLD_PASSED, TOLD_REFUSED, Told},
    route::{environment_key, environment_tag},
};

use super::{canary, workloads::Registry};
use crate::{
    route::{RouteHandle, RouteTable},
    telemetry::{access, events::Event, hub::Hub, spans::Connection},
};

/// How often it is looked at. The hooks wake nobody, which would cost them more than the entry.
const INTERVAL: Duration = Duration::from_millis(50);

/// Whoever reads them.
pub struct Reader {
    /// Names of workloads.
    pub registry: Registry,
    /// Names of services and environments.
    pub routes: RouteHandle,
    /// Whom to tell.
    pub hub: Hub,
    /// Whether each has a line in the log.
    pub log: bool,
    /// Of how many to make a span.
    pub sampled: f64,
}

impl Reader {
    /// Reads until dropped.
    pub async fn run(self, mut ring: RingBuf<MapData>) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut names = Names::default();
        loop {
            tick.tick().await;
            let table = self.routes.load();
            // Told of all, it draws itself; told of some, these are the ones.
            let all = self.log || self.hub.events().is_heard();
            while let Some(entry) = ring.next() {
                // The canary's connections are nobody's.
                if let Some(told) = Told::from_bytes(&entry)
                    && SocketAddr::from(told.original) != canary::DIRECT
                {
                    let span = !all || is_drawn(&told, self.sampled);
                    self.pass_on(&told, &table, names.of(&table, told.environment), span);
                }
            }
        }
    }

    fn pass_on(&self, told: &Told, table: &RouteTable, environment: Option<&str>, span: bool) {
        let original = told.original.into();
        let workload = self.registry.name(told.workload);
        let line = access::Direct {
            workload: workload.as_deref().unwrap_or("(gone)"),
            service: table.service_meant(&original).map(|s| s.name.as_str()),
            original,
            environment,
            reason: Reason::of(told.reason).map_or("unknown", Reason::as_str),
            backend: match told.verdict {
                TOLD_REFUSED => None,
                TOLD_PASSED => Some(original),
                _ => Some(told.target.into()),
            },
            injected: told.verdict == TOLD_INJECT,
            refused: told.verdict == TOLD_REFUSED,
        };
        if self.log {
            access::direct(&line);
        }
        if span && let Some(spans) = self.hub.spans().filter(|_| self.sampled > 0.0) {
            spans.tell(&Connection {
                parent: None,
                began: SystemTime::now(),
                lasted: Duration::ZERO,
                happened: Vec::new(),
                workload: line.workload,
                service: line.service,
                environment: line.environment,
                env_source: line.env_source(),
                original: Some(line.original),
                backend: line.backend,
                path: path(told.verdict),
                reason: Some(line.reason),
                header: line.header(),
                bytes: None,
                outcome: line.refused.then_some("refused"),
                error: None,
                is_first: spans.used(line.environment),
            });
        }
        self.hub.events().tell(|| Event {
            at_us: Event::now(),
            what: "routed".to_owned(),
            path: path(told.verdict).to_owned(),
            workload: line.workload.to_owned(),
            service: line.service.map(ToOwned::to_owned),
            environment: line.environment.map(ToOwned::to_owned),
            env_source: line.env_source().to_owned(),
            original: Some(line.original.to_string()),
            backend: line.backend.map(|backend| backend.to_string()),
            reason: Some(line.reason.to_owned()),
            header: line.header().to_owned(),
            ..Event::default()
        });
    }
}

/// Whether a connection is among so many of all, by chance.
fn is_drawn(told: &Told, share: f64) -> bool {
    use std::hash::{BuildHasher as _, RandomState};
    let drawn = RandomState::new().hash_one((told.workload, told.reason)) >> 32;
    f64::from(u32::try_from(drawn).unwrap_or(u32::MAX)) < share * f64::from(u32::MAX)
}

/// The data path of a verdict `TOLD_*`.
pub fn path(verdict: u32) -> &'static str {
    match verdict {
        TOLD_PASSED => "passthrough",
        TOLD_DIRECT | TOLD_INJECT => "direct",
        TOLD_REFUSED => "refused",
        _ => "unknown",
    }
}

/// Environments by their keys and services by their addresses, of this table and of earlier ones: a connection may be told of
/// after its environment is gone.
#[derive(Debug, Default)]
pub struct Names {
    version: Option<u64>,
    environments: HashMap<u64, Arc<str>>,
    tags: HashMap<u32, Arc<str>>,
    services: HashMap<SocketAddr, Arc<str>>,
}

impl Names {
    /// The name of an environment.
    pub fn of(&mut self, table: &RouteTable, key: u64) -> Option<&str> {
        self.learn(table);
        self.environments.get(&key).map(AsRef::as_ref)
    }

    /// The same by its tag, for counting: no environment is an empty name, and one that was never known here is its tag.
    pub fn environment(&mut self, table: &RouteTable, tag: u32) -> Arc<str> {
        self.learn(table);
        match (tag, self.tags.get(&tag)) {
            (0, _) => "".into(),
            (_, Some(name)) => Arc::clone(name),
            (_, None) => format!("{tag:08x}").into(),
        }
    }

    /// The name of the service at an address, or of the one that another program has translated to it, for counting. An
    /// address that none has had is its own name.
    pub fn service(&mut self, table: &RouteTable, address: SocketAddr) -> Arc<str> {
        self.learn(table);
        if let Some(name) = self.services.get(&address) {
            return Arc::clone(name);
        }
        let Some(meant) = table.service_meant(&address) else { return address.to_string().into() };
        let name: Arc<str> = meant.name.as_str().into();
        self.services.insert(address, Arc::clone(&name));
        name
    }

    fn learn(&mut self, table: &RouteTable) {
        if self.version == Some(table.version()) {
            return;
        }
        self.version = Some(table.version());
        for environment in table.environments() {
            let (key, name) =
                (environment_key(environment.as_str().as_bytes()), Arc::from(environment.as_str()));
            self.tags.insert(environment_tag(key), Arc::clone(&name));
            self.environments.insert(key, name);
        }
        for service in table.services() {
            let name: Arc<str> = service.name.as_str().into();
            self.services.extend(service.addresses.iter().map(|address| (*address, Arc::clone(&name))));
        }
    }
}
