//! What there is: which kinds the server has, and where. kubectl asks this before it does anything.
//!
//! In the forms that every server since 1.16 has (lists of groups and of resources; OpenAPI v3 by group), not in the newer
//! ones that join them, which clients do without. Of OpenAPI there is what clients look for: that the server validates
//! fields itself.

use serde_json::{Value, json};

use super::kinds::Kind;

/// A kind of which the server has no object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Definition {
    /// `v1`, or `GROUP/VERSION`.
    pub api_version: String,
    /// Its name.
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

impl Definition {
    fn of(kind: Kind) -> Self {
        let (api_version, kind, _, namespaced) = kind.names();
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), namespaced }
    }

    /// As the API names its objects: lower case, and many.
    fn plural(&self) -> String {
        let one = self.kind.to_lowercase();
        match one.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None if one.ends_with('s') => format!("{one}es"),
            None => format!("{one}s"),
        }
    }

    fn resource(&self) -> Value {
        json!({
            "name": self.plural(), "singularName": self.kind.to_lowercase(), "namespaced": self.namespaced,
            "kind": self.kind, "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        })
    }

    /// What says that the server refuses unknown fields, when it is asked to.
    fn validates(&self) -> (String, Value) {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        let patch = json!({
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": self.kind},
            "parameters": [{"name": "fieldValidation", "in": "query"}], "responses": {},
        });
        (format!("/{}/{}/{{name}}", path(&self.api_version), self.plural()), json!({ "patch": patch }))
    }
}

/// Where the kinds of a group and version are.
fn path(api_version: &str) -> String {
    if api_version.contains('/') { format!("apis/{api_version}") } else { format!("api/{api_version}") }
}

/// The answer to a question of what there is; none if it is none, or of what is not there.
pub(super) fn answer(path_asked: &str, more: &[Definition]) -> Option<Value> {
    let all = || Kind::ALL.into_iter().map(Definition::of).chain(more.iter().cloned());
    let mut versions: Vec<_> = all().map(|it| it.api_version).collect();
    versions.sort();
    versions.dedup();
    let asked = path_asked.trim_matches('/');
    match asked {
        "api" => return Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "apis" => {
            let groups = versions.iter().filter_map(|it| {
                it.split_once('/').map(|(group, version)| {
                    let served = json!({"groupVersion": it, "version": version});
                    json!({"name": group, "versions": [served.clone()], "preferredVersion": served})
                })
            });
            return Some(
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()}),
            );
        }
        "openapi/v3" => {
            let paths = versions
                .iter()
                .map(|it| (path(it), json!({"serverRelativeURL": format!("/openapi/v3/{}", path(it))})));
            return Some(json!({"paths": paths.collect::<serde_json::Map<_, _>>()}));
        }
        _ => {}
    }
    let (place, schema) = match asked.strip_prefix("openapi/v3/") {
        Some(place) => (place, true),
        None => (asked, false),
    };
    let version = versions.into_iter().find(|it| path(it) == place)?;
    let here: Vec<_> = all().filter(|it| it.api_version == version).collect();
    Some(if schema {
        let paths: serde_json::Map<_, _> = here.iter().map(Definition::validates).collect();
        json!({"openapi": "3.0.0", "info": {"title": "double", "version": "1"}, "paths": paths})
    } else {
        let resources: Vec<_> = here.iter().map(Definition::resource).collect();
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
    })
}
