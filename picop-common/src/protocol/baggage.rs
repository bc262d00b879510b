//! What is read of `baggage` (<https://www.w3.org/TR/baggage/>).

/// The member that names the environment, for clients whose tracing library is all that they can set up.
const ENVIRONMENT: &[u8] = b"env-id";

/// The value of the first entry `env-id=value` in any of these lines, percent-decoded; its properties (`;key=value`) are not
/// part of it.
pub fn environment<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut entries = lines.flat_map(|line| line.split(|byte| *byte == b','));
    let value = entries.find_map(|entry| {
        let member = entry.split(|byte| *byte == b';').next()?;
        let equals = member.iter().position(|byte| *byte == b'=')?;
        (member[..equals].trim_ascii() == ENVIRONMENT).then(|| member[equals + 1..].trim_ascii())
    })?;
    Some(percent_decode(value)).filter(|value| !value.is_empty())
}

/// A `%` that two hexadecimal digits do not follow stands for itself.
pub fn percent_decode(mut text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    while let Some((&first, rest)) = text.split_first() {
        let escape = match text {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = escape {
            decoded.push(high << 4 | low);
            text = &text[3..];
        } else {
            decoded.push(first);
            text = rest;
        }
    }
    decoded
}
