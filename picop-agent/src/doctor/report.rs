//! The checks together.

use std::path::PathBuf;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::check::{Check, Feature, Verdict};

/// What `picop doctor` found; with `--json`, this object.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether `picop run` can work here.
    pub can_run: bool,
    /// picop's version.
    pub version: &'static str,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// Where the programs would be attached.
    pub cgroup: Option<PathBuf>,
    /// Each feature with the gravest verdict of its checks.
    #[serde(serialize_with = "by_name")]
    pub features: Vec<(Feature, Verdict)>,
    /// Every check.
    pub checks: Vec<Check>,
}

impl Report {
    /// Sums the checks up.
    pub fn new(kernel: String, cgroup: Option<PathBuf>, checks: Vec<Check>) -> Self {
        let features = Feature::ALL.into_iter().map(|feature| (feature, gravest(feature, &checks))).collect();
        let can_run = !checks.iter().any(Check::blocks);
        Self { can_run, version: env!("CARGO_PKG_VERSION"), kernel, cgroup, features, checks }
    }
}

fn gravest(feature: Feature, checks: &[Check]) -> Verdict {
    let of_it = checks.iter().filter(|check| check.features.contains(&feature));
    of_it.map(|check| check.verdict).max().unwrap_or(Verdict::Unknown)
}

fn by_name<S: Serializer>(features: &[(Feature, Verdict)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(features.len()))?;
    for (feature, verdict) in features {
        map.serialize_entry(feature, verdict)?;
    }
    map.end()
}

#[cfg(test)]
mod tests;
