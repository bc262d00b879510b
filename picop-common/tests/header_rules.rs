//! What the codec promises beyond the reference: bodies nobody should write, and what cannot be encoded.
use picop_common::header::{
    Detected, EncodeError, FIXED_LEN, Field, MAX_BODY, MAX_LEN, Other, SIGNATURE, detect, encode,
};

fn wire(body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).expect("a body");
    [&SIGNATURE[..], &[1, length], body].concat()
}

fn write<'a>(fields: &mut [Field<'a>]) -> Result<Vec<u8>, EncodeError<'a>> {
    let mut out = [0xaa; MAX_LEN];
    let result = encode(fields, &mut out);
    if result.is_err() {
        assert_eq!(out, [0xaa; MAX_LEN], "something was written in spite of an error");
    }
    result.map(|len| out[..len].to_vec())
}

#[test]
fn odd_bodies() {
    type Case = (&'static [u8], &'static [(&'static [u8], &'static [u8])], Option<&'static [u8]>);
    let cases: [Case; 12] = [
        (b"", &[(b"", b"")], None),
        (b"\r\n", &[(b"", b""), (b"", b"")], None),
        (b":x", &[(b"", b"x")], None),
        (b"env-id", &[(b"env-id", b"")], None),
        (b"env-id:", &[(b"env-id", b"")], None),
        (b"env-id:  \t", &[(b"env-id", b"  \t")], None),
        (b"env-id: main ", &[(b"env-id", b" main ")], Some(b"main")),
        (b"env-id:a\r\nEnv-Id:b", &[(b"env-id", b"a"), (b"Env-Id", b"b")], Some(b"a")),
        (b"Env-Id:\xff\0:", &[(b"Env-Id", b"\xff\0:")], Some(b"\xff\0:")),
        (b"k:a\rb\nc\r", &[(b"k", b"a\rb\nc\r")], None),
        (b"k:v\r\r\nenv-id:x", &[(b"k", b"v\r"), (b"env-id", b"x")], Some(b"x")),
        (b"env-id :x", &[(b"env-id ", b"x")], None),
    ];
    for (body, fields, env) in cases {
        let bytes = wire(body);
        let Detected::Header(header) = detect(&bytes) else { panic!("{}", body.escape_ascii()) };
        let read: Vec<_> = header.fields().map(|field| (field.key, field.value)).collect();
        assert_eq!(read, fields, "{}", body.escape_ascii());
        assert_eq!(header.env_id(), env, "{}", body.escape_ascii());
        assert_eq!((header.wire(), header.body()), (&bytes[..], body));
    }
}

#[test]
fn versions_are_told_apart_at_their_byte() {
    for version in 0..=u8::MAX {
        let bytes = [&SIGNATURE[..], &[version]].concat();
        let right = match version {
            1 => Detected::Partial { at_least: 1 },
            0x20 | 0x21 => Detected::Other(Other::ProxyV2),
            other => Detected::Other(Other::UnknownVersion(other)),
        };
        assert_eq!(detect(&bytes), right);
    }
}

#[test]
fn payload_is_known_at_the_first_differing_byte() {
    for differing in 0..SIGNATURE.len() {
        let mut bytes = SIGNATURE;
        bytes[differing] ^= 0x20;
        assert_eq!(detect(&bytes[..=differing]), Detected::Other(Other::Payload));
        assert!(matches!(detect(&bytes[..differing]), Detected::Partial { .. }));
    }
}

#[test]
fn too_long_names_the_key_to_drop() {
    let long = "x".repeat(200);
    let fields = [
        Field::new("env-id", &long),
        Field::new("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        Field::new("baggage", "a=1"),
    ];
    let error = write(&mut fields.clone()).unwrap_err();
    assert_eq!(error, EncodeError::TooLong { key: b"traceparent", body: 7 + 200 + 2 + 12 + 55 + 2 + 8 + 3 });
    assert_eq!(
        error.to_string(),
        "a PiCoP header's body would have 289 bytes, 255 is the most; drop or shorten traceparent"
    );
    // The key it names, dropped, makes it fit.
    assert!(write(&mut [fields[0], fields[2]]).is_ok());

    let full = "x".repeat(MAX_BODY - "Env-Id:".len());
    assert_eq!(write(&mut [Field::new("env-id", &full)]).map(|wire| wire.len()), Ok(MAX_LEN));
    let over = full + "x";
    let error = write(&mut [Field::new("env-id", &over)]).unwrap_err();
    assert_eq!(error, EncodeError::TooLong { key: b"env-id", body: MAX_BODY + 1 });
    // What is trimmed does not count.
    let padded = format!(" {} \r\n", &over[1..]);
    assert_eq!(write(&mut [Field::new("env-id", &padded)]).map(|wire| wire.len()), Ok(FIXED_LEN + MAX_BODY));
}

#[test]
fn keys_that_cannot_be_written() {
    for bad in ["", ":", "a:b", "a b", " a", "a\r\nb", "a\n", "a\0", "é", "a\tb", "(a)"] {
        let mut fields = [Field::new("env-id", "x"), Field::new(bad, "y")];
        let error = write(&mut fields).unwrap_err();
        assert_eq!(error, EncodeError::InvalidKey { key: bad.as_bytes() }, "{bad:?}");
        assert!(
            error.to_string().starts_with(&format!("\"{}\" cannot", bad.as_bytes().escape_ascii())),
            "{error}"
        );
    }
    assert_eq!(write(&mut [Field::new("x-A1_b", "")]), Ok(wire(b"X-A1_b:")));
}
