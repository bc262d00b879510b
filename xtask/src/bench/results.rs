//! Results that are kept: `bench-results/` in the checkout, which git ignores.
//!
//! | where | what |
//! | --- | --- |
//! | `whole/SUITE.json` | the last whole run: what the report is made of |
//! | `quick/SUITE.json` | the last one with `--quick`: what the next one is compared with |
//! | `history/` | every result, also of runs that measured only a part |
//! | `report.md`, `*.svg` | the report |

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::machine;
use crate::workspace;

/// How much of a suite was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// All of it, shorter.
    Quick,
    /// What its options said.
    Part,
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Quick => "quick",
            Self::Part => "part",
        }
    }
}

/// A directory of results.
#[derive(Clone, Debug)]
pub struct Results(PathBuf);

impl Results {
    /// The checkout's.
    pub fn here() -> Self {
        Self(workspace::root().join("bench-results"))
    }

    /// One for tests.
    #[cfg(test)]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_path_buf())
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Keeps a suite's result, with when it was measured and on what. Returns it as it is kept.
    pub fn store(&self, extent: Extent, mut result: Value) -> Result<Value> {
        let when = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        result["when"] = json!(when);
        result["extent"] = json!(extent.name());
        result["machine"] = json!(machine::describe());
        let suite = result["suite"].as_str().context("a result that names no suite")?;
        let commit = result["commit"].as_str().unwrap_or("unknown");
        let name = format!("{}-{suite}-{}-{commit}", when.replace([':', '-'], ""), extent.name());
        let mut text = serde_json::to_string_pretty(&result)?;
        text.push('\n');
        self.write(&format!("history/{name}.json"), &text)?;
        if extent != Extent::Part {
            self.write(&format!("{}/{suite}.json", extent.name()), &text)?;
        }
        Ok(result)
    }

    /// The last result of a suite. `None` if there is none.
    pub fn last(&self, suite: &str, extent: Extent) -> Result<Option<Value>> {
        let path = self.0.join(format!("{}/{suite}.json", extent.name()));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is no result; remove it", path.display()))
    }

    /// Writes a file, whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        write(&path, text)?;
        Ok(path)
    }
}

/// Writes a file, whole or not at all.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let directory = path.parent().context("a file in no directory")?;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let staged = path.with_extension("staged");
    fs::write(&staged, text).with_context(|| format!("writing {}", staged.display()))?;
    fs::rename(&staged, path).with_context(|| format!("replacing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_of_its_extent_is_kept_and_parts_replace_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let results = Results::at(directory.path());
        assert!(results.last("connect", Extent::Quick).expect("none").is_none());
        let result =
            |n: u64| json!({ "suite": "connect", "commit": "abc", "variants": { "none": { "p50_us": n } } });
        for (extent, n) in [(Extent::Whole, 1), (Extent::Whole, 2), (Extent::Quick, 3), (Extent::Part, 4)] {
            results.store(extent, result(n)).expect("stored");
        }
        let last = |extent| results.last("connect", extent).expect("readable").expect("one");
        assert_eq!(last(Extent::Whole)["variants"]["none"]["p50_us"], 2);
        assert_eq!(last(Extent::Quick)["variants"]["none"]["p50_us"], 3);
        assert!(last(Extent::Quick)["when"].is_string() && last(Extent::Quick)["machine"].is_string());
        let history = fs::read_dir(directory.path().join("history")).expect("a directory").count();
        assert!(history >= 3, "{history}: one for each second, extent and suite");
        assert!(results.store(Extent::Whole, json!({})).is_err());
    }

    #[test]
    fn what_is_no_result_is_an_error_and_not_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let results = Results::at(directory.path());
        results.write("quick/relay.json", "{").expect("written");
        assert!(results.last("relay", Extent::Quick).is_err());
    }
}
