//! Bytes as hexadecimal digits, and back.

use anyhow::{Result, bail, ensure};

/// Two lower-case digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes of `text`.
///
/// # Errors
/// When it holds anything but pairs of digits.
pub fn decode(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "hexadecimal digits come in pairs");
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks_exact(2) {
        bytes.push((digit(pair[0])? << 4) | digit(pair[1])?);
    }
    Ok(bytes)
}

fn digit(letter: u8) -> Result<u8> {
    match letter {
        b'0'..=b'9' => Ok(letter - b'0'),
        b'a'..=b'f' => Ok(letter - b'a' + 10),
        b'A'..=b'F' => Ok(letter - b'A' + 10),
        _ => bail!("`{}` is no hexadecimal digit", letter.escape_ascii()),
    }
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
