use std::ffi::OsString;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: GatewayCommand,
}

fn parse(line: &str) -> Result<GatewayCommand, clap::Error> {
    let args = go_style(["picop", "gateway"].into_iter().chain(line.split(' ')).map(OsString::from));
    Line::try_parse_from(args.into_iter().skip(1)).map(|line| line.command)
}

fn proxy(line: &str) -> ProxyArgs {
    match parse(line) {
        Ok(GatewayCommand::Proxy(args)) => args,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_references_proxy() {
    let args = proxy(
        "proxy --proxy-port 9100 --admin-port 9101 --default-addr localhost:9002 --propagate true \
         --controller-url http://controller:8080 --id cart --buf 4096",
    );
    assert_eq!((args.proxy_port, args.admin_port, args.buf), (9100, 9101, 4096));
    assert_eq!(args.default_addr, Some(MaybeDestination(Some("localhost:9002".to_owned()))));
    assert_eq!(args.controller_url.map(|url| url.to_string()).as_deref(), Some("http://controller:8080/"));
    assert_eq!(args.id.as_deref(), Some("cart"));

    assert_eq!(args.endpoint, None);
    assert_eq!(proxy("proxy --id cart --endpoint auto").endpoint, Some(Place::Own));
    let there = Uri::from_static("http://cart:9001");
    assert_eq!(proxy("proxy --id cart --endpoint http://cart:9001").endpoint, Some(Place::At(there)));

    let args = proxy("proxy");
    assert_eq!((args.proxy_port, args.admin_port, args.buf), (9000, 9001, 32 * 1024));
    assert_eq!((args.default_addr, args.propagate), (None, true));
    assert_eq!(proxy("proxy --default-addr=").default_addr, Some(MaybeDestination(None)));
}

#[test]
fn propagate_as_a_go_flag() {
    for (line, propagate) in [
        ("proxy --propagate", true),
        ("proxy --propagate=true", true),
        ("proxy --propagate=false", false),
        ("proxy --propagate false", false),
        ("proxy -propagate=false", false),
        ("proxy --propagate --id cart", true),
    ] {
        assert_eq!(proxy(line).propagate, propagate, "{line}");
    }
}

#[test]
fn the_references_gateway() {
    for line in [
        "tcp --port 8001 --env-id pr-1 --destination proxy:9000",
        "tcp -port 8001 -env-id=pr-1 -destination proxy:9000",
    ] {
        let Ok(GatewayCommand::Tcp(args)) = parse(line) else { panic!("{line}") };
        assert_eq!((args.port, args.env_id.as_str(), &*args.destination), (8001, "pr-1", "proxy:9000"));
    }
}

#[test]
fn what_is_refused() {
    for (line, word) in [
        ("tcp --env-id pr-1", "--destination"),
        ("tcp --destination cart:80", "--env-id"),
        ("tcp --env-id pr-1 --destination cart", "HOST:PORT"),
        ("proxy --controller-url http://c:8080", "--id"),
        ("proxy --endpoint auto", "--id"),
        ("proxy --propagate perhaps", "perhaps"),
        ("proxy --buf 0", "bytes"),
        ("http --listen 127.0.0.1:0", "--upstream"),
        ("http --listen 127.0.0.1:0 --upstream c:80 --cookie a;b", "cookie's name"),
        ("http --listen 127.0.0.1:0 --upstream c:80 --tls-cert x", "--tls-key"),
        ("http --listen 127.0.0.1:0 --upstream c:80 --host-pattern preview.example.com", "{env}"),
    ] {
        let error = parse(line).expect_err(line).to_string();
        assert!(error.contains(word), "{line}: {error}");
    }
}

#[test]
fn destinations() {
    for good in ["cart:80", "10.0.0.7:80", "[fd00::7]:80", "a.b.svc.cluster.local:65535"] {
        assert_eq!(destination(good).as_deref(), Ok(good));
    }
    for bad in ["", "cart", ":80", "cart:", "cart:0", "cart:65536", "fd00::7:80", "http://cart:80", "a b:80"]
    {
        assert!(destination(bad).is_err(), "{bad}");
    }
}

#[test]
fn only_the_references_flags_get_a_dash() {
    let line = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    let curl = go_style(line("picop curl -env-id pr-1 -i -H x:y -url=http://a -data -- -x"));
    assert_eq!(curl, line("picop curl --env-id pr-1 -i -H x:y --url=http://a --data -- -x"));
    let other = line("picop run -env-id x");
    assert_eq!(go_style(other.clone()), other);
}
