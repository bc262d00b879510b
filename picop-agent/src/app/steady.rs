//! What goes on as long as the agent runs: the kernel is kept in step with cgroups and routes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::Result;
use picop_common::{
    maps::{USAGE_MAX, UsageKey},
    route::{BASE, Route, RouteKey, environment_key, environment_tag},
};

use crate::{
    intercept::{
        maps::{self, Maps},
        table,
        workloads::{self, Reconciler},
    },
    route::{RouteHandle, RouteTable},
};

/// Reconciles on a timer and at each new table.
pub async fn reconcile(mut reconciler: Reconciler, routes: RouteHandle) {
    let mut changes = routes.subscribe();
    let mut tick = tokio::time::interval(workloads::RESYNC);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let table = Arc::clone(&changes.borrow_and_update());
        if let Err(error) = reconciler.round(&table).await {
            tracing::error!(
                error = crate::telemetry::chain(&error),
                "workloads cannot be brought in step; retrying"
            );
        }
        tokio::select! {
            _ = tick.tick() => {}
            Ok(()) = changes.changed() => {}
        }
    }
}

/// How often room is made among what the kernel counts by.
const ROOM: Duration = Duration::from_secs(60);

/// Keeps room for new kinds of connections among those that the kernel counts by: when there is little left, what is counted of
/// services and environments that are gone is forgotten.
pub async fn make_room(maps: Arc<Maps>, routes: RouteHandle) {
    let mut tick = tokio::time::interval(ROOM);
    loop {
        tick.tick().await;
        let forgotten = maps.usage().and_then(|all| {
            if all.len() <= USAGE_MAX / 4 * 3 {
                return Ok(0);
            }
            let table = routes.load();
            let known: HashSet<_> = table
                .environments()
                .map(|e| environment_tag(environment_key(e.as_str().as_bytes())))
                .chain([environment_tag(BASE)])
                .collect();
            let is_gone = |key: &UsageKey| {
                !known.contains(&key.environment) || table.service_meant(&key.original.into()).is_none()
            };
            let gone: Vec<_> = all.into_iter().map(|(key, _)| key).filter(is_gone).collect();
            maps.forget_usage(&gone)?;
            Ok(gone.len())
        });
        match forgotten {
            Ok(0) => {}
            Ok(kinds) => {
                tracing::info!(kinds, "what was counted of former services and environments is forgotten");
            }
            Err(error) => {
                tracing::warn!(error = crate::telemetry::chain(&error), "no room can be made for counting");
            }
        }
    }
}

/// Puts a table in effect in the kernel, and returns how many entries it has there.
pub fn sync_routes(maps: &Maps, table: &RouteTable, fixed: &[(RouteKey, Route)]) -> Result<usize> {
    maps::check_routes(table::count(table)? + fixed.len())?;
    let mut entries = table::entries(table)?;
    entries.extend_from_slice(fixed);
    maps.switch_routes(&entries)?;
    Ok(entries.len())
}
