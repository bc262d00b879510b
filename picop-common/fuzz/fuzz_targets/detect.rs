//! Any bytes as the start of a stream: nothing panics, every prefix is undecided or says what the whole says, what is
//! read lies within what came, and re-encoding what can be encoded gives a header that reads the same.
//! How to run it: `fuzz/README.md`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picop_common::header::{Detected, EncodeError, FIXED_LEN, Field, Header, MAX_LEN, detect, encode};

fuzz_target!(|stream: &[u8]| {
    let whole = detect(stream);
    for end in 0..stream.len().min(MAX_LEN + 1) {
        match detect(&stream[..end]) {
            Detected::Partial { at_least } => {
                assert!(at_least > 0 && end + at_least <= MAX_LEN);
                if let Detected::Header(header) = whole {
                    assert!(end + at_least <= header.wire_len());
                }
            }
            decided => assert_eq!(decided, whole),
        }
    }
    if let Detected::Header(header) = whole {
        assert!(stream.starts_with(header.wire()));
        check(&header);
    }
});

fn check(header: &Header<'_>) {
    let joints = 2 * (header.fields().count() - 1);
    let colons = header.body().split_inclusive(|b| *b == b'\n').filter(|line| line.contains(&b':')).count();
    let lines: usize = header.fields().map(|field| field.key.len() + field.value.len()).sum();
    assert!(lines + joints <= header.body().len() && header.body().len() <= lines + joints + colons);
    if let Some(env) = header.env_id() {
        assert!(!env.is_empty() && header.fields().any(|field| field.is("env-id")));
    }

    let mut fields: Vec<_> = header.fields().collect();
    let mut out = [0; MAX_LEN];
    let again = loop {
        match encode(&mut fields, &mut out) {
            Ok(len) => break &out[..len],
            Err(EncodeError::InvalidKey { key }) => fields.retain(|field| field.key != key),
            // A line without a colon gains one.
            Err(EncodeError::TooLong { key, .. }) => fields.retain(|field| field.key != key),
        }
    };
    let Detected::Header(read) = detect(again) else { panic!("what was encoded is no header") };
    assert_eq!(read.wire_len(), again.len());
    let kept: Vec<Field<'_>> = read.fields().filter(|field| !field.is_blank()).collect();
    assert_eq!(kept.len(), fields.len());
    for (kept, field) in kept.iter().zip(&fields) {
        assert!(kept.key.eq_ignore_ascii_case(field.key) && kept.value.len() <= field.value.len());
    }
    assert!(again.len() >= FIXED_LEN);
}
