//! The name of an environment.
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

#[cfg(feature = "schemars")]
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
#[cfg(feature = "serde")]
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The name of an environment, as `Env-Id` carries it: `pr-123`, `staging`.
///
/// Any text that a PiCoP header can carry unchanged: 1 to [`EnvId::MAX_LEN`] bytes of UTF-8, no control character (a
/// header's lines end in CRLF, and an access line must stay one line), no space at either end (writers of headers trim
/// values). Names are compared byte for byte, case included. Kubernetes labels, which may hold environment names too, are
/// narrower (63 bytes of ASCII) and always fit. A clone costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvId(Arc<str>);

impl EnvId {
    /// The longest name in bytes: what is left of a header's body after `Env-Id:`.
    pub const MAX_LEN: usize = 248;

    /// Checks `name` and takes a copy of it.
    pub fn new(name: &str) -> Result<Self, EnvIdError> {
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The same for bytes that came from the network.
    pub fn from_bytes(name: &[u8]) -> Result<Self, EnvIdError> {
        Self::new(str::from_utf8(name).map_err(EnvIdError::NotUtf8)?)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(name: &str) -> Result<(), EnvIdError> {
    if name.is_empty() {
        return Err(EnvIdError::Empty);
    }
    if name.len() > EnvId::MAX_LEN {
        return Err(EnvIdError::TooLong { len: name.len() });
    }
    if let Some(found) = name.chars().find(|c| c.is_control()) {
        return Err(EnvIdError::Control { found });
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(EnvIdError::Padded);
    }
    Ok(())
}

/// Why a text cannot name an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvIdError {
    /// No character at all; leave the field out to say "no environment".
    #[error("an environment's name is empty; leave it out to mean no environment")]
    Empty,
    /// Does not fit in a header.
    #[error("an environment's name has {len} bytes; a PiCoP header has room for {max}", max = EnvId::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A control character, line ends among them.
    #[error("an environment's name contains the control character {found:?}; remove it")]
    Control {
        /// The first one.
        found: char,
    },
    /// Starts or ends in a space.
    #[error(
        "an environment's name starts or ends with a space, which a PiCoP header cannot carry; remove it"
    )]
    Padded,
    /// Bytes that are not text.
    #[error("an environment's name is not UTF-8")]
    NotUtf8(#[source] std::str::Utf8Error),
}

impl FromStr for EnvId {
    type Err = EnvIdError;

    fn from_str(name: &str) -> Result<Self, EnvIdError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for EnvId {
    type Error = EnvIdError;

    fn try_from(name: &str) -> Result<Self, EnvIdError> {
        Self::new(name)
    }
}

impl fmt::Display for EnvId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EnvId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvId({:?})", &*self.0)
    }
}

impl AsRef<str> for EnvId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lets a map keyed by `EnvId` be asked with a `&str`.
impl Borrow<str> for EnvId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(feature = "serde")]
impl Serialize for EnvId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> Deserialize<'de> for EnvId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = EnvId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an environment's name")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<EnvId, E> {
                EnvId::new(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(feature = "schemars")]
impl JsonSchema for EnvId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EnvId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": Self::MAX_LEN,
            "pattern": r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$",
            "description": "The name of an environment, as the header's Env-Id carries it.",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn names() {
        let longest = "e".repeat(EnvId::MAX_LEN);
        for good in ["main", "pr-1234", "環境一", "a b", "Pr/7:x", &longest] {
            assert_eq!(EnvId::new(good).map(|e| e.to_string()), Ok(good.to_owned()));
        }
        let too_long = "e".repeat(EnvId::MAX_LEN + 1);
        for (bad, why) in [
            ("", EnvIdError::Empty),
            (&too_long, EnvIdError::TooLong { len: EnvId::MAX_LEN + 1 }),
            ("a\r\nb", EnvIdError::Control { found: '\r' }),
            ("a\0b", EnvIdError::Control { found: '\0' }),
            (" main", EnvIdError::Padded),
            ("main ", EnvIdError::Padded),
        ] {
            assert_eq!(EnvId::new(bad), Err(why), "{bad:?}");
        }
        assert!(matches!(EnvId::from_bytes(b"\xff"), Err(EnvIdError::NotUtf8(_))));
    }

    #[test]
    fn longest_name_fills_a_header() {
        use crate::header::MAX_BODY;
        assert_eq!("Env-Id:".len() + EnvId::MAX_LEN, MAX_BODY);
    }

    #[test]
    fn a_map_is_asked_with_text() {
        let map = HashMap::from([(EnvId::new("pr-1").unwrap(), 7)]);
        assert_eq!(map.get("pr-1"), Some(&7));
        assert_eq!(map.get("PR-1"), None);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn serde_checks() {
        let read: EnvId = serde_json::from_str(r#""pr-1""#).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), r#""pr-1""#);
        let error = serde_json::from_str::<EnvId>(r#""""#).unwrap_err().to_string();
        assert!(error.contains("empty"), "{error}");
        assert!(serde_json::from_str::<EnvId>("7").is_err());
    }
}
