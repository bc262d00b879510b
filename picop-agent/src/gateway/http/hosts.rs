//! Hosts that name an environment.

use std::{borrow::Cow, fmt, str::FromStr};

use crate::protocol::EnvId;

const HOLE: &str = "{env}";

/// Hosts of a form such as `{env}.preview.example.com`: what stands in the place of `{env}`, one label at the most, is the
/// environment. Case does not matter, as in all names of hosts; environments come out in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    before: String,
    after: String,
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// It has no place for an environment, or more than one.
    #[error("{text:?} must have {{env}} in it once, such as {{env}}.preview.example.com")]
    Hole {
        /// What it is.
        text: String,
    },
    /// It has what no host has.
    #[error("{text:?} is a host and no more: no scheme, port, path or space")]
    Host {
        /// What it is.
        text: String,
    },
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let hole = || HostPatternError::Hole { text: text.to_owned() };
        let (before, after) = text.split_once(HOLE).ok_or_else(hole)?;
        if after.contains(HOLE) {
            return Err(hole());
        }
        let is_of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !before.chars().chain(after.chars()).all(is_of_host) {
            return Err(HostPatternError::Host { text: text.to_owned() });
        }
        Ok(Self { before: before.to_ascii_lowercase(), after: after.to_ascii_lowercase() })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{HOLE}{}", self.before, self.after)
    }
}

impl HostPattern {
    /// The environment that a `Host` or `:authority` names, its port apart.
    pub fn environment(&self, host: &str) -> Option<EnvId> {
        let host = without_port(host);
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        // A name may end in the root's dot.
        let host = host.strip_suffix('.').unwrap_or(&host);
        let name = host.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        if name.contains('.') {
            return None;
        }
        EnvId::new(name).ok()
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests;
