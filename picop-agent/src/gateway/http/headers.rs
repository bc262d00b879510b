//! Headers on their way through: what is of one connection only, and what the server is told of the client.

use hyper::{
    HeaderMap,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::hosts::Host;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What is for the next hop only (RFC 9110, 7.6.1), besides what `Connection` names.
const OF_ONE_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What a message has that asks for more than to be passed on. Most have nothing of it, and one look through the few names of a message is
/// less than a search for each of these.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "names, each of which is there or not")]
pub struct Special {
    /// Anything of [`OF_ONE_HOP`].
    of_one_hop: bool,
    connection: bool,
    transfer_encoding: bool,
    te: bool,
    expect: bool,
    forwarded_for: bool,
    /// Lines of cookies.
    cookies: usize,
    hosts: usize,
}

impl Special {
    /// Looks.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut has = Self::default();
        // A name comes with each of its lines.
        for name in headers.iter().map(|(name, _)| name.as_str()) {
            match name {
                "host" => has.hosts += 1,
                "cookie" => has.cookies += 1,
                "expect" => has.expect = true,
                "x-forwarded-for" => has.forwarded_for = true,
                "connection" => (has.connection, has.of_one_hop) = (true, true),
                "transfer-encoding" => (has.transfer_encoding, has.of_one_hop) = (true, true),
                "te" => (has.te, has.of_one_hop) = (true, true),
                "upgrade"
                | "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization" => has.of_one_hop = true,
                _ => {}
            }
        }
        has
    }

    /// The protocol that a request asks to go on with, or an answer goes on with. Not HTTP/2: requests of other environments could
    /// follow, and nobody would see it.
    pub fn upgrade(self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.connection {
            return None;
        }
        let is_asked = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
        let is_http = tokens(headers, &UPGRADE).any(|token| {
            token.eq_ignore_ascii_case(b"h2c") || token.to_ascii_lowercase().starts_with(b"http")
        });
        (is_asked && !is_http).then(|| headers.get(UPGRADE).cloned())?
    }

    /// Whether a body comes as more than chunks: compressed for this hop, say, which nobody could tell behind it.
    pub fn is_coded(self, headers: &HeaderMap) -> bool {
        self.transfer_encoding
            && tokens(headers, &TRANSFER_ENCODING).any(|coding| !coding.eq_ignore_ascii_case(b"chunked"))
    }

    /// What is wrong with the host of a request, which must not go further then (RFC 9112, 3.2): another server might take another one
    /// of two for the host that counts. HTTP/1.1 needs one.
    pub fn wrong_host(self, host: Option<Host<'_>>, is_needed: bool) -> Option<&'static str> {
        match (self.hosts, host) {
            (0, _) => is_needed.then_some("the request has no Host"),
            (1, None) => Some("the Host is none"),
            (1, Some(_)) => None,
            (2.., _) => Some("the request has more than one Host"),
        }
    }

    /// Removes what is for one hop only.
    pub fn remove_of_one_hop(self, headers: &mut HeaderMap) {
        if !self.of_one_hop {
            return;
        }
        // Of a body in chunks, any other length is a lie (RFC 9112, 6.3).
        if self.transfer_encoding {
            headers.remove(CONTENT_LENGTH);
        }
        let found = headers.keys().filter(|name| OF_ONE_HOP.contains(name)).cloned();
        // A request must not lose the host that counted here, whatever its client names.
        let named = tokens(headers, &CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .filter(|name| *name != HOST);
        for name in found.chain(named).collect::<Vec<_>>() {
            headers.remove(name);
        }
    }

    /// A request's headers as the server is to get them. `host` is what the client asked for.
    ///
    /// The server is told the client's address, `client`, behind those it claims for itself; what it claims of host and protocol is
    /// replaced, since this gateway is the edge.
    pub fn prepare(
        self,
        headers: &mut HeaderMap,
        client: &HeaderValue,
        host: Option<HeaderValue>,
        is_tls: bool,
    ) {
        // The one coding that may be asked for on every hop; gRPC does.
        let trailers = self.te && tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers"));
        self.remove_of_one_hop(headers);
        if self.expect {
            // It is the gateway that has answered it: 100 is sent as soon as the body is asked for.
            headers.remove(EXPECT);
        }
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if self.cookies > 1 {
            join_cookies(headers);
        }

        let chain = if self.forwarded_for {
            let claimed = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
            let chain: Vec<_> = claimed.chain([client.as_bytes()]).collect();
            HeaderValue::from_bytes(&chain.join(&b", "[..])).ok()
        } else {
            Some(client.clone())
        };
        let proto = HeaderValue::from_static(if is_tls { "https" } else { "http" });
        for (name, value) in [(FORWARDED_FOR, chain), (FORWARDED_HOST, host), (FORWARDED_PROTO, Some(proto))]
        {
            match value {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            }
        }
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Asks for an upgrade, or grants one, on this hop as well.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// HTTP/2 may have a line for each cookie; HTTP/1.1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
