//! The codec against the bytes of the Go reference implementation (`data/header-v1.json`).
use std::collections::{BTreeMap, BTreeSet};

use picop_common::header::{Detected, Field, Header, MAX_LEN, Other, detect, encode};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    #[expect(dead_code, reason = "prose; named so that no other key goes unread")]
    about: String,
    decode: Vec<Decode>,
    encode: Vec<Encode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decode {
    name: String,
    hex: String,
    reference_accepts: bool,
    #[serde(default)]
    values: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    rest_hex: String,
    reference_error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Encode {
    name: String,
    pairs: Vec<(String, String)>,
    hex: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("data/header-v1.json")).expect("vectors parse")
}

/// The right answer where the reference's is not, or where it only has one word ("refused") for several things.
enum Right {
    Env(&'static str),
    Not(Other),
    Partial { at_least: usize },
}

/// Case, the right answer, and why it is not what the reference says.
const DIFFERENT: [(&str, Right, &str); 7] = [
    ("colon in value", Right::Env("ma:in1"), "a line is cut at its first colon; the rest is value"),
    (
        "proxy v2 header",
        Right::Not(Other::ProxyV2),
        "no header of ours: told apart, passed through to the server",
    ),
    (
        "version 2",
        Right::Not(Other::UnknownVersion(2)),
        "a version nobody has defined: the application's bytes",
    ),
    ("plain http", Right::Not(Other::Payload), "no header means the base, not a refused connection"),
    ("short", Right::Partial { at_least: 11 }, "a header may be split anywhere; more may come"),
    ("empty", Right::Partial { at_least: 14 }, "a header may be split anywhere; more may come"),
    (
        "declared longer than sent",
        Right::Partial { at_least: 0xc8 - 11 },
        "the reference reads once and takes the buffer's zeros for the rest of the body",
    ),
];

#[test]
fn decode() {
    let mut different: BTreeMap<_, _> =
        DIFFERENT.iter().map(|(name, right, why)| (*name, (right, why))).collect();
    let cases = vectors().decode;
    for case in &cases {
        let bytes = unhex(&case.hex);
        let seen = detect(&bytes);
        let name = &case.name;
        match (different.remove(name.as_str()), seen) {
            (Some((Right::Env(env), _)), Detected::Header(header)) => {
                assert_eq!(header.env_id(), Some(env.as_bytes()), "{name}");
            }
            (Some((Right::Not(right), _)), Detected::Other(seen)) => assert_eq!(seen, *right, "{name}"),
            (Some((Right::Partial { at_least: right }, _)), Detected::Partial { at_least }) => {
                assert_eq!(at_least, *right, "{name}");
            }
            (Some((_, why)), seen) => panic!("{name}: {seen:?}, but {why}"),
            (None, Detected::Header(header)) if case.reference_accepts => {
                assert_eq!(values(&header), case.values, "{name}");
                assert_eq!(bytes[header.wire_len()..], unhex(&case.rest_hex), "{name}");
            }
            (None, seen) => panic!(
                "{name}: {seen:?}, but the reference {}",
                case.reference_error.as_deref().unwrap_or("accepts it")
            ),
        }
    }
    assert!(different.is_empty(), "cases that the vectors lack: {:?}", different.keys());
    assert_eq!(cases.len(), 18, "a vector was lost or added: say so here");
    assert_eq!(cases.iter().map(|case| &case.name).collect::<BTreeSet<_>>().len(), cases.len());
}

#[test]
fn decode_split_anywhere() {
    for case in vectors().decode {
        let bytes = unhex(&case.hex);
        let whole = detect(&bytes);
        for end in 0..bytes.len() {
            let seen = detect(&bytes[..end]);
            let partial = matches!(seen, Detected::Partial { at_least } if at_least > 0);
            assert!(partial || seen == whole, "{} cut at {end}: {seen:?}", case.name);
        }
    }
}

#[test]
fn encode_as_the_reference() {
    let cases = vectors().encode;
    for case in &cases {
        let mut fields: Vec<_> = case.pairs.iter().map(|(key, value)| Field::new(key, value)).collect();
        let mut out = [0; MAX_LEN];
        let len = encode(&mut fields, &mut out).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(out[..len], unhex(&case.hex), "{}", case.name);
    }
    assert_eq!(cases.len(), 11, "a vector was lost or added: say so here");
}

/// As the reference keeps them: by canonical key, repeated ones in order.
fn values(header: &Header<'_>) -> BTreeMap<String, Vec<String>> {
    let mut values = BTreeMap::<String, Vec<String>>::new();
    for field in header.fields() {
        let value = String::from_utf8(field.value.to_vec()).expect("the vectors' values are text");
        values.entry(canonical(field.key)).or_default().push(value);
    }
    for (key, expected) in &values {
        assert_eq!(header.get(&key.to_lowercase()), expected.first().map(String::as_bytes));
    }
    values
}

fn canonical(key: &[u8]) -> String {
    let lower = String::from_utf8(key.to_ascii_lowercase()).expect("the vectors' keys are text");
    let words = lower.split('-').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    });
    words.collect::<Vec<_>>().join("-")
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}
