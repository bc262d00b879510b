//! The codec on input nobody thought of.
use picop_common::header::{
    Detected, EncodeError, FIXED_LEN, Field, MAX_BODY, MAX_LEN, SIGNATURE, detect, encode,
};
use proptest::{collection::vec, prelude::*};

type Pair = (String, Vec<u8>);

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let key =
        prop_oneof![Just("env-id".to_owned()), Just("ENV-ID".to_owned()), "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}"];
    let value = prop_oneof![
        "[ -~]{0,40}".prop_map(String::into_bytes),
        "[ \t\r\n:a]{0,8}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..60)
    ];
    vec((key, value), 0..9)
}

/// Streams that are a header, nearly one, or nothing of the kind.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let header = (vec(any::<u8>(), 0..=MAX_BODY), vec(any::<u8>(), 0..40)).prop_map(|(body, payload)| {
        let length = u8::try_from(body.len()).expect("a body");
        [&SIGNATURE[..], &[1, length], &body, &payload].concat()
    });
    let bent = (header.clone(), 0..FIXED_LEN, any::<u8>()).prop_map(|(mut bytes, at, byte)| {
        bytes[at] = byte;
        bytes
    });
    let cut = (header.clone(), 0..MAX_LEN).prop_map(|(mut bytes, end)| {
        bytes.truncate(end);
        bytes
    });
    prop_oneof![header, bent, cut, vec(any::<u8>(), 0..300)]
}

/// What a reader gets to see of a pair: its key in canonical case, its value trimmed and on one line.
fn as_written((key, value): &Pair) -> Pair {
    let mut start = true;
    let canonical = key.chars().map(|c| {
        let cased = if start { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        start = c == '-';
        cased
    });
    let one_line: Vec<u8> = value.iter().map(|b| if b"\r\n".contains(b) { b' ' } else { *b }).collect();
    let blank = |b: &u8| b" \t".contains(b);
    let first = one_line.iter().position(|b| !blank(b)).unwrap_or(one_line.len());
    let last = one_line.iter().rposition(|b| !blank(b)).map_or(first, |at| at + 1);
    (canonical.collect(), one_line[first..last].to_vec())
}

fn body_len(pairs: &[Pair]) -> usize {
    let lines = pairs.iter().map(as_written).map(|(key, value)| key.len() + 1 + value.len());
    lines.sum::<usize>() + 2 * pairs.len().saturating_sub(1)
}

fn fields(pairs: &[Pair]) -> Vec<Field<'_>> {
    pairs.iter().map(|(key, value)| Field { key: key.as_bytes(), value }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_written_is_read(pairs in pairs(), payload in vec(any::<u8>(), 0..40)) {
        let mut out = [0; MAX_LEN];
        let result = encode(&mut fields(&pairs), &mut out);
        if body_len(&pairs) > MAX_BODY {
            let too_long = matches!(result, Err(EncodeError::TooLong { body, .. }) if body == body_len(&pairs));
            prop_assert!(too_long, "{result:?}");
            return Ok(());
        }
        let written = result.expect("it fits");
        prop_assert_eq!(written, FIXED_LEN + body_len(&pairs));

        let stream = [&out[..written], &payload].concat();
        let Detected::Header(header) = detect(&stream) else { panic!("not a header: {stream:?}") };
        prop_assert_eq!(header.wire(), &out[..written]);
        let read: Vec<Pair> = header
            .fields()
            .filter(|field| !field.is_blank())
            .map(|field| (String::from_utf8(field.key.to_vec()).unwrap(), field.value.to_vec()))
            .collect();
        let mut expected: Vec<Pair> = pairs.iter().map(as_written).collect();
        expected.sort_by(|(a, _), (b, _)| a.cmp(b));
        prop_assert_eq!(&read, &expected);

        // Writing what was read changes nothing.
        let mut again = [0; MAX_LEN];
        let rewritten = encode(&mut fields(&read), &mut again);
        prop_assert_eq!(rewritten, Ok(written));
        prop_assert_eq!(again, out);
    }

    #[test]
    fn dropping_what_it_names_ends_in_a_header(pairs in pairs()) {
        let mut left = fields(&pairs);
        let mut out = [0xaa; MAX_LEN];
        while let Err(error) = encode(&mut left, &mut out) {
            let EncodeError::TooLong { key, .. } = error else { panic!("{error}") };
            prop_assert_eq!(out, [0xaa; MAX_LEN]);
            let key = str::from_utf8(key).unwrap();
            let all = left.len();
            prop_assert!(!key.eq_ignore_ascii_case("env-id") || left.iter().all(|field| field.is("env-id")));
            left.retain(|field| !field.is(key));
            prop_assert!(left.len() < all);
        }
        prop_assert!(matches!(detect(&out), Detected::Header(_)));
    }

    #[test]
    fn every_prefix_is_undecided_or_right(stream in streams()) {
        let whole = detect(&stream);
        for end in 0..=stream.len() {
            let seen = detect(&stream[..end]);
            match (seen, whole) {
                (Detected::Partial { at_least }, Detected::Header(header)) => {
                    prop_assert!(at_least > 0 && end + at_least <= header.wire_len());
                    prop_assert!(end < FIXED_LEN || end + at_least == header.wire_len());
                }
                (Detected::Partial { at_least }, _) => prop_assert!(at_least > 0),
                (seen, whole) => prop_assert_eq!(seen, whole),
            }
        }
        if let Detected::Header(header) = whole {
            prop_assert_eq!(detect(&stream[..header.wire_len()]), whole);
            prop_assert_eq!(detect(&stream[..header.wire_len() - 1]), Detected::Partial { at_least: 1 });
        }
    }

    #[test]
    fn lines_lose_no_byte(body in "[ak: \r\n]{0,255}") {
        let length = u8::try_from(body.len()).expect("a body");
        let stream = [&SIGNATURE[..], &[1, length], body.as_bytes()].concat();
        let Detected::Header(header) = detect(&stream) else { panic!("not a header") };
        let read: Vec<_> = header.fields().map(|field| (field.key, field.value)).collect();
        let lines = body.split("\r\n").map(|line| line.split_once(':').unwrap_or((line, "")));
        prop_assert_eq!(read, lines.map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect::<Vec<_>>());
    }
}
