//! What clients send. The header is written here by hand, not by the codec under test.

use anyhow::{Result, bail};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION: u8 = 1;

/// A PiCoP header of these entries, in the order and the spelling given.
pub fn header(entries: &[(String, String)]) -> Result<Vec<u8>> {
    let body = entries.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join("\r\n");
    let Ok(len) = u8::try_from(body.len()) else { bail!("a header of {} bytes cannot be", body.len()) };
    Ok([&SIGNATURE[..], &[VERSION, len], body.as_bytes()].concat())
}

/// Splits `key=value` of the command line; the key in the form writers give it (`env` is short for `Env-Id`).
pub fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    let key = if key == "env" { "env-id" } else { key };
    let words = key.split('-').map(|word| {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
    });
    Ok((words.collect::<Vec<_>>().join("-"), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_protocols() {
        let bytes = header(&[entry("env=pr-1").expect("an entry")]).expect("a short header");
        assert_eq!(testbed::hex::encode(&bytes), "0d0a0d0a000d0a515549540a010b456e762d49643a70722d31");
        assert!(header(&[("A".into(), "x".repeat(254))]).is_err());
    }
}
