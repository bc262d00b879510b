//! Names as segments of paths.
use std::fmt::Write as _;

/// A name as a segment of a path.
pub fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string");
        }
    }
    text
}

/// The name that a segment of a path is; none if it is no UTF-8, or not encoded as it should be.
pub fn unsegment(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        assert_eq!(segment("pr-1_2.3~"), "pr-1_2.3~");
        assert_eq!(segment("a/b c%"), "a%2Fb%20c%25");
        for text in ["", "pr-1", "a/b c%", "ä"] {
            assert_eq!(unsegment(&segment(text)).as_deref(), Some(text));
        }
        for bad in ["%", "%4", "%zz", "%c3", "a%+1"] {
            assert_eq!(unsegment(bad), None, "{bad}");
        }
    }
}
