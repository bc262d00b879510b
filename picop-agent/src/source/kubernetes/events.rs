//! Problems as Events, so that `kubectl describe` shows them at the object that asks for what is not done.
//!
//! A problem of a Pod is known to its node's agent alone, which tells it; all others are known to all agents, and the one that
//! writes statuses tells them. An Event's name is made of what it says, so that telling twice is telling once. The server
//! forgets Events after an hour; what still holds is told again before.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, ObjectReference, Pod, Service},
        discovery::v1::EndpointSlice,
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use picop_common::route::environment_key;
use serde_json::json;
use tokio::time::Instant;

use super::{crd::ServicePolicy, problem::Problem};

/// When what holds is told again.
pub(super) const AGAIN: Duration = Duration::from_secs(30 * 60);

/// Who tells, as Events and `kubectl` name it.
const REPORTER: &str = "picop.dev/agent";
/// What picop was about to do.
const ACTION: &str = "Route";
/// Where Events of objects of the cluster are.
const OF_CLUSTER: &str = "default";
/// What the server takes, in bytes, of a note.
const NOTE_MAX: usize = 1024;
/// And what is left of an object's name in an Event's.
const NAME_MAX: usize = 220;

/// What was told, and when.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<Problem, Instant>);

impl Told {
    /// Those to be told now: of all that hold, new ones and old ones.
    pub(super) fn due<'a>(&self, problems: &'a BTreeSet<Problem>) -> Vec<&'a Problem> {
        problems.iter().filter(|it| self.0.get(it).is_none_or(|at| at.elapsed() >= AGAIN)).collect()
    }

    /// Forgets what does not hold any more: if it comes back, it is told again.
    pub(super) fn keep(&mut self, problems: &BTreeSet<Problem>) {
        self.0.retain(|problem, _| problems.contains(problem));
    }

    /// These are told, by whomever.
    pub(super) fn told<'a>(&mut self, problems: impl IntoIterator<Item = &'a Problem>) {
        self.0.extend(problems.into_iter().map(|problem| (problem.clone(), Instant::now())));
    }

    /// When the first of them is due again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().map(|at| *at + AGAIN)
    }
}

/// Whether the agents of other nodes do not know of it.
pub(super) fn is_own(problem: &Problem) -> bool {
    problem.kind == "Pod"
}

/// Tells it. `me` is the node.
///
/// # Errors
///
/// The server does not take it.
pub(super) async fn tell(client: &Client, me: &str, problem: &Problem) -> Result<(), kube::Error> {
    let Some((resource, namespace)) = place(problem) else { return Ok(()) };
    let name = &problem.object.name;
    let objects: Api<DynamicObject> = if problem.object.namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    // `kubectl describe` goes by the UID.
    let Some(object) = objects.get_metadata_opt(name).await? else { return Ok(()) };
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let now = Timestamp::now();
    let event = event(me, problem, &resource, namespace, object.metadata.uid, now);
    let event_name = event.metadata.name.clone().unwrap_or_default();
    match events.create(&PostParams::default(), &event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        result => return result.map(drop),
    }
    // Told before, and not forgotten: it still holds.
    let series = json!({"series": {"count": 2, "lastObservedTime": MicroTime(now)}});
    match events.patch(&event_name, &PatchParams::default(), &Patch::Merge(series)).await {
        // Forgotten between the two.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

/// What kind its object is of, and where its Events are.
fn place(problem: &Problem) -> Option<(ApiResource, &str)> {
    let resource = match problem.kind {
        "Service" => ApiResource::erase::<Service>(&()),
        "Pod" => ApiResource::erase::<Pod>(&()),
        "Namespace" => ApiResource::erase::<Namespace>(&()),
        "EndpointSlice" => ApiResource::erase::<EndpointSlice>(&()),
        "ServicePolicy" => ApiResource::erase::<ServicePolicy>(&()),
        _ => return None,
    };
    let namespace = &*problem.object.namespace;
    Some((resource, if namespace.is_empty() { OF_CLUSTER } else { namespace }))
}

fn event(
    me: &str,
    problem: &Problem,
    resource: &ApiResource,
    namespace: &str,
    uid: Option<String>,
    now: Timestamp,
) -> Event {
    let hash = environment_key(problem.to_string().as_bytes());
    let name = cut(&problem.object.name, NAME_MAX);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.picop-{hash:016x}")),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        action: Some(ACTION.to_owned()),
        reason: Some(problem.reason.as_str().to_owned()),
        note: Some(cut(&problem.message, NOTE_MAX).to_owned()),
        type_: Some("Warning".to_owned()),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(cut(me, 128).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            name: Some(problem.object.name.to_string()),
            namespace: (!problem.object.namespace.is_empty()).then(|| namespace.to_owned()),
            uid,
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// The first bytes of a text, by whole characters.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::{objects::Name, problem::Reason};

    fn problem(kind: &'static str, namespace: &str, message: &str) -> Problem {
        let object = Name::new(namespace, "cart");
        Problem { kind, object, reason: Reason::BadValue, message: message.to_owned() }
    }

    #[test]
    fn an_event_is_where_its_object_is_and_named_by_what_it_says() {
        let long = "ä".repeat(600);
        let problems = [
            problem("Service", "shop", "one"),
            problem("Service", "shop", &long),
            problem("Namespace", "", "one"),
        ];
        let events: Vec<_> = problems
            .iter()
            .map(|it| {
                let (resource, namespace) = place(it).unwrap();
                event("node-1", it, &resource, namespace, Some("1-2".to_owned()), Timestamp::UNIX_EPOCH)
            })
            .collect();
        let of = |at: usize| events[at].regarding.clone().unwrap();
        assert_eq!((of(0).api_version.as_deref(), of(0).namespace.as_deref()), (Some("v1"), Some("shop")));
        assert_eq!((of(2).kind.as_deref(), of(2).namespace), (Some("Namespace"), None));
        assert_eq!(events[2].metadata.namespace.as_deref(), Some("default"));
        assert_eq!(events[1].note.as_ref().map(String::len), Some(NOTE_MAX));
        let names: BTreeSet<_> = events.iter().map(|it| it.metadata.name.clone()).collect();
        assert_eq!(names.len(), 3);
        assert!(names.iter().flatten().all(|name| name.starts_with("cart.picop-")), "{names:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_holds_is_told_once_and_again_before_it_is_forgotten() {
        let both = BTreeSet::from([problem("Service", "shop", "one"), problem("Service", "shop", "two")]);
        let one: BTreeSet<_> = both.iter().take(1).cloned().collect();
        let mut told = Told::default();
        assert_eq!(told.due(&both).len(), 2);
        told.told(&both);
        assert!(told.due(&both).is_empty());
        // One is settled, and comes back.
        told.keep(&one);
        assert_eq!(told.due(&both).len(), 1);
        tokio::time::advance(AGAIN).await;
        assert_eq!(told.due(&one).len(), 1);
        assert!(told.next().is_some_and(|at| at <= Instant::now()));
    }
}
