//! The double keeps the API's contract: without that, what picop does against it shows nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;
use crate::wait::eventually;

const SOON: Duration = Duration::from_secs(10);

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.10"}})
}

fn open(server: &ApiServer, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server.addr())?;
    stream.set_read_timeout(Some(SOON))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: double\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    )?;
    Ok(stream)
}

/// An answer's status and body.
fn get(server: &ApiServer, path: &str) -> Result<(u16, Value)> {
    let mut text = String::new();
    open(server, path)?.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status")?;
    Ok((code, serde_json::from_str(body).unwrap_or_default()))
}

/// The first events of a watch, as they come, without bookmarks.
fn events(stream: &mut TcpStream, count: usize) -> Result<Vec<Value>> {
    let mut text = String::new();
    loop {
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let events: Vec<_> = events
            .into_iter()
            .filter(|it: &Value| it["type"].is_string() && it["type"] != "BOOKMARK")
            .collect();
        if events.len() >= count {
            return Ok(events);
        }
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes)?;
        anyhow::ensure!(read > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
}

const SERVICES: &str = "/api/v1/services";

#[test]
fn lists_come_in_pages_of_one_version() -> Result<()> {
    let server = ApiServer::start()?;
    server.apply_all((0..5).map(|n| service(&format!("s{n}"))))?;
    let (_, first) = get(&server, &format!("{SERVICES}?limit=2"))?;
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
    assert!(first["items"][0]["kind"].is_null(), "items of built-in kinds do not say their kind");
    server.delete(Kind::Service, "shop", "s4")?;
    let (mut seen, mut page) = (2, first.clone());
    while let Some(token) = page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
        page = get(&server, &format!("{SERVICES}?limit=2&continue={token}"))?.1;
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        seen += page["items"].as_array().map_or(0, Vec::len);
    }
    assert_eq!(seen, 5, "as it was when the list began");
    let token = first["metadata"]["continue"].as_str().unwrap_or_default();
    server.compact();
    assert_eq!(get(&server, &format!("{SERVICES}?limit=2&continue={token}"))?.0, 410);
    Ok(())
}

#[test]
fn watches_go_on_from_a_version() -> Result<()> {
    let server = ApiServer::start()?;
    server.apply(service("before"))?;
    let from =
        get(&server, SERVICES)?.1["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    server.apply(service("after"))?;
    let mut watch =
        open(&server, &format!("{SERVICES}?watch=true&resourceVersion={from}&allowWatchBookmarks=true"))?;
    server.edit(Kind::Service, "shop", "before", |it| it["metadata"]["labels"] = json!({"a": "b"}))?;
    server.delete(Kind::Service, "shop", "after")?;
    let events = events(&mut watch, 3)?;
    let what: Vec<_> = events
        .iter()
        .map(|it| {
            format!(
                "{} {}",
                it["type"].as_str().unwrap_or("-"),
                it["object"]["metadata"]["name"].as_str().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(what, ["ADDED after", "MODIFIED before", "DELETED after"]);
    let versions: Vec<_> =
        events.iter().map(|it| it["object"]["metadata"]["resourceVersion"].clone()).collect();
    assert_eq!(versions, ["2", "3", "4"]);
    // A version that is forgotten.
    server.apply(service("more"))?;
    server.compact();
    let mut watch = open(&server, &format!("{SERVICES}?watch=true&resourceVersion={from}"))?;
    assert_eq!(self::events(&mut watch, 1)?[0]["object"]["code"], 410);
    server.fail(|faults| faults.gone_at_once = true);
    assert_eq!(get(&server, &format!("{SERVICES}?watch=true&resourceVersion={from}"))?.0, 410);
    Ok(())
}

#[test]
fn a_selection_is_entered_and_left() -> Result<()> {
    let server = ApiServer::start()?;
    let pod = |node: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"nodeName": node}});
    server.apply(pod(""))?;
    let path = "/api/v1/pods?watch=1&resourceVersion=0&fieldSelector=spec.nodeName%3Dnode-1";
    let mut watch = open(&server, path)?;
    server.apply(pod("node-1"))?;
    server.apply(pod("node-2"))?;
    let what: Vec<_> = events(&mut watch, 2)?.iter().map(|it| it["type"].clone()).collect();
    assert_eq!(what, ["ADDED", "DELETED"]);
    Ok(())
}

#[test]
fn it_fails_as_it_is_told() -> Result<()> {
    let server = ApiServer::start()?;
    server.fail(|faults| faults.unauthorized = true);
    assert_eq!(get(&server, SERVICES)?.0, 401);
    server.fail(|faults| *faults = Faults { forbidden: true, ..Faults::default() });
    assert_eq!(get(&server, SERVICES)?.0, 403);
    server.fail(|faults| *faults = Faults::default());
    assert_eq!(get(&server, SERVICES)?.0, 200);
    let environments = "/apis/picop.dev/v1alpha1/environments";
    assert_eq!(get(&server, environments)?.0, 200);
    server.set_definitions(false);
    assert_eq!(get(&server, environments)?.0, 404);
    // Gone: what runs is cut, and nothing answers.
    let mut watch = open(&server, &format!("{SERVICES}?watch=true&resourceVersion=0"))?;
    assert!(eventually(SOON, || server.watches() == 1));
    server.set_there(false);
    let mut rest = Vec::new();
    // Cut in order or by a reset.
    watch.read_to_end(&mut rest).ok();
    assert!(get(&server, SERVICES).is_err());
    server.set_there(true);
    assert_eq!(get(&server, SERVICES)?.0, 200);
    assert!(eventually(SOON, || server.watches() == 0));
    Ok(())
}
