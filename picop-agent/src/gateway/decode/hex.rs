//! Bytes in hexadecimal.

use super::HexError;

/// Reads them. Spaces, line ends, colons, commas, dashes and `0x` or `\x` before a byte are passed over.
pub fn decode(text: &str) -> Result<Vec<u8>, HexError> {
    let chars: Vec<char> = text.chars().collect();
    let (mut digits, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let found = chars[at];
        let begins_byte = digits.len() % 2 == 0;
        let prefix = begins_byte && matches!((found, chars.get(at + 1)), ('0' | '\\', Some('x' | 'X')));
        if prefix {
            at += 1;
        } else if let Some(digit) = found.to_digit(16).and_then(|digit| u8::try_from(digit).ok()) {
            digits.push(digit);
        } else if !found.is_whitespace() && !matches!(found, ':' | ',' | '-') {
            return Err(HexError::Digit { found, at: at + 1 });
        }
        at += 1;
    }
    match digits.len() {
        0 => Err(HexError::Empty),
        odd if odd % 2 == 1 => Err(HexError::Odd(odd)),
        _ => Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()),
    }
}
