//! Clients that keep their connections, and use them for whatever they ask next.

use std::sync::atomic::Ordering;

use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{super::*, scene::*};
use crate::gateway::testing::{text, within};

#[tokio::test]
async fn two_environments_over_one_connection_never_mix() {
    let (server, connections) = server().await;
    let (at, _edge) = begin(edge_to(server, &Life::default()), None).await;
    let mut client = client(at).await;
    for number in 0..200 {
        let env = if number % 2 == 0 { "pr-1" } else { "pr-2" };
        let host = format!("{env}.preview.localhost:8080");
        let path = format!("/{number}");
        let body = if number % 3 == 0 { "body" } else { "" };
        let (status, told) = ask(&mut client, request(&host, &path, body)).await;
        assert_eq!((status, told), (StatusCode::OK, format!("{env} {path} {host} http {body}")));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 2, "one for each environment");
}

#[tokio::test]
async fn requests_at_once_over_one_connection_never_mix() {
    for is_http2 in [false, true] {
        let (server, connections) = server().await;
        let (at, _edge) = begin(Edge { is_http2, ..edge_to(server, &Life::default()) }, None).await;
        let client = client2(at).await;
        let asking = (0..200).map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move {
                let env = format!("pr-{}", number % 7);
                let uri = format!("http://{env}.preview.localhost/{number}");
                let request = Request::get(uri).body(http_body_util::Full::default()).expect("a request");
                let answer = within(client.send_request(request)).await.expect("an answer");
                assert!(!answer.headers().contains_key("keep-alive"), "that is of one hop");
                let told = text(answer).await;
                assert_eq!(told, format!("{env} /{number} {env}.preview.localhost http "));
            })
        });
        for asked in asking.collect::<Vec<_>>() {
            within(asked).await.expect("the right answer");
        }
        let made = connections.load(Ordering::Relaxed);
        assert!(if is_http2 { made == 7 } else { made >= 7 }, "{made} connections, HTTP/2: {is_http2}");
    }
}

#[tokio::test]
async fn every_way_to_name_an_environment() {
    let (server, _) = server().await;
    let life = Life::default();
    let (at, _edge) = begin(edge_to(server, &life), None).await;
    let mut client = client(at).await;
    for (name, value, env) in [
        ("baggage", "env-id=pr-3", "pr-3"),
        ("cookie", "a=b; env=pr-4", "pr-4"),
        ("x-nothing", "pr-5", "none"),
    ] {
        let mut request = request("example.com", "/", "");
        request.headers_mut().insert(name, value.parse().expect("a value"));
        assert_eq!(ask(&mut client, request).await.1, format!("{env} / example.com http "));
    }
    let mut edge = edge_to(server, &life);
    edge.finder.default = Some("main".parse().expect("a name"));
    let (at, _edge) = begin(edge, None).await;
    let mut client = super::scene::client(at).await;
    assert_eq!(ask(&mut client, request("example.com", "/", "")).await.1, "main / example.com http ");
}

#[tokio::test]
async fn another_protocol_is_carried() {
    let (server, _) = server().await;
    let life = Life::default();
    let (at, edge) = begin(edge_to(server, &life), None).await;
    let mut client = client(at).await;
    // The connection is one that was used before.
    ask(&mut client, request("pr-1.preview.localhost", "/", "")).await;
    let mut upgrade = request("pr-1.preview.localhost", "/", "");
    upgrade.headers_mut().insert("connection", "keep-alive, Upgrade".parse().expect("a value"));
    upgrade.headers_mut().insert("upgrade", "echo".parse().expect("a value"));
    within(client.ready()).await.expect("a connection");
    let mut answer = within(client.send_request(upgrade)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["upgrade"], "echo");
    let upgraded = within(hyper::upgrade::on(&mut answer)).await.expect("an upgrade");
    let mut io = TokioIo::new(upgraded);
    let sent = vec![5; 100_000];
    let (mut reading, mut writing) = tokio::io::split(&mut io);
    let echo = async {
        let mut got = vec![0; 5 + sent.len()];
        reading.read_exact(&mut got).await.expect("an echo");
        got
    };
    let (got, sending) = within(async { tokio::join!(echo, writing.write_all(&sent)) }).await;
    sending.expect("sent");
    assert_eq!((&got[..5], got[5..] == sent[..]), (&b"pr-1:"[..], true));
    assert_eq!(edge.pool.count(), 0, "its connection is nobody else's");
    writing.shutdown().await.expect("open");
    let mut rest = Vec::new();
    within(reading.read_to_end(&mut rest)).await.expect("the end of the echo");
    assert_eq!(rest, b"");
    assert_eq!(within(life.drain(Duration::from_secs(20))).await, 0, "nothing is left of it");
}

#[tokio::test]
async fn an_orderly_end_finishes_what_was_begun() {
    let (server, _) = server().await;
    let life = Life::default();
    let (at, edge) = begin(edge_to(server, &life), None).await;
    let mut client = client(at).await;
    ask(&mut client, request("pr-1.preview.localhost", "/", "")).await;
    until(|| edge.pool.count() == 1).await;
    assert_eq!(within(life.drain(Duration::from_secs(20))).await, 0, "an idle client is in nobody's way");
    let late = within(client.send_request(request("pr-1.preview.localhost", "/", ""))).await;
    assert!(late.is_err(), "its connection was closed");
}
