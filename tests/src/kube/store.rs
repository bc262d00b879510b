//! The objects and their history.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::kinds::Kind;
use super::path::{Named, Selector};

type Key = (Kind, String, String);

/// What happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub version: u64,
    pub kind: Kind,
    /// As it was before; none if it is new.
    pub before: Option<Value>,
    /// As it is; none if it is gone.
    pub after: Option<Value>,
}

/// Objects, versions, events.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    events: Vec<Event>,
    /// Versions before this one are forgotten.
    oldest: u64,
    /// What is left of lists that are given in pages.
    pages: HashMap<String, (u64, Vec<Value>)>,
    uids: u64,
    tokens: u64,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub version: u64,
    pub items: Vec<Value>,
    pub token: Option<String>,
}

/// What a client wanted to write was not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

fn refused(code: u16, reason: &'static str, named: &Named) -> Refused {
    let name = named.name.as_deref().unwrap_or_default();
    Refused { code, reason, message: format!("{:?} {}/{name}: {reason}", named.kind, named.namespace) }
}

/// A version is forgotten.
#[derive(Debug)]
pub(super) struct Gone;

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Value> {
        self.objects.get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(super) fn all(&self, kind: Kind) -> Vec<Value> {
        self.objects.iter().filter(|((it, ..), _)| *it == kind).map(|(_, object)| object.clone()).collect()
    }

    /// Creates or replaces an object, and returns the new version.
    pub(super) fn apply(&mut self, mut object: Value) -> Result<u64> {
        let kind = Kind::of(&object).with_context(|| format!("no known kind: {object}"))?;
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (kind, text("namespace"), text("name"));
        ensure!(!key.2.is_empty(), "an object without a name: {object}");
        ensure!(kind.names().3 != key.1.is_empty(), "{kind:?} with namespace {:?}", key.1);
        self.version += 1;
        let before = self.objects.get(&key).cloned();
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(self.version.to_string());
        for field in ["uid", "creationTimestamp"] {
            if meta[field].is_null() {
                meta[field] = match (&before, field) {
                    (Some(before), _) => before["metadata"][field].clone(),
                    (None, "uid") => {
                        self.uids += 1;
                        json!(format!("00000000-0000-4000-8000-{:012x}", self.uids))
                    }
                    (None, _) => json!("2026-01-01T00:00:00Z"),
                };
            }
        }
        self.objects.insert(key, object.clone());
        self.events.push(Event { version: self.version, kind, before, after: Some(object) });
        Ok(self.version)
    }

    pub(super) fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> Result<u64> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let mut before =
            self.objects.remove(&key).with_context(|| format!("no {kind:?} {namespace}/{name}"))?;
        self.version += 1;
        // A deleted object comes with the version of its deletion.
        before["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.events.push(Event { version: self.version, kind, before: Some(before), after: None });
        Ok(self.version)
    }

    /// A client's POST, PUT, merge PATCH or DELETE. The status of an object that has one is written by its subresource only, and
    /// nothing else by that.
    pub(super) fn write(
        &mut self,
        method: &str,
        named: &Named,
        body: Value,
    ) -> Result<(u64, Value), Refused> {
        let name = named.name.clone().or_else(|| body["metadata"]["name"].as_str().map(str::to_owned));
        let name = name.ok_or_else(|| refused(400, "BadRequest", named))?;
        let old = self.get(named.kind, &named.namespace, &name);
        let (old, mut object) = match (method, old) {
            ("POST", Some(_)) => return Err(refused(409, "AlreadyExists", named)),
            ("POST", None) => (Value::Null, body),
            (_, None) => return Err(refused(404, "NotFound", named)),
            ("DELETE", Some(old)) => {
                let uid = &body["preconditions"]["uid"];
                if !uid.is_null() && *uid != old["metadata"]["uid"] {
                    return Err(refused(409, "Conflict", named));
                }
                let version = self.delete(named.kind, &named.namespace, &name);
                return version.map(|version| (version, old)).map_err(|_| refused(404, "NotFound", named));
            }
            ("PUT", Some(old)) => {
                let version = &body["metadata"]["resourceVersion"];
                if !version.is_null() && *version != old["metadata"]["resourceVersion"] {
                    return Err(refused(409, "Conflict", named));
                }
                (old, body)
            }
            (_, Some(old)) => {
                let mut object = old.clone();
                merge(&mut object, body);
                (old, object)
            }
        };
        if named.kind.is_custom() && !old.is_null() {
            if named.subresource.as_deref() == Some("status") {
                object = Value::clone(&old).with_status(object["status"].take());
            } else {
                object = object.with_status(old["status"].clone());
            }
        }
        let (api_version, kind, ..) = named.kind.names();
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        if !named.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(named.namespace);
        }
        let version = self.apply(object).map_err(|_| refused(422, "Invalid", named))?;
        Ok((version, self.get(named.kind, &named.namespace, &name).unwrap_or_default()))
    }

    pub(super) fn compact(&mut self) {
        self.oldest = self.version;
        self.events.clear();
        self.pages.clear();
    }

    /// A list's first page, or, with a token, the next one: of the version that the first one had.
    pub(super) fn list(
        &mut self,
        kind: Kind,
        selector: &Selector,
        limit: usize,
        token: Option<&str>,
    ) -> Result<Page, Gone> {
        let (version, mut items) = match token {
            Some(token) => self.pages.remove(token).ok_or(Gone)?,
            None => (self.version, self.all(kind).into_iter().filter(|it| selector.selects(it)).collect()),
        };
        let rest = if items.len() > limit { items.split_off(limit) } else { vec![] };
        let token = (!rest.is_empty()).then(|| {
            self.tokens += 1;
            let token = format!("{version}-{}", self.tokens);
            self.pages.insert(token.clone(), (version, rest));
            token
        });
        Ok(Page { version, items, token })
    }

    /// What happened to objects of a kind after a version; the version of the last of it.
    pub(super) fn since(&self, kind: Kind, version: u64) -> Result<Vec<Event>, Gone> {
        if version < self.oldest {
            return Err(Gone);
        }
        let from = self.events.partition_point(|event| event.version <= version);
        Ok(self.events[from..].iter().filter(|event| event.kind == kind).cloned().collect())
    }
}

trait WithStatus {
    fn with_status(self, status: Value) -> Self;
}

impl WithStatus for Value {
    fn with_status(mut self, status: Value) -> Self {
        if let Some(fields) = self.as_object_mut() {
            match status {
                Self::Null => drop(fields.remove("status")),
                status => drop(fields.insert("status".to_owned(), status)),
            }
        }
        self
    }
}

/// RFC 7386.
fn merge(to: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *to = patch;
        return;
    };
    if !to.is_object() {
        *to = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            to.as_object_mut().map(|fields| fields.remove(&key));
        } else {
            merge(&mut to[&key], value);
        }
    }
}

impl Event {
    /// As one who selects sees it: an object that comes into the selection is added, one that leaves it is deleted.
    pub(super) fn seen(&self, selector: &Selector) -> Option<Value> {
        let selected = |object: &Option<Value>| object.clone().filter(|it| selector.selects(it));
        let (before, after) = (selected(&self.before), selected(&self.after));
        let (kind, mut object) = match (before, after) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", before),
        };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        Some(json!({"type": kind, "object": object}))
    }
}
