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
    /// The environment that a host names, its port apart.
    pub fn environment(&self, host: Host<'_>) -> Option<EnvId> {
        let name = host.without_port();
        let name = if host.has(UPPER) { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
        // A name may end in the root's dot.
        let name = name.strip_suffix(b".").unwrap_or(&name);
        let name = name.strip_prefix(self.before.as_bytes())?.strip_suffix(self.after.as_bytes())?;
        if name.contains(&b'.') {
            return None;
        }
        EnvId::from_bytes(name).ok()
    }
}

/// What a request names as its host, a `Host` or `:authority`: made of nothing but what names and addresses are made of, and ports.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    bytes: &'a [u8],
    /// Of which classes it has bytes.
    classes: u8,
}

/// Of bytes, a bit each: it is in no host, it is a capital, it is a colon.
const STRANGE: u8 = 1;
const UPPER: u8 = 2;
const COLON: u8 = 4;

/// One look tells all that is to be known of a byte (RFC 3986, 3.2.2).
const CLASSES: [u8; 256] = {
    let mut classes = [STRANGE; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            classes[byte as usize] = if byte.is_ascii_uppercase() { UPPER } else { 0 };
        }
        byte += 1;
    }
    let marks = b"-._~%!$&'()*+,;=[]";
    let mut at = 0;
    while at < marks.len() {
        classes[marks[at] as usize] = 0;
        at += 1;
    }
    classes[b':' as usize] = COLON;
    classes
};

impl<'a> Host<'a> {
    /// None if it has what no host has.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let classes = bytes.iter().fold(0, |classes, byte| classes | CLASSES[usize::from(*byte)]);
        (classes & STRANGE == 0).then_some(Self { bytes, classes })
    }

    fn has(self, class: u8) -> bool {
        self.classes & class != 0
    }

    fn without_port(self) -> &'a [u8] {
        if !self.has(COLON) {
            return self.bytes;
        }
        match self.bytes.iter().rposition(|byte| *byte == b':') {
            Some(at) if self.bytes[at + 1..].iter().all(u8::is_ascii_digit) => &self.bytes[..at],
            _ => self.bytes,
        }
    }
}

#[cfg(test)]
mod tests;
