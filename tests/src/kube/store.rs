//! The objects and their history.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::kinds::Kind;
use super::path::Selector;

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
