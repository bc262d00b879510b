use super::*;

#[test]
fn names_are_plain_ascii_of_some_length() {
    for good in ["a", "main", "pr 1", "a/b", "~", &"x".repeat(MAX_LEN)] {
        assert_eq!(ProxyId::new(good).map(|id| id.as_str().to_owned()), Ok(good.to_owned()));
        assert_eq!(EnvName::new(good).map(|id| id.to_string()), Ok(good.to_owned()));
    }
    assert_eq!(EnvName::new(""), Err(BadValue::Empty("env_id")));
    let len = MAX_LEN + 1;
    assert_eq!(ProxyId::new("x".repeat(len)), Err(BadValue::TooLong { field: "proxy_id", len }));
    for bad in [" a", "a ", "a\nb", "a\0", "ä", "\u{7f}"] {
        assert_eq!(EnvName::new(bad), Err(BadValue::NotPlain("env_id")), "{bad:?}");
    }
}

#[test]
fn a_destination_is_a_host_and_a_port() {
    for good in ["10.0.0.7:80", "svc.ns.svc.cluster.local:65535", "[fd00::7]:80", "localhost:1"] {
        assert!(Destination::new(good).is_ok(), "{good}");
    }
    for bad in [
        "10.0.0.7",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "fd00::7:80",
        "[x]:80",
        "[::1]",
        "a b:1",
        "http://a:1",
    ] {
        let found = Destination::new(bad);
        assert!(matches!(found, Err(BadValue::NoAddress { field: "destination", .. })), "{bad}: {found:?}");
    }
}

#[test]
fn an_endpoint_is_a_place_of_http() {
    for good in [
        "http://host:9001",
        "http://10.0.0.7:9001/",
        "http://[fd00::7]:9001",
        "http://h",
        "http://h:1/at/this",
    ] {
        assert!(Endpoint::new(good).is_ok(), "{good}");
    }
    for bad in [
        "host:9001",
        "https://h:1",
        "http://",
        "http://h:0",
        "http://h:65536",
        "http://[fd00::7]:65536",
        "http://h:",
        "http://u@h:1",
        "http://h:1/?q",
        "http://h:1/#f",
        "/x",
    ] {
        let found = Endpoint::new(bad);
        assert!(matches!(found, Err(BadValue::NoEndpoint { .. })), "{bad}: {found:?}");
    }
}
