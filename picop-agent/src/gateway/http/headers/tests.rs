use super::*;

fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

const ASKED: HeaderValue = HeaderValue::from_static("pr-1.example.com");

fn prepared(lines: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
    let mut headers = map(lines);
    Special::of(&headers).prepare(&mut headers, &HeaderValue::from_static("192.0.2.1"), Some(ASKED), true);
    let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
    let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    lines.sort();
    lines.retain(|(name, _)| !matches!(&**name, "x-forwarded-host" | "x-forwarded-proto"));
    lines
}

#[test]
fn what_is_of_one_hop_goes_no_further() {
    let got = prepared(&[
        ("connection", "keep-alive, X-Secret"),
        ("connection", "te"),
        ("x-secret", "1"),
        ("keep-alive", "5"),
        ("te", "gzip, trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "x"),
        ("expect", "100-continue"),
        ("accept", "*/*"),
    ]);
    let expected = [("accept", "*/*"), ("te", "trailers"), ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_host_that_counted_goes_on() {
    let got = prepared(&[("connection", "Host, close"), ("host", "pr-1.example.com")]);
    let expected = [("host", "pr-1.example.com"), ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn the_client_is_told() {
    let got =
        prepared(&[("x-forwarded-for", "a"), ("x-forwarded-for", "b"), ("cookie", "c=1"), ("cookie", "d=2")]);
    let expected = [("cookie", "c=1; d=2"), ("x-forwarded-for", "a, b, 192.0.2.1")];
    assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

    let mut headers = map(&[("x-forwarded-host", "evil"), ("x-forwarded-proto", "http")]);
    let client = HeaderValue::from_static("127.0.0.1");
    Special::of(&headers).prepare(&mut headers, &client, Some(ASKED), true);
    assert_eq!(headers["x-forwarded-host"], "pr-1.example.com");
    assert_eq!(headers["x-forwarded-proto"], "https");
    Special::of(&headers).prepare(&mut headers, &client, None, false);
    assert!(!headers.contains_key("x-forwarded-host"));
    assert_eq!(headers["x-forwarded-proto"], "http");
}

#[test]
fn upgrades() {
    for (lines, protocol) in [
        (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..], Some("websocket")),
        (&[("upgrade", "websocket")], None),
        (&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], None),
        (&[("connection", "upgrade"), ("upgrade", "websocket, HTTP/2.0")], None),
        (&[("connection", "upgrade")], None),
        (&[], None),
    ] {
        let headers = map(lines);
        let found = Special::of(&headers).upgrade(&headers);
        assert_eq!(found.as_ref().map(|value| value.to_str().expect("text")), protocol);
    }
    let mut headers = map(&[("connection", "close")]);
    set_upgrade(&mut headers, HeaderValue::from_static("websocket"));
    assert_eq!(
        (&headers["connection"], &headers["upgrade"]),
        (&"upgrade".parse().expect("a value"), &"websocket".parse().expect("a value"))
    );
}
