//! Any keys and values (the input, cut at each byte ff): `encode` writes a header that reads the same, or says what is wrong and writes nothing; dropping
//! the key it names always ends in a header. How to run it: `fuzz/README.md`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use picop_common::header::{Detected, EncodeError, Field, MAX_BODY, MAX_LEN, detect, encode};

fuzz_target!(|input: &[u8]| {
    let parts: Vec<_> = input.split(|byte| *byte == 0xff).collect();
    let mut fields: Vec<_> =
        parts.chunks_exact(2).map(|pair| Field { key: pair[0], value: pair[1] }).collect();
    let mut out = [0xaa; MAX_LEN];
    let len = loop {
        match encode(&mut fields, &mut out) {
            Ok(len) => break len,
            Err(error) => {
                assert_eq!(out, [0xaa; MAX_LEN]);
                let (EncodeError::InvalidKey { key } | EncodeError::TooLong { key, .. }) = error;
                if let EncodeError::TooLong { body, .. } = error {
                    assert!(body > MAX_BODY);
                }
                let all = fields.len();
                fields.retain(|field| field.key != key);
                assert!(fields.len() < all);
            }
        }
    };
    let Detected::Header(header) = detect(&out[..len]) else { panic!("what was encoded is no header") };
    assert_eq!(header.wire_len(), len);
    let read: Vec<_> = header.fields().filter(|field| !field.is_blank()).collect();
    assert_eq!(read.len(), fields.len());
    assert!(read.is_sorted_by(|a, b| a.key <= b.key));
    for (read, field) in read.iter().zip(&fields) {
        // The fields were sorted too, so they pair up.
        assert!(read.key.eq_ignore_ascii_case(field.key) && read.value.len() <= field.value.len());
        assert!(!read.value.iter().any(|byte| b"\r\n".contains(byte)));
    }
});
