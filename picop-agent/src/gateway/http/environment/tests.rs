use super::*;

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn finder(header: &'static str, cookie: Option<&str>, default: Option<&str>) -> Finder {
    Finder {
        hosts: ["{env}.preview.example.com", "{env}-shop.example.com"]
            .map(|text| text.parse().expect("a pattern"))
            .into(),
        header: HeaderName::from_static(header),
        cookie: cookie.map(str::to_owned),
        default: default.map(|env| env.parse().expect("a name")),
    }
}

#[test]
fn host_then_header_then_cookie_then_default() {
    let all = [("baggage", "x=1,env-id=of-header"), ("cookie", "a=b; env=of-cookie")];
    let finder = finder("baggage", Some("env"), Some("of-gateway"));
    for (host, lines, environment, source) in [
        ("of-host.preview.example.com", &all[..], "of-host", Source::Host),
        ("of-host-shop.example.com", &all[..], "of-host", Source::Host),
        ("example.com", &all[..], "of-header", Source::Header),
        ("example.com", &all[1..], "of-cookie", Source::Cookie),
        ("", &[], "of-gateway", Source::Default),
    ] {
        let (found, from) = finder.find(Host::of(host.as_bytes()), &headers(lines));
        assert_eq!(
            (found.as_ref().map(EnvId::as_str), from),
            (Some(environment), source),
            "{host} {lines:?}"
        );
    }
}

#[test]
fn none_at_all() {
    let found =
        finder("baggage", None, None).find(Host::of(b"example.com"), &headers(&[("cookie", "env=pr-1")]));
    assert_eq!(found, (None, Source::None));
}

#[test]
fn values_of_the_header_and_the_cookie() {
    let of_baggage = finder("baggage", Some("env"), None);
    let own = finder("x-env", Some("env"), None);
    for (finder, lines, environment) in [
        (&of_baggage, &[("baggage", "a=1"), ("baggage", "env-id=pr%2D1;p=2")][..], Some("pr-1")),
        (&of_baggage, &[("baggage", "env-id=")], None),
        (&of_baggage, &[("x-env", "pr-1")], None),
        (&own, &[("x-env", " pr-1 ")], Some("pr-1")),
        (&own, &[("x-env", ""), ("x-env", "pr-2")], Some("pr-2")),
        (&own, &[("baggage", "env-id=pr-1")], None),
        (&own, &[("cookie", "a=b"), ("cookie", "env=\"pr-3\"; c=d")], Some("pr-3")),
        (&own, &[("cookie", "xenv=pr-1; env-x=pr-1; env")], None),
        (&own, &[("cookie", "env=; env=pr-4")], Some("pr-4")),
    ] {
        let (found, _) = finder.find(Host::of(b"example.com"), &headers(lines));
        assert_eq!(found.as_ref().map(EnvId::as_str), environment, "{lines:?}");
    }
    let mut bytes = HeaderMap::new();
    bytes.insert("x-env", HeaderValue::from_bytes(b"\xff\xfe").expect("bytes"));
    assert_eq!(own.find(None, &bytes), (None, Source::None));
}
