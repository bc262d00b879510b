//! Names and addresses as they are stored: checked once, at the border.
use std::fmt;

use hyper::{Uri, http::uri::Authority};

/// The longest text that the tables hold, in bytes.
pub const MAX_LEN: usize = 512;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// It is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// There is nothing in it.
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// It does not fit into the tables.
    #[error("`{field}` has {len} bytes; at most {MAX_LEN} are kept")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        len: usize,
    },
    /// It is not text that the tables hold, or that a header can carry.
    #[error("`{0}` must be printable ASCII without a space at either end")]
    NotPlain(&'static str),
    /// It is no address that a proxy could connect to.
    #[error("`{field}` is {text:?}; it must be HOST:PORT, such as 10.0.0.7:80 or [fd00::7]:80")]
    NoAddress {
        /// The field.
        field: &'static str,
        /// What is there.
        text: String,
    },
    /// It is no place of an admin API.
    #[error("`endpoint` is {text:?}; it must be http://HOST:PORT, such as http://10.0.0.7:9001")]
    NoEndpoint {
        /// What is there.
        text: String,
    },
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

texts! {
    /// A proxy's name.
    ProxyId,
    /// An environment's name. Longer ones than a header can carry are stored all the same, as the reference does.
    EnvName,
    /// Where a proxy sends an environment's connections: `HOST:PORT`.
    Destination,
    /// Where a proxy's admin API is: `http://HOST:PORT`, perhaps with a path before the API's own.
    Endpoint,
}

impl ProxyId {
    /// Checks a proxy's name.
    ///
    /// # Errors
    /// When it is empty, too long or not plain ASCII.
    pub fn new(text: impl Into<String>) -> Result<Self, BadValue> {
        plain("proxy_id", text.into()).map(Self)
    }
}

impl EnvName {
    /// Checks an environment's name.
    ///
    /// # Errors
    /// When it is empty, too long or not plain ASCII.
    pub fn new(text: impl Into<String>) -> Result<Self, BadValue> {
        plain("env_id", text.into()).map(Self)
    }
}

impl Destination {
    /// Checks a destination. Its host may be a name; who resolves it is the proxy.
    ///
    /// # Errors
    /// When it is empty, too long, not plain ASCII, or not a host and a port.
    pub fn new(text: impl Into<String>) -> Result<Self, BadValue> {
        let text = plain("destination", text.into())?;
        if is_host_and_port(&text) {
            Ok(Self(text))
        } else {
            Err(BadValue::NoAddress { field: "destination", text })
        }
    }
}

impl Endpoint {
    /// Checks an admin API's place.
    ///
    /// # Errors
    /// When it is empty, too long, not plain ASCII, or not an `http` URL without a query.
    pub fn new(text: impl Into<String>) -> Result<Self, BadValue> {
        let text = plain("endpoint", text.into())?;
        let good = text.parse::<Uri>().is_ok_and(|uri| {
            let at = uri.authority();
            uri.scheme_str() == Some("http")
                && at.is_some_and(|at| !at.host().is_empty() && !at.as_str().contains('@'))
                && at.is_some_and(has_good_port)
                && uri.query().is_none()
                && !text.contains('#')
        });
        if good { Ok(Self(text)) } else { Err(BadValue::NoEndpoint { text }) }
    }
}

fn plain(field: &'static str, text: String) -> Result<String, BadValue> {
    if text.is_empty() {
        return Err(BadValue::Empty(field));
    }
    if text.len() > MAX_LEN {
        return Err(BadValue::TooLong { field, len: text.len() });
    }
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if !printable || text.starts_with(' ') || text.ends_with(' ') {
        return Err(BadValue::NotPlain(field));
    }
    Ok(text)
}

/// Whether a port, if there is one, is one.
fn has_good_port(at: &Authority) -> bool {
    // Of one that is too large, `Authority` says that there is none.
    at.as_str() == at.host() || at.port_u16().is_some_and(|port| port != 0)
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_is_good = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains([':', ' ', '/', '[', ']', '@']),
    };
    host_is_good
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests;
