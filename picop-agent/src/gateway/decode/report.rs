//! Headers in words.

use std::fmt::Write as _;

use picop_common::header::{Detected, Header, Other, detect};

use super::{DecodeError, streams::Streams};
use crate::protocol::{Context, EnvSource};

/// Of bytes that begin with one.
pub fn of_bytes(bytes: &[u8]) -> Result<String, DecodeError> {
    match detect(bytes) {
        Detected::Header(header) => {
            let mut text = describe(&header);
            let rest = bytes.len() - header.wire_len();
            if rest > 0 {
                line(&mut text, &format!("  {rest} bytes of payload follow"));
            }
            Ok(text)
        }
        Detected::Partial { at_least } => Err(DecodeError::None(format!(
            "the {} bytes are the beginning of one, and at least {at_least} more are missing",
            bytes.len()
        ))),
        Detected::Other(other) => Err(DecodeError::None(match other {
            Other::Payload => "the bytes do not begin with its signature 0D0A0D0A000D0A515549540A".to_owned(),
            Other::ProxyV2 => "this is a PROXY protocol header of version 2".to_owned(),
            Other::UnknownVersion(version) => {
                format!("its version would be {version}, and 1 is the only one")
            }
        })),
    }
}

/// Of each stream that begins with one.
pub fn of_streams(streams: &Streams) -> Result<String, DecodeError> {
    let (mut text, mut all) = (String::new(), 0);
    for stream in streams.iter() {
        all += 1;
        let beginning = stream.beginning();
        let ends = format!("{} -> {}", stream.from, stream.to);
        match detect(&beginning) {
            Detected::Header(header) => {
                line(&mut text, &ends);
                text.push_str(&describe(&header));
            }
            // An empty stream is the beginning of anything, and so are four bytes of line ends.
            Detected::Partial { at_least } if beginning.len() > 4 => {
                line(&mut text, &ends);
                line(
                    &mut text,
                    &format!("  part of a header: at least {at_least} bytes of it were not captured"),
                );
            }
            Detected::Partial { .. } | Detected::Other(_) => {}
        }
    }
    if text.is_empty() {
        return Err(DecodeError::None(format!(
            "none of {all} TCP streams begins with one ({} segments, {} other packets); was their beginning captured, with \
             whole packets?",
            streams.segments, streams.others
        )));
    }
    Ok(text)
}

fn describe(header: &Header<'_>) -> String {
    let mut text = String::new();
    line(&mut text, &format!("  PiCoP header, version 1, {} bytes", header.wire_len()));
    let fields: Vec<_> = header.fields().filter(|field| !field.is_blank()).collect();
    if fields.is_empty() {
        line(&mut text, "  (no keys)");
    }
    for field in fields {
        line(&mut text, &format!("  {}: {}", shown(field.key), shown(field.value)));
    }
    let context = Context::from_header(header);
    let environment = match (context.env(), context.rejected_env()) {
        (Some((env, EnvSource::Header)), _) => env.to_string(),
        (Some((env, EnvSource::Baggage)), _) => format!("{env} (of its baggage)"),
        (None, Some(why)) => format!("none: {why}"),
        (None, None) => "none".to_owned(),
    };
    line(&mut text, &format!("  environment: {environment}"));
    text
}

/// Text as it is; control characters, and bytes that are no text, in escapes.
fn shown(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a string");
}
