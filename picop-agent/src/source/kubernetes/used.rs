//! When environments were last used: each agent writes it of those that its node's connections belong to.
//!
//! All agents see what is written, so an environment that many nodes use is written about once in [`PACE`] by one of them.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use super::{crd::Environment, follow::chance, objects::Seconds, status::Wanted};
use crate::telemetry::chain;

/// Environments that connections of this node belonged to, by name, and when last.
pub type Used = BTreeMap<String, SystemTime>;

/// How old what is written may be. A status is for people who wonder whether an environment may go.
pub const PACE: Duration = Duration::from_secs(60);

/// Agents do not all write at once.
const SPREAD: Duration = Duration::from_secs(10);

/// Of what this node used, what is to be written, given what is written.
pub fn due(used: &Used, written: &BTreeMap<String, Option<Seconds>>) -> BTreeMap<String, Seconds> {
    let pace = Seconds::try_from(PACE.as_secs()).unwrap_or(Seconds::MAX);
    let seconds = |at: &SystemTime| {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
    };
    used.iter()
        .map(|(name, at)| (name, seconds(at)))
        .filter(|(name, at)| {
            // Environments without an object of their own have no status.
            written.get(*name).is_some_and(|last| last.is_none_or(|last| at.saturating_sub(last) >= pace))
        })
        .map(|(name, at)| (name.clone(), at))
        .collect()
}

/// Writes it, as long as there is somebody who uses or wants.
pub(super) async fn run(
    client: Client,
    mut used: watch::Receiver<Used>,
    wanted: watch::Receiver<Arc<Wanted>>,
) {
    let environments: Api<Environment> = Api::all(client);
    let mut said = None;
    while used.changed().await.is_ok() {
        if due(&used.borrow(), wanted.borrow().last_used()).is_empty() {
            continue;
        }
        sleep(chance(SPREAD)).await;
        // Somebody else may have written meanwhile.
        let now = due(&used.borrow_and_update(), wanted.borrow().last_used());
        let mut failed = None;
        for (name, at) in now {
            let Ok(at) = Timestamp::from_second(at) else { continue };
            let patch = Patch::Merge(json!({"status": {"lastUsed": Time(at)}}));
            match environments.patch_status(&name, &PatchParams::default(), &patch).await {
                // It is gone.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => failed = Some(chain(&error)),
                Ok(_) => {}
            }
        }
        if let Some(error) = &failed
            && said.as_ref() != Some(error)
        {
            tracing::warn!(error, "when environments were last used cannot be written; trying again");
        }
        said = failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fresh_or_has_no_object_is_not_written() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let used =
            ["new", "fresh", "old", "none"].into_iter().map(|name| (name.to_owned(), at(1000))).collect();
        let written = [("new", None), ("fresh", Some(950)), ("old", Some(940)), ("unused", None)];
        let written = written.map(|(name, last)| (name.to_owned(), last)).into();
        let due: Vec<_> = due(&used, &written).into_iter().collect();
        assert_eq!(due, [("new".to_owned(), 1000), ("old".to_owned(), 1000)]);
    }
}
