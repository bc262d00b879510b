//! Whether to wait for a header.
use std::{fmt, str::FromStr, time::Duration};

#[cfg(feature = "schemars")]
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

/// Whether the clients of a service are expected to send a header.
///
/// As text: `always`, `never`, `sniff` (for the default time) or `sniff(50ms)`, `sniff(2s)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(try_from = "String", into = "String"))]
pub enum ExpectHeader {
    /// Every client sends one, if perhaps late: wait for the whole header timeout. For clients that connect ahead of need
    /// and write the header with their first request.
    Always,
    /// Some do: wait this long for a first byte. A client that waits for the server to speak first (MySQL, SMTP) and sends
    /// no header is delayed by as much.
    Sniff(Duration),
    /// None does: read nothing, wait for nothing.
    Never,
}

impl ExpectHeader {
    /// How long `sniff` waits if it does not say.
    pub const DEFAULT_SNIFF: Duration = Duration::from_millis(50);
    /// The longest it can be told to wait.
    pub const MAX_SNIFF: Duration = Duration::from_secs(60);
}

impl Default for ExpectHeader {
    fn default() -> Self {
        Self::Sniff(Self::DEFAULT_SNIFF)
    }
}

/// A text that is no [`ExpectHeader`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseExpectError {
    /// None of its forms.
    #[error(
        "{text:?} does not say whether to expect a header; write always, never, sniff or, with a time, sniff(50ms)"
    )]
    Form {
        /// What was written instead.
        text: String,
    },
    /// A time that is zero or too long.
    #[error("{text:?} asks to sniff for {time:?}; 1ms to {max:?} is possible", max = ExpectHeader::MAX_SNIFF)]
    Time {
        /// What was written.
        text: String,
        /// The time it names.
        time: Duration,
    },
}

impl FromStr for ExpectHeader {
    type Err = ParseExpectError;

    fn from_str(text: &str) -> Result<Self, ParseExpectError> {
        let form = || ParseExpectError::Form { text: text.to_owned() };
        match text {
            "always" => return Ok(Self::Always),
            "never" => return Ok(Self::Never),
            "sniff" => return Ok(Self::default()),
            _ => {}
        }
        let time = text.strip_prefix("sniff(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(form)?;
        let time = parse_time(time).ok_or_else(form)?;
        if time.is_zero() || time > Self::MAX_SNIFF {
            return Err(ParseExpectError::Time { text: text.to_owned(), time });
        }
        Ok(Self::Sniff(time))
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let number = |digits: &str| {
        // `parse` would also take a sign.
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    match text.strip_suffix("ms") {
        Some(millis) => number(millis).map(Duration::from_millis),
        None => number(text.strip_suffix('s')?).map(Duration::from_secs),
    }
}

impl fmt::Display for ExpectHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.pad("always"),
            Self::Never => f.pad("never"),
            Self::Sniff(time) => write!(f, "sniff({}ms)", time.as_millis()),
        }
    }
}

impl TryFrom<String> for ExpectHeader {
    type Error = ParseExpectError;

    fn try_from(text: String) -> Result<Self, ParseExpectError> {
        text.parse()
    }
}

impl From<ExpectHeader> for String {
    fn from(expect: ExpectHeader) -> Self {
        expect.to_string()
    }
}

#[cfg(feature = "schemars")]
impl JsonSchema for ExpectHeader {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ExpectHeader".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(always|never|sniff(\([0-9]+(ms|s)\))?)$",
            "default": Self::default().to_string(),
            "description": "Whether clients send a header: always (wait for it as long as the header timeout), never (wait \
                            for nothing), or sniff(50ms) (wait that long for a first byte).",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let sniff = |millis| ExpectHeader::Sniff(Duration::from_millis(millis));
        for (text, expect, canonical) in [
            ("always", ExpectHeader::Always, "always"),
            ("never", ExpectHeader::Never, "never"),
            ("sniff", sniff(50), "sniff(50ms)"),
            ("sniff(1ms)", sniff(1), "sniff(1ms)"),
            ("sniff(60s)", sniff(60_000), "sniff(60000ms)"),
        ] {
            assert_eq!(text.parse(), Ok(expect), "{text}");
            assert_eq!(expect.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(expect));
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn in_files() {
        for text in ["always", "never", "sniff(1ms)"] {
            let json = format!("{text:?}");
            let expect: ExpectHeader = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&expect).unwrap(), json);
        }
        assert!(serde_json::from_str::<ExpectHeader>("\"sometimes\"").is_err());
    }

    #[test]
    fn what_it_is_not() {
        for text in [
            "",
            "Always",
            "sniff()",
            "sniff(50)",
            "sniff(ms)",
            "sniff(+5ms)",
            "sniff(-5ms)",
            "sniff(5ms",
            "5ms",
        ] {
            let error = text.parse::<ExpectHeader>().unwrap_err();
            assert_eq!(error, ParseExpectError::Form { text: text.to_owned() });
        }
        for (text, seconds) in
            [("sniff(0ms)", 0), ("sniff(61s)", 61), ("sniff(18446744073709551615s)", u64::MAX)]
        {
            let time = Duration::from_secs(seconds);
            assert_eq!(
                text.parse::<ExpectHeader>(),
                Err(ParseExpectError::Time { text: text.to_owned(), time })
            );
        }
    }
}
