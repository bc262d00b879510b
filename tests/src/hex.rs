//! Bytes as hexadecimal digits, and back.

use anyhow::{Context as _, Result, ensure};

/// Two lower-case digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// The bytes of `text`.
///
/// # Errors
/// When it holds anything but pairs of digits.
pub fn decode(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "hexadecimal digits come in pairs");
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).context("not ASCII")?;
        u8::from_str_radix(pair, 16).with_context(|| format!("`{pair}` is no hexadecimal byte"))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).expect("its own digits"), all);
        assert!(decode("0").is_err() && decode("zz").is_err() && decode("ää").is_err());
    }
}
