//! Which environments this node's connections belong to, and when last: by what is counted, looked at now and then.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use picop_common::route::{environment_key, environment_tag};
use tokio::sync::watch;

use crate::{
    intercept::maps::{Maps, MapsError},
    route::RouteHandle,
    source::kubernetes::used::Used,
    telemetry::hub::Hub,
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(10);

/// Looks as long as somebody wants to know.
pub async fn note(maps: Arc<Maps>, routes: RouteHandle, hub: Hub, used: watch::Sender<Used>) {
    let mut tick = tokio::time::interval(LOOK);
    let mut before = None;
    while !used.is_closed() {
        tick.tick().await;
        let now = match count(&maps, &routes, &hub) {
            Ok(now) => now,
            Err(error) => {
                let error = crate::telemetry::chain(&error);
                tracing::warn!(error, "what environments are used cannot be read");
                continue;
            }
        };
        // What was counted before the first look may be of an agent before this one.
        if let Some(before) = before.replace(now.clone()) {
            let at = SystemTime::now();
            let more: Vec<_> = more(&before, &now).map(|name| (name.to_owned(), at)).collect();
            if !more.is_empty() {
                used.send_modify(|used| used.extend(more));
            }
        }
    }
}

type Counts = BTreeMap<String, u64>;

/// Those of which there are more than before.
fn more<'a>(before: &'a Counts, now: &'a Counts) -> impl Iterator<Item = &'a str> {
    let grown = now.iter().filter(|(name, count)| **count > before.get(*name).copied().unwrap_or(0));
    grown.map(|(name, _)| &**name)
}

/// Connections by environment: what the kernel decided, and what was relayed.
fn count(maps: &Maps, routes: &RouteHandle, hub: &Hub) -> Result<Counts, MapsError> {
    let mut counts = Counts::new();
    let names: BTreeMap<_, _> = routes
        .load()
        .environments()
        .map(|name| (environment_tag(environment_key(name.as_str().as_bytes())), name.to_string()))
        .collect();
    for (key, usage) in maps.usage()? {
        if let Some(name) = names.get(&key.environment) {
            *counts.entry(name.clone()).or_default() += usage.opened;
        }
    }
    for (name, count) in hub.metrics().opened_by_environment() {
        *counts.entry(name.to_string()).or_default() += count;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_was_used() {
        let counts = |all: &[(&str, u64)]| all.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let before: Counts = counts(&[("same", 3), ("more", 3), ("forgotten", 9)]);
        let now: Counts = counts(&[("same", 3), ("more", 4), ("forgotten", 1), ("new", 1)]);
        assert_eq!(more(&before, &now).collect::<Vec<_>>(), ["more", "new"]);
    }
}
