//! Logs the connections the kernel decided by itself, for those who ask for it (`--log-direct`): it costs such a connection
//! about as much again as deciding it, and the agent a line.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use aya::maps::{MapData, RingBuf};
use picop_common::{
    connect::Reason,
    maps::{TOLD_INJECT, TOLD_PASSED, TOLD_REFUSED, Told},
    route::environment_key,
};

use super::{canary, workloads::Registry};
use crate::{
    route::{RouteHandle, RouteTable},
    telemetry::access,
};

/// How often it is looked at. The hooks wake nobody, which would cost them more than the entry.
const INTERVAL: Duration = Duration::from_millis(50);

/// Reads and logs until dropped.
pub async fn run(mut ring: RingBuf<MapData>, registry: Registry, routes: RouteHandle) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut names = Names::default();
    loop {
        tick.tick().await;
        let table = routes.load();
        while let Some(entry) = ring.next() {
            // The canary's connections are nobody's.
            if let Some(told) = Told::from_bytes(&entry)
                && SocketAddr::from(told.original) != canary::DIRECT
            {
                line(&told, &registry, &table, names.of(&table, told.environment));
            }
        }
    }
}

fn line(told: &Told, registry: &Registry, table: &RouteTable, environment: Option<&str>) {
    let original = told.original.into();
    let workload = registry.name(told.workload);
    let reason = Reason::ALL.get(told.reason as usize).map_or("unknown", |r| r.as_str());
    access::direct(&access::Direct {
        workload: workload.as_deref().unwrap_or("(gone)"),
        service: table.service_at(&original).map(|s| s.name.as_str()),
        original,
        environment,
        reason,
        backend: match told.verdict {
            TOLD_REFUSED => None,
            TOLD_PASSED => Some(original),
            _ => Some(told.target.into()),
        },
        injected: told.verdict == TOLD_INJECT,
        refused: told.verdict == TOLD_REFUSED,
    });
}

/// Environments by their keys, of one table.
#[derive(Default)]
struct Names {
    version: Option<u64>,
    names: HashMap<u64, Arc<str>>,
}

impl Names {
    fn of(&mut self, table: &RouteTable, key: u64) -> Option<&str> {
        if self.version != Some(table.version()) {
            self.version = Some(table.version());
            // Those of earlier tables stay: a connection may be told of after its environment is gone.
            self.names.extend(
                table.environments().map(|e| (environment_key(e.as_str().as_bytes()), Arc::from(e.as_str()))),
            );
        }
        self.names.get(&key).map(AsRef::as_ref)
    }
}
