//! Writing a header.
use core::fmt;

use super::{ENV_ID, FIXED_LEN, Field, MAX_BODY, MAX_LEN, SIGNATURE, VERSION, fields::trim};

/// Writes a header of `fields` to the start of `out` and returns its length in bytes.
///
/// `fields` are sorted by key, repeated keys keeping their order. Keys take the form MIME gives them (`env-id` becomes
/// `Env-Id`); values lose the spaces around them, and a CR or LF within becomes a space. On an error `out` is untouched.
pub fn encode<'a>(fields: &mut [Field<'a>], out: &mut [u8; MAX_LEN]) -> Result<usize, EncodeError<'a>> {
    if let Some(bad) = fields.iter().find(|field| !is_token(field.key)) {
        return Err(EncodeError::InvalidKey { key: bad.key });
    }
    let joints = 2 * fields.len().saturating_sub(1);
    let body = fields.iter().fold(joints, |sum, field| sum.saturating_add(line_len(field)));
    let Ok(length_byte) = u8::try_from(body) else {
        return Err(EncodeError::TooLong { key: key_to_drop(fields), body });
    };
    sort(fields);

    let fixed = SIGNATURE.into_iter().chain([VERSION, length_byte]);
    let lines = fields.iter().enumerate().flat_map(|(at, field)| {
        let joint: &[u8] = if at == 0 { b"" } else { b"\r\n" };
        joint.iter().copied().chain(canonical(field.key)).chain([b':']).chain(one_line(field.value))
    });
    for (to, byte) in out.iter_mut().zip(fixed.chain(lines)) {
        *to = byte;
    }
    Ok(FIXED_LEN + body)
}

/// Why a header cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError<'a> {
    /// The body would have more bytes than its length byte can say.
    TooLong {
        /// What to leave out first: the key of the longest line, but never `Env-Id`, by which connections are routed,
        /// unless it is all there is. Another one may have to go after it.
        key: &'a [u8],
        /// The length the body would have, in bytes.
        body: usize,
    },
    /// A key that is empty or has a byte no key may have (RFC 9110 calls what it may be a token).
    InvalidKey {
        /// The key.
        key: &'a [u8],
    },
}

impl fmt::Display for EncodeError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { key, body } => write!(
                f,
                "a PiCoP header's body would have {body} bytes, {MAX_BODY} is the most; drop or shorten {}",
                key.escape_ascii()
            ),
            Self::InvalidKey { key } => write!(
                f,
                "\"{}\" cannot be a key of a PiCoP header; use letters, digits and hyphens",
                key.escape_ascii()
            ),
        }
    }
}

impl core::error::Error for EncodeError<'_> {}

fn line_len(field: &Field<'_>) -> usize {
    field.key.len() + 1 + trim(field.value).len()
}

fn key_to_drop<'a>(fields: &[Field<'a>]) -> &'a [u8] {
    let longest = fields.iter().max_by_key(|field| (!field.is(ENV_ID), line_len(field)));
    longest.map_or(ENV_ID.as_bytes(), |field| field.key)
}

/// Stable, unlike what `core` has; a body of 255 bytes has 64 lines at the most.
fn sort(fields: &mut [Field<'_>]) {
    for sorted in 1..fields.len() {
        let mut at = sorted;
        while at > 0 && canonical(fields[at].key).lt(canonical(fields[at - 1].key)) {
            fields.swap(at, at - 1);
            at -= 1;
        }
    }
}

fn is_token(key: &[u8]) -> bool {
    !key.is_empty()
        && key.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// The key with its first letter, and each after a hyphen, in upper case and the others in lower case.
fn canonical(key: &[u8]) -> impl Iterator<Item = u8> {
    let before = [b'-'].into_iter().chain(key.iter().copied());
    key.iter().zip(before).map(|(byte, before)| {
        if before == b'-' { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() }
    })
}

fn one_line(value: &[u8]) -> impl Iterator<Item = u8> {
    trim(value).iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte })
}
