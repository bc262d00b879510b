//! The PiCoP header, version 1.
//!
//! At the very start of a connection's payload, client to server only:
//!
//! | bytes | what |
//! | --- | --- |
//! | 0-11 | [`SIGNATURE`], which is also that of the PROXY protocol, version 2 |
//! | 12 | [`VERSION`] (PROXY v2 has `20` or `21` here) |
//! | 13 | length of the body, 0-255 |
//! | 14.. | the body: `Key:Value` lines joined by CRLF, none after the last |
//!
//! [`detect`] reads it off an ever longer prefix of a stream, [`encode`] writes it. Nothing here allocates or panics,
//! whatever the input; what is read borrows from the input.
mod encode;
mod fields;

pub use encode::{EncodeError, encode};
pub use fields::{Field, Fields};

/// What a header starts with: bytes no application protocol starts with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The one version there is, in the byte after the signature.
pub const VERSION: u8 = 1;
/// Bytes before the body: signature, version, length.
pub const FIXED_LEN: usize = SIGNATURE.len() + 2;
/// The most bytes a body may have.
pub const MAX_BODY: usize = u8::MAX as usize;
/// The most bytes a header may have.
pub const MAX_LEN: usize = FIXED_LEN + MAX_BODY;
/// The key that routes, in the form it has on the wire.
pub const ENV_ID: &str = "Env-Id";

const PROXY_V2: [u8; 2] = [0x20, 0x21];

/// What a stream starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected<'a> {
    /// Too short to say, and a header so far. What a stream that ends here was is the caller's to judge.
    Partial {
        /// Bytes that a header would still lack, at the least: never 0, exact once the length byte has come.
        at_least: usize,
    },
    /// A whole header. What follows it is the application's.
    Header(Header<'a>),
    /// No header: every byte is the application's, to be passed on untouched.
    Other(Other),
}

/// What a stream without a header starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// An application's bytes.
    Payload,
    /// A PROXY protocol version 2 header: for the server, not for us.
    ProxyV2,
    /// The signature, followed by a version that is neither ours nor the PROXY protocol's.
    UnknownVersion(u8),
}

/// Says what a stream starts with, given the bytes of it that have come so far.
///
/// The answer for a prefix is [`Detected::Partial`] until it is known, and then stays the same for every longer prefix.
pub fn detect(prefix: &[u8]) -> Detected<'_> {
    let shared = prefix.len().min(SIGNATURE.len());
    if prefix[..shared] != SIGNATURE[..shared] {
        return Detected::Other(Other::Payload);
    }
    match prefix.get(SIGNATURE.len()) {
        None | Some(&VERSION) => {}
        Some(version) if PROXY_V2.contains(version) => return Detected::Other(Other::ProxyV2),
        Some(&version) => return Detected::Other(Other::UnknownVersion(version)),
    }
    let body_len = prefix.get(FIXED_LEN - 1).map_or(0, |&len| usize::from(len));
    let wire_len = FIXED_LEN + body_len;
    match prefix.get(..wire_len) {
        Some(wire) => Detected::Header(Header { wire }),
        None => Detected::Partial { at_least: wire_len - prefix.len() },
    }
}

/// A whole header, as it came.
///
/// A body is never refused: the length byte already says where the payload starts, and a peer that writes an odd line
/// still gets its connection. It is cut into lines at each CRLF, and each line at its first colon:
///
/// - A line without a colon is a key with an empty value.
/// - An empty line (an empty body is one; a CRLF at the body's end makes one) is a [`Field`] with both empty, as the
///   reference has it. [`Field::is_blank`] tells; it cannot be encoded.
/// - Values are whatever bytes come: further colons, spaces at the ends, NUL, a CR or LF alone, bytes that are not UTF-8.
/// - A key may repeat. [`get`](Header::get) answers with the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Fixed part and body; `detect` is the one place that makes it.
    wire: &'a [u8],
}

impl<'a> Header<'a> {
    /// The header as it came: what to send on unchanged.
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Bytes it takes of the stream; the payload starts there.
    pub fn wire_len(&self) -> usize {
        self.wire.len()
    }

    /// The lines, undivided.
    pub fn body(&self) -> &'a [u8] {
        self.wire.get(FIXED_LEN..).unwrap_or_default()
    }

    /// The lines in the order they came.
    pub fn fields(&self) -> Fields<'a> {
        Fields::new(self.body())
    }

    /// The first value of `key`, exactly as it came; the case of `key` does not matter.
    pub fn get(&self, key: &str) -> Option<&'a [u8]> {
        self.fields().find(|field| field.is(key)).map(|field| field.value)
    }

    /// The environment this connection asks for: the first `Env-Id`, less spaces at its ends (writers send none, so they
    /// cannot be part of a name). Empty means no environment.
    pub fn env_id(&self) -> Option<&'a [u8]> {
        self.get(ENV_ID).map(fields::trim).filter(|value| !value.is_empty())
    }
}
