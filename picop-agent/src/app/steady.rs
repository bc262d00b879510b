//! What goes on as long as the agent runs: the kernel is kept in step with cgroups and routes.

use std::sync::Arc;

use anyhow::Result;
use picop_common::route::{Route, RouteKey};

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

/// Puts a table in effect in the kernel, and returns how many entries it has there.
pub fn sync_routes(maps: &Maps, table: &RouteTable, fixed: &[(RouteKey, Route)]) -> Result<usize> {
    maps::check_routes(table::count(table)? + fixed.len())?;
    let mut entries = table::entries(table)?;
    entries.extend_from_slice(fixed);
    maps.switch_routes(&entries)?;
    Ok(entries.len())
}
