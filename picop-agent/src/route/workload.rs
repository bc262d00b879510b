//! Which cgroups are managed, and what is known of them.
use std::{fmt, path::PathBuf, sync::Arc};

use glob::{MatchOptions, Pattern};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod::PodUid;
use crate::protocol::{Context, EnvId};

/// Whether a workload's own connections say which environment they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContextSource {
    /// They do not: the workload's own environment, if any, is theirs.
    #[default]
    None,
    /// The application is instrumented: it may start a connection with a PiCoP header, which goes before the workload's own
    /// environment.
    Header,
}

/// How a workload's connections to services travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathChoice {
    /// As directly as each allows.
    #[default]
    Auto,
    /// All through the agent, which then sees their bytes and their end.
    Relay,
}

/// One entry of the list of managed workloads. The first entry that matches a cgroup describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSpec {
    /// What it is called in logs; without a name, by its cgroup.
    pub name: Option<Arc<str>>,
    /// The cgroups it is about.
    pub cgroup: Cgroups,
    /// The environment all its connections belong to.
    pub environment: Option<EnvId>,
    /// Whether its connections carry a context of their own.
    pub context: ContextSource,
    /// How its connections travel.
    pub path: PathChoice,
    /// The file of its network namespace; without one, that of the first process in the cgroup.
    pub netns: Option<PathBuf>,
    /// What it says by itself: its environment and its own keys, as a header. Written on its connections to services that
    /// are to be told, unless the application sends a header of its own.
    pub own: Option<Context>,
    /// Leave its connections alone, at once.
    pub bypass: bool,
    /// Most connections of it relayed at the same time; without one, the agent's own limit.
    pub max_connections: Option<u32>,
}

impl WorkloadSpec {
    /// An entry that says nothing yet of the cgroups it matches.
    pub fn new(cgroup: impl Into<Cgroups>) -> Self {
        Self {
            name: None,
            cgroup: cgroup.into(),
            environment: None,
            context: ContextSource::default(),
            path: PathChoice::default(),
            netns: None,
            own: None,
            bypass: false,
            max_connections: None,
        }
    }
}

/// Which cgroups an entry is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// Those of a path, or glob.
    At(CgroupPattern),
    /// That of a pod, wherever the kubelet has put it.
    Pod(PodCgroup),
}

/// A pod's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodCgroup {
    /// The pod.
    pub uid: PodUid,
    /// Whether it shares the node's network namespace. If not, processes of the node's namespace in its cgroup are no part
    /// of it: some runtimes put their monitor there.
    pub host_network: bool,
}

impl From<CgroupPattern> for Cgroups {
    fn from(pattern: CgroupPattern) -> Self {
        Self::At(pattern)
    }
}

impl From<PodCgroup> for Cgroups {
    fn from(pod: PodCgroup) -> Self {
        Self::Pod(pod)
    }
}

/// Cgroups, by path below the cgroup v2 mount: one path, or a glob.
///
/// `*`, `?` and `[...]` stay within one level of the tree, `**` is any number of levels. What matches is the cgroup that
/// *is* a workload; processes in cgroups below it belong to it too, unless one of those matches an entry itself.
/// A leading `/`, as `/proc/PID/cgroup` shows it, may be there or not.
#[derive(Clone, PartialEq, Eq)]
pub struct CgroupPattern {
    text: String,
    /// None for a plain path.
    glob: Option<Pattern>,
}

const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl CgroupPattern {
    /// Reads a path or glob.
    pub fn new(text: &str) -> Result<Self, CgroupPatternError> {
        if text.starts_with("/sys/fs/cgroup") {
            return Err(CgroupPatternError::Absolute);
        }
        let text = normal(text);
        if text.is_empty() {
            return Err(CgroupPatternError::Root);
        }
        if text.contains(char::is_control) {
            return Err(CgroupPatternError::Control);
        }
        if let Some(part) = text.split('/').find(|part| matches!(*part, "" | "." | "..")) {
            return Err(CgroupPatternError::Component { part: part.to_owned() });
        }
        let glob = if text.contains(['*', '?', '[']) { Some(Pattern::new(text)?) } else { None };
        Ok(Self { text: text.to_owned(), glob })
    }

    /// Whether the cgroup at `path`, relative to the cgroup v2 mount, is one of these.
    pub fn matches(&self, path: &str) -> bool {
        let path = normal(path);
        self.glob.as_ref().map_or_else(|| self.text == path, |glob| glob.matches_with(path, MATCHING))
    }

    /// The pattern, without a leading or trailing `/`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path, if it is one and not a glob.
    pub fn as_path(&self) -> Option<&str> {
        self.glob.is_none().then_some(&*self.text)
    }
}

pub(super) fn normal(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.strip_suffix('/').unwrap_or(path)
}

impl fmt::Display for CgroupPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for CgroupPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CgroupPattern({:?})", self.text)
    }
}

/// Why a text names no cgroups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupPatternError {
    /// Empty, or `/`.
    #[error(
        "the root cgroup cannot be a workload; name the cgroup of a pod, or a glob such as kubepods.slice/*/pod*"
    )]
    Root,
    /// It includes the mount point.
    #[error("the path is relative to the cgroup v2 mount; leave /sys/fs/cgroup/ out")]
    Absolute,
    /// A part of the path that no cgroup has.
    #[error("{part:?} between two slashes is no cgroup's name; write the path from the cgroup v2 mount down")]
    Component {
        /// The first such part.
        part: String,
    },
    /// A line end or the like.
    #[error("it contains a control character; remove it")]
    Control,
    /// Glob syntax.
    #[error("not a glob (at its character {}): {}; a literal [, * or ? is written [[], [*] or [?]", .0.pos + 1, .0.msg)]
    Glob(#[source] GlobError),
}

/// What the glob's syntax breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct GlobError {
    pos: usize,
    msg: &'static str,
}

impl From<glob::PatternError> for CgroupPatternError {
    fn from(error: glob::PatternError) -> Self {
        Self::Glob(GlobError { pos: error.pos, msg: error.msg })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let matches = |pattern: &str, path: &str| CgroupPattern::new(pattern).unwrap().matches(path);
        for (pattern, path, expected) in [
            ("kubepods.slice/pod1", "kubepods.slice/pod1", true),
            ("/kubepods.slice/pod1/", "kubepods.slice/pod1", true),
            ("kubepods.slice/pod1", "/kubepods.slice/pod1/", true),
            ("kubepods.slice/pod1", "kubepods.slice/pod1/container", false),
            ("kubepods.slice/pod1", "kubepods.slice", false),
            ("kubepods.slice/*/pod*", "kubepods.slice/burstable/pod7", true),
            ("kubepods.slice/*/pod*", "kubepods.slice/burstable/pod7/container", false),
            ("kubepods.slice/*/pod*", "kubepods.slice/pod7", false),
            ("kubepods.slice/**/pod*", "kubepods.slice/a/b/pod7", true),
            ("kubepods.slice/**/pod*", "kubepods.slice/pod7", true),
            ("user-?", "user-1", true),
            ("user-[0-4]", "user-5", false),
            // As systemd escapes a dash: a backslash is a letter like any other.
            (r"a-b\x2dc.slice/*", r"a-b\x2dc.slice/pod", true),
            ("Pod", "pod", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn no_patterns() {
        for bad in ["", "/", "//"] {
            assert!(CgroupPattern::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(CgroupPattern::new("/"), Err(CgroupPatternError::Root));
        assert_eq!(CgroupPattern::new("/sys/fs/cgroup/a"), Err(CgroupPatternError::Absolute));
        assert_eq!(CgroupPattern::new("a/../b"), Err(CgroupPatternError::Component { part: "..".into() }));
        assert_eq!(CgroupPattern::new("a\nb"), Err(CgroupPatternError::Control));
        for glob in ["a[", "a***", "a**b"] {
            assert!(matches!(CgroupPattern::new(glob), Err(CgroupPatternError::Glob(_))), "{glob}");
        }
    }
}
