//! Which environment a request is for.

use hyper::{
    HeaderMap,
    header::{COOKIE, HeaderName, HeaderValue},
};

use super::hosts::{Host, HostPattern};
use crate::protocol::{EnvId, baggage};

const BAGGAGE: &str = "baggage";

/// Where an environment is looked for, in this order: host, header, cookie, default.
#[derive(Clone, Debug)]
pub struct Finder {
    /// Hosts that name one.
    pub hosts: Vec<HostPattern>,
    /// The header that does.
    pub header: HeaderName,
    /// The cookie that does.
    pub cookie: Option<String>,
    /// That of requests that name none.
    pub default: Option<EnvId>,
}

/// Where an environment was found, as access lines say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host.
    Host,
    /// The header.
    Header,
    /// The cookie.
    Cookie,
    /// The request names none, and the gateway has one for those.
    Default,
    /// Nowhere.
    None,
}

impl Source {
    /// The name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Default => "gateway",
            Self::None => "none",
        }
    }
}

impl Finder {
    /// The environment of a request to `host` with these headers. What stands in a place and is no name counts as not there.
    pub fn find(&self, host: Option<Host<'_>>, headers: &HeaderMap) -> (Option<EnvId>, Source) {
        let of_host = |host| self.hosts.iter().find_map(|pattern| pattern.environment(host));
        if let Some(env) = host.and_then(of_host) {
            return (Some(env), Source::Host);
        }
        if let Some(env) = self.in_header(headers) {
            return (Some(env), Source::Header);
        }
        if let Some(env) = self.cookie.as_deref().and_then(|name| in_cookie(name, headers)) {
            return (Some(env), Source::Cookie);
        }
        match &self.default {
            Some(env) => (Some(env.clone()), Source::Default),
            None => (None, Source::None),
        }
    }

    fn in_header(&self, headers: &HeaderMap) -> Option<EnvId> {
        let mut values = headers.get_all(&self.header).iter().map(HeaderValue::as_bytes);
        if self.header == BAGGAGE {
            return EnvId::from_bytes(&baggage::environment(values)?).ok();
        }
        values.find_map(|value| EnvId::from_bytes(value.trim_ascii()).ok())
    }
}

fn in_cookie(name: &str, headers: &HeaderMap) -> Option<EnvId> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let mut pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let value = pair[equals + 1..].trim_ascii();
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        let is_it = pair[..equals].trim_ascii() == name.as_bytes();
        is_it.then(|| EnvId::from_bytes(unquoted).ok())?
    })
}

#[cfg(test)]
mod tests;
