//! What is kept of connections to the server, and what is not.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Response, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{super::*, scene::*};
use crate::gateway::testing::{accept as accept_one, expect, listener, of, send, within};

async fn visit(client: &mut Sender, edge: &Edge, env: &str, kept: usize) {
    let told = ask(client, request(&format!("{env}.preview.localhost"), "/", "")).await.1;
    assert!(told.starts_with(&format!("{env} /")), "{told}");
    until(|| edge.pool.count() == kept).await;
}

#[tokio::test]
async fn no_more_than_allowed_and_the_longest_idle_goes() {
    let (server, connections) = server().await;
    let mut edge = edge_to(server, &Life::default());
    edge.pool = Arc::new(Pool::new(2, Duration::from_secs(60)));
    let (at, edge) = begin(edge, None).await;
    let mut client = client(at).await;
    for (env, kept, made) in
        [("a", 1, 1), ("b", 2, 2), ("a", 2, 2), ("c", 2, 3), ("a", 2, 3), ("b", 2, 4), ("b", 2, 4)]
    {
        visit(&mut client, &edge, env, kept).await;
        // It is counted when it comes back, and another may still be on its way.
        let taken = connections.load(Ordering::Relaxed);
        assert_eq!(taken, made, "{env}");
    }
    edge.pool.close();
    assert_eq!(edge.pool.count(), 0);
    visit(&mut client, &edge, "a", 0).await;
}

#[tokio::test]
async fn not_longer_than_allowed() {
    let (server, connections) = server().await;
    let mut edge = edge_to(server, &Life::default());
    edge.pool = Arc::new(Pool::new(10, Duration::ZERO));
    let (at, edge) = begin(edge, None).await;
    let mut client = client(at).await;
    for made in 1..=3 {
        visit(&mut client, &edge, "a", 1).await;
        assert_eq!(connections.load(Ordering::Relaxed), made);
    }
    edge.pool.sweep();
    assert_eq!(edge.pool.count(), 0);
}

/// A route that changes must be followed by clients that never pause.
#[tokio::test]
async fn no_request_begins_on_a_connection_that_is_too_old() {
    for is_http2 in [false, true] {
        let (server, connections) = server().await;
        let mut edge = Edge { is_http2, ..edge_to(server, &Life::default()) };
        edge.connection_age = Duration::ZERO;
        let (at, edge) = begin(edge, None).await;
        let mut client = client(at).await;
        for made in 1..=3 {
            visit(&mut client, &edge, "a", 0).await;
            assert_eq!(connections.load(Ordering::Relaxed), made, "HTTP/2: {is_http2}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_no_failure() {
    let (server, at) = listener().await;
    let (gateway, _edge) = begin(edge_to(at, &Life::default()), None).await;
    let serving = tokio::spawn(async move {
        for _ in 0..50 {
            let mut peer = accept_one(&server).await;
            expect(&mut peer, &of("a")).await;
            // One request each, without a word of it.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(within(peer.read_u8()).await.expect("a request"));
            }
            send(&mut peer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    });
    let mut client = client(gateway).await;
    for number in 0..50 {
        let (status, told) = ask(&mut client, request("a.preview.localhost", "/", "")).await;
        assert_eq!((status.as_u16(), &*told), (200, "ok"), "request {number}");
    }
    within(serving).await.expect("no panic");
}

/// Its connection stays where it is, so nothing but the count ends this.
#[tokio::test]
async fn a_server_of_http2_that_resets_every_request_but_one() {
    let (server, at) = listener().await;
    let edge = Edge { is_http2: true, ..edge_to(at, &Life::default()) };
    let (gateway, _edge) = begin(edge, None).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut peer = accept_one(&server).await;
        expect(&mut peer, &of("a")).await;
        let service = service_fn(move |_| {
            let is_first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            let answer = Response::new(Full::<Bytes>::from("ok"));
            async move { if is_first { Ok(answer) } else { Err(io::Error::other("no")) } }
        });
        let serving = http2::Builder::new(TokioExecutor::new());
        drop(serving.serve_connection(TokioIo::new(peer), service).await);
    });
    let mut client = client(gateway).await;
    let statuses = [200, 502, 502];
    for (number, expected) in statuses.into_iter().enumerate() {
        let (status, words) = ask(&mut client, request("a.preview.localhost", "/", "")).await;
        assert_eq!(status.as_u16(), expected, "request {number}: {words}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 5, "each is sent again once");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_to_its_end() {
    let (server, at) = listener().await;
    let (gateway, edge) = begin(edge_to(at, &Life::default()), None).await;
    let mut client = client(gateway).await;
    let asking = client.send_request(request("a.preview.localhost", "/", ""));
    let serving = async {
        let mut peer = accept_one(&server).await;
        expect(&mut peer, &of("a")).await;
        send(&mut peer, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe first words").await;
        peer
    };
    let (answer, mut peer) = within(async { tokio::join!(asking, serving) }).await;
    let mut body = answer.expect("an answer").into_body();
    within(body.frame()).await.expect("a frame").expect("its first words");
    drop((body, client));
    // The gateway closes it.
    let mut rest = Vec::new();
    drop(within(peer.read_to_end(&mut rest)).await);
    assert_eq!(edge.pool.count(), 0);
    drop(peer.shutdown().await);
}
