use super::*;

#[test]
fn environments_of_hosts() {
    for (pattern, host, environment) in [
        ("{env}.preview.example.com", "pr-1.preview.example.com", Some("pr-1")),
        ("{env}.preview.example.com", "PR-1.Preview.example.com:8443", Some("pr-1")),
        ("{env}.preview.example.com", "pr-1.preview.example.com.", Some("pr-1")),
        ("{env}.preview.example.com", "preview.example.com", None),
        ("{env}.preview.example.com", ".preview.example.com", None),
        ("{env}.preview.example.com", "a.b.preview.example.com", None),
        ("{env}.preview.example.com", "pr-1.preview.example.com.evil.example", None),
        ("{env}.preview.example.com", "pr-1.previewxexample.com", None),
        ("{env}.preview.example.com", "[::1]:80", None),
        ("{env}.preview.example.com", "", None),
        ("shop-{env}.Example.com", "shop-pr-7.example.com", Some("pr-7")),
        ("shop-{env}.example.com", "shop.example.com", None),
        ("shop-{env}-x.example.com", "shop-x.example.com", None),
        ("{env}", "localhost:80", Some("localhost")),
    ] {
        let pattern: HostPattern = pattern.parse().expect("a pattern");
        let found = pattern.environment(Host::of(host.as_bytes()).expect("a host"));
        assert_eq!(found.as_ref().map(EnvId::as_str), environment, "{pattern} {host}");
    }
}

#[test]
fn what_is_no_pattern() {
    for text in ["", "preview.example.com", "{env}.{env}.example.com", "{ENV}.example.com"] {
        assert!(matches!(text.parse::<HostPattern>(), Err(HostPatternError::Hole { .. })), "{text}");
    }
    for text in ["http://{env}.example.com", "{env}.example.com:80", "{env}.a b", "*.{env}.com"] {
        assert!(matches!(text.parse::<HostPattern>(), Err(HostPatternError::Host { .. })), "{text}");
    }
}

#[test]
fn what_is_no_host() {
    for byte in 0..=u8::MAX {
        let is_of_host = byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte);
        assert_eq!(Host::of(&[b'a', byte, b'z']).is_some(), is_of_host, "{}", byte.escape_ascii());
    }
    assert!(Host::of(b"").is_some());
}
