//! The statuses of picop's own kinds: what they should be, and who writes them.
//!
//! Every agent sees the same objects, so any of them can write, and one does: the holder of the Lease [`LEASE`]. It is asked for
//! only while something is unwritten, so a cluster at rest costs nothing; whoever does not hold it waits first, and finds in
//! most cases that it is written. An object is written at most once in [`PACE`], and only if something in its status is
//! different. Problems are told as [Events](events) by the same one. Merge patches of the holder's cannot conflict; two holders (a clock that stood still) would write the same.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease as LeaseObject, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Built,
    crd::{Environment, EnvironmentStatus, OnExpiry, ServicePolicy, ServicePolicyStatus, VariantStatus},
    events::{self, Told},
    follow::chance,
    objects::{Name, Objects, Seconds},
    problem::Problem,
};
use crate::{protocol::EnvId, telemetry::chain};

/// The Lease's name.
pub const LEASE: &str = "picop-status";

/// How often the holder writes.
const PACE: Duration = Duration::from_secs(2);

/// How long others leave it to the holder, at least.
const LEAVE: Duration = Duration::from_secs(5);

/// How long a Lease that is not renewed holds, by the clock of whoever looks at it.
const HELD: Duration = Duration::from_secs(30);

/// Most variants that a status lists.
const LISTED: usize = 100;

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    environments: BTreeMap<Name, EnvironmentStatus>,
    policies: BTreeMap<Name, ServicePolicyStatus>,
    /// Environments that are to go, by their UIDs: not others of the same names.
    ended: BTreeMap<Name, String>,
    /// What holds and is to be told, once.
    problems: BTreeSet<Problem>,
    /// All environments that have an object, and when it says that they were last used.
    last_used: BTreeMap<String, Option<Seconds>>,
}

impl Wanted {
    /// Whether all statuses are written.
    pub fn is_empty(&self) -> bool {
        self.environments.is_empty() && self.policies.is_empty() && self.ended.is_empty()
    }

    /// Environments that have an object, and when it says that they were last used.
    pub fn last_used(&self) -> &BTreeMap<String, Option<Seconds>> {
        &self.last_used
    }
}

/// What differs from what is written already.
pub fn wanted(objects: &Objects, built: &Built, now: Seconds) -> Wanted {
    let mut wanted = Wanted { problems: built.problems.clone(), ..Wanted::default() };
    for (name, lifetime) in &objects.environments {
        let last_used = lifetime.status.last_used.as_ref().map(|time| time.0.as_second());
        wanted.last_used.insert(name.name.to_string(), last_used);
        let ended = lifetime.until.is_some_and(|until| until <= now);
        if ended && lifetime.on_expiry == OnExpiry::Delete {
            wanted.ended.insert(name.clone(), lifetime.uid.to_string());
            continue;
        }
        let variants = EnvId::new(&name.name).ok().and_then(|env| built.environments.get(&env));
        let variants = variants.map_or(&[][..], Vec::as_slice);
        let (active, reason, message) = match (ended, variants.len()) {
            (true, _) => (false, "Expired", "its time has run out; its connections go to bases".to_owned()),
            (false, 0) => (false, "NoVariants", "no Service has a variant in it".to_owned()),
            (false, count) => (true, "Routed", format!("{count} Services have a variant in it")),
        };
        let status = EnvironmentStatus {
            conditions: conditions("Active", active, reason, message, &lifetime.status.conditions, now),
            variant_count: u32::try_from(variants.len()).unwrap_or(u32::MAX),
            variants: variants.iter().take(LISTED).map(described).collect(),
            expires_at: lifetime.until.and_then(time),
            last_used: lifetime.status.last_used.clone(),
        };
        if status != *lifetime.status {
            wanted.environments.insert(name.clone(), status);
        }
    }
    for (name, policy) in &objects.policies {
        let problems: Vec<&Problem> =
            built.problems.iter().filter(|it| it.kind == "ServicePolicy" && it.object == *name).collect();
        let reason = problems.first().map_or("Accepted", |first| first.reason.as_str());
        let messages: Vec<_> = problems.iter().map(|it| &*it.message).collect();
        let old = &policy.status.conditions;
        let conditions = conditions("Accepted", problems.is_empty(), reason, messages.join("; "), old, now);
        let status = ServicePolicyStatus { conditions };
        if status != *policy.status {
            wanted.policies.insert(name.clone(), status);
        }
    }
    wanted
}

fn described(variant: &super::Variant) -> VariantStatus {
    VariantStatus {
        service: variant.service.to_string(),
        variant: variant.variant.to_string(),
        since: time(variant.since),
        ready: u32::try_from(variant.ready).unwrap_or(u32::MAX),
    }
}

/// The one condition; its time is the old one's as long as it says the same.
fn conditions(
    kind: &str,
    holds: bool,
    reason: &str,
    message: String,
    old: &[Condition],
    now: Seconds,
) -> Vec<Condition> {
    let status = if holds { "True" } else { "False" };
    let old = old.iter().find(|it| it.type_ == kind && it.status == status);
    let since = old.map(|it| it.last_transition_time.clone()).or_else(|| time(now));
    vec![Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        observed_generation: None,
    }]
}

fn time(seconds: Seconds) -> Option<Time> {
    Timestamp::from_second(seconds).ok().map(Time)
}

/// Writes what is wanted, as long as there is somebody who wants. `namespace` is where the Lease is, `me` who holds it.
pub(super) async fn run(
    client: Client,
    namespace: String,
    me: String,
    mut wanted: watch::Receiver<Arc<Wanted>>,
) {
    let api = Api::namespaced(client.clone(), &namespace);
    let mut writer =
        Writer { client, lease: Lease { api, me, seen: None, held: false }, told: Told::default() };
    let mut said = None;
    loop {
        {
            let due = wanted.wait_for(|wanted| writer.has_work(wanted));
            // What was told is due again some day, though nothing changes.
            let again = writer.told.next().unwrap_or_else(|| Instant::now() + events::AGAIN);
            if matches!(timeout_at(again, due).await, Ok(Err(_))) {
                return;
            }
        }
        // A server that refuses is not asked at the holder's pace.
        sleep(if writer.lease.held && said.is_none() { PACE } else { LEAVE + chance(LEAVE * 2) }).await;
        let now = Arc::clone(&wanted.borrow_and_update());
        let error = writer.write(&now).await.err().map(|error| chain(&error));
        if let Some(error) = &error
            && said.as_ref() != Some(error)
        {
            tracing::warn!(error, "statuses cannot be written; trying again");
        }
        said = error;
    }
}

struct Writer {
    client: Client,
    lease: Lease,
    told: Told,
}

impl Writer {
    fn has_work(&self, wanted: &Wanted) -> bool {
        !wanted.is_empty() || !self.told.due(&wanted.problems).is_empty()
    }

    async fn write(&mut self, wanted: &Wanted) -> Result<(), kube::Error> {
        self.told.keep(&wanted.problems);
        let (own, all): (Vec<_>, Vec<_>) =
            self.told.due(&wanted.problems).into_iter().partition(|it| events::is_own(it));
        let shared =
            if wanted.is_empty() && all.is_empty() { Ok(()) } else { self.shared(wanted, &all).await };
        // One must not keep the other from being written: an agent may have been allowed to write statuses alone.
        shared.and(self.tell(&own).await)
    }

    /// What any agent can write.
    async fn shared(&mut self, wanted: &Wanted, problems: &[&Problem]) -> Result<(), kube::Error> {
        match self.lease.hold().await? {
            Held::Mine => {
                self.statuses(wanted).await?;
                self.tell(problems).await
            }
            // Whoever has renewed it since these were seen here tells them. (An Event is worth no more than that.)
            Held::Others { renewed } => {
                if renewed {
                    self.told.told(problems.iter().copied());
                }
                Ok(())
            }
        }
    }

    async fn tell(&mut self, problems: &[&Problem]) -> Result<(), kube::Error> {
        let mut result = Ok(());
        for problem in problems {
            // One that the server does not take must not keep the others from being told.
            match events::tell(&self.client, &self.lease.me, problem).await {
                Ok(()) => self.told.told([*problem]),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    async fn statuses(&self, wanted: &Wanted) -> Result<(), kube::Error> {
        let params = PatchParams::default();
        let environments: Api<Environment> = Api::all(self.client.clone());
        for (name, status) in &wanted.environments {
            // Whoever uses it writes when.
            let status = EnvironmentStatus { last_used: None, ..status.clone() };
            let patch = Patch::Merge(json!({"status": status}));
            gone_is_fine(environments.patch_status(&name.name, &params, &patch).await)?;
        }
        for (name, status) in &wanted.policies {
            let policies: Api<ServicePolicy> = Api::namespaced(self.client.clone(), &name.namespace);
            let patch = Patch::Merge(json!({"status": status}));
            gone_is_fine(policies.patch_status(&name.name, &params, &patch).await)?;
        }
        for (name, uid) in &wanted.ended {
            let only = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let params = DeleteParams::default().preconditions(only);
            gone_is_fine(environments.delete(&name.name, &params).await)?;
            tracing::info!(environment = %name, "an environment whose time has run out is deleted");
        }
        Ok(())
    }
}

/// An object that is gone needs nothing; one of another UID is another one.
fn gone_is_fine<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}

/// Who writes.
struct Lease {
    api: Api<LeaseObject>,
    me: String,
    /// The version that was last seen, and since when: other clocks are not trusted.
    seen: Option<(String, Instant)>,
    held: bool,
}

/// Who has the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// This agent.
    Mine,
    /// Another one. Whether it has been renewed between two looks at it.
    Others { renewed: bool },
}

impl Lease {
    /// Renews it, or takes it, if nobody has it any more.
    async fn hold(&mut self) -> Result<Held, kube::Error> {
        let before = self.seen.as_ref().map(|(version, _)| version.clone());
        self.held = match self.api.get_opt(LEASE).await? {
            None => {
                won(self.api.create(&PostParams::default(), &self.renewed(LeaseObject::default())).await)?
            }
            Some(lease) if self.may_take(&lease) => {
                won(self.api.replace(LEASE, &PostParams::default(), &self.renewed(lease)).await)?
            }
            Some(_) => false,
        };
        if self.held {
            return Ok(Held::Mine);
        }
        let now = self.seen.as_ref().map(|(version, _)| version);
        Ok(Held::Others { renewed: before.is_some_and(|before| Some(&before) != now) })
    }

    fn may_take(&mut self, lease: &LeaseObject) -> bool {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == self.me {
            return true;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= HELD,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    /// With its version: whoever writes on top of another version loses.
    fn renewed(&self, old: LeaseObject) -> LeaseObject {
        let spec = old.spec.unwrap_or_default();
        let other = spec.holder_identity.as_ref() != Some(&self.me);
        let now = MicroTime(Timestamp::now());
        LeaseObject {
            metadata: ObjectMeta {
                name: Some(LEASE.to_owned()),
                resource_version: old.metadata.resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(HELD.as_secs()).ok(),
                lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(other)),
                acquire_time: if other { Some(now.clone()) } else { spec.acquire_time },
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Somebody else may have been first.
fn won<T>(result: Result<T, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
