//! Servers that are not there, or not well.

use std::net::SocketAddr;

use hyper::StatusCode;

use super::{super::*, scene::*};
use crate::gateway::testing::{
    accept as accept_one, connect, expect, expect_end, header, listener, of, rest, send, within,
};

async fn status_from(upstream: SocketAddr, answer_timeout: Duration) -> (StatusCode, String) {
    let edge = Edge { limits: Limits::new(answer_timeout), ..edge_to(upstream, &Life::default()) };
    let (at, _edge) = begin(edge, None).await;
    ask(&mut client(at).await, request("pr-1.preview.localhost", "/", "")).await
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn nobody_is_there() {
    let (nobody, at) = listener().await;
    drop(nobody);
    let (status, words) = status_from(at, LONG).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(words, "picop gateway: the server cannot be reached (environment pr-1)\n");
}

#[tokio::test]
async fn nobody_answers() {
    let (server, at) = listener().await;
    let (status, words) = status_from(at, Duration::from_millis(50)).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(words.contains("did not begin to answer within 50ms (environment pr-1)"), "{words}");
    drop(server);
}

#[tokio::test]
async fn more_requests_at_once_than_allowed() {
    let (server, at) = listener().await;
    let mut edge = edge_to(at, &Life::default());
    edge.places = Places::new(1);
    let (gateway, edge) = begin(edge, None).await;
    let (mut first, mut second) = (client(gateway).await, client(gateway).await);
    let asking =
        tokio::spawn(async move { ask(&mut first, request("pr-1.preview.localhost", "/", "")).await });
    let mut peer = accept_one(&server).await;
    let (status, words) = ask(&mut second, request("pr-1.preview.localhost", "/", "")).await;
    assert_eq!(
        (status, &*words),
        (StatusCode::SERVICE_UNAVAILABLE, "picop gateway: too many requests at once\n")
    );
    send(&mut peer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let (status, told) = within(asking).await.expect("no panic");
    assert_eq!((status, &*told), (StatusCode::OK, "ok"));
    until(|| edge.places.free() == 1).await;
}

#[tokio::test]
async fn no_http() {
    let (server, at) = listener().await;
    tokio::spawn(async move {
        let mut peer = accept_one(&server).await;
        send(&mut peer, b"220 smtp.example.com\r\n").await;
        drop(rest(&mut peer).await);
    });
    let (status, words) = status_from(at, LONG).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(words.contains("did not speak HTTP"), "{words}");
}

#[tokio::test]
async fn what_is_not_for_a_gateway() {
    let (server, _) = server().await;
    let (at, _edge) = begin(edge_to(server, &Life::default()), None).await;
    for (line, status) in [
        ("CONNECT example.com:80 HTTP/1.1\r\nHost: example.com\r\n\r\n", "501"),
        ("OPTIONS * HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n", "200"),
        ("GET / HTTP/1.0\r\n\r\n", "200"),
    ] {
        let mut client = connect(at).await;
        send(&mut client, line.as_bytes()).await;
        let mut got = [0; 12];
        let reading = tokio::io::AsyncReadExt::read_exact(&mut client, &mut got);
        within(reading).await.expect("an answer");
        assert_eq!(std::str::from_utf8(&got[9..]), Ok(status), "{line}");
    }
    let mut client = connect(at).await;
    send(&mut client, &header(&[("Env-Id", "pr-1")])).await;
    let (answer, _) = rest(&mut client).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", answer.escape_ascii());
}

#[tokio::test]
async fn clients_that_say_nothing() {
    let (server, _) = server().await;
    let (listener, at) = listener().await;
    let edge = Arc::new(edge_to(server, &Life::default()));
    let patience = Patience { first: Duration::from_millis(50), next: LONG };
    accept(listener, 1, &[Arc::clone(&edge)], None, patience).expect("a listener");
    let mut silent = connect(at).await;
    expect_end(&mut silent).await;
    let mut client = client(at).await;
    assert_eq!(ask(&mut client, request("pr-1.preview.localhost", "/", "")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn clients_that_have_nothing_more_to_say() {
    let (slow, slow_at) = listener().await;
    let (server, _) = server().await;
    let (asked, at_slow) = tokio::sync::oneshot::channel();
    let (ended, other_ended) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut peer = accept_one(&slow).await;
        expect(&mut peer, &of("slow")).await;
        asked.send(()).expect("a test");
        other_ended.await.expect("a test");
        send(&mut peer, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        drop(rest(&mut peer).await);
    });
    let at = async |upstream| {
        let (listener, at) = listener().await;
        let patience = Patience { first: LONG, next: Duration::from_millis(50) };
        let edge = Arc::new(edge_to(upstream, &Life::default()));
        accept(listener, 10, &[edge], None, patience).expect("a listener");
        at
    };
    // One that waits for an answer is not silent, for as long as the other needs to be found to be.
    let mut waits = client(at(slow_at).await).await;
    let waiting =
        tokio::spawn(async move { ask(&mut waits, request("slow.preview.localhost", "/", "")).await });
    within(at_slow).await.expect("a request");
    let mut silent = connect(at(server).await).await;
    send(&mut silent, b"GET / HTTP/1.1\r\nHost: pr-1.preview.localhost\r\n\r\n").await;
    let (answer, _) = rest(&mut silent).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", answer.escape_ascii());
    ended.send(()).expect("a server");
    assert_eq!(within(waiting).await.expect("an answer"), (StatusCode::OK, "ok".to_owned()));
}
