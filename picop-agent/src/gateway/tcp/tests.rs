use std::time::Duration;

use super::*;
use crate::{
    gateway::testing::{accept, connect, expect, expect_end, header, listener, of, rest, rules, send},
    protocol::ExpectHeader,
};
use tokio::io::AsyncWriteExt as _;

async fn start(expect: ExpectHeader, destination: &str, life: &Life) -> std::net::SocketAddr {
    let (listener, at) = listener().await;
    let marker = Arc::new(Marker::new("pr-1".parse().expect("a name"), destination));
    let (rules, serving) = (rules(expect), life.clone());
    let accepting = life.accept(listener, 100, |_| {
        let (marker, serving) = (Arc::clone(&marker), serving.clone());
        move |client, peer| connection::serve(Arc::clone(&marker), rules, serving.clone(), client, peer)
    });
    accepting.expect("a listener");
    at
}

#[tokio::test]
async fn what_a_connection_begins_with() {
    let (server, to) = listener().await;
    let life = Life::default();
    let gateway = start(ExpectHeader::Always, &to.to_string(), &life).await;
    let traced = header(&[("Traceparent", "00-1-2-01")]);
    let both = header(&[("Env-Id", "pr-1"), ("Traceparent", "00-1-2-01")]);
    let baggage = header(&[("Baggage", "env-id=pr-3")]);
    for (sent, arrives) in [
        (vec![], of("pr-1")),
        (of("pr-2"), of("pr-2")),
        (baggage.clone(), baggage),
        (traced, both),
        (of(""), of("pr-1")),
    ] {
        let mut client = connect(gateway).await;
        send(&mut client, &[&sent[..], b"GET / HTTP/1.1\r\n"].concat()).await;
        let mut at_server = accept(&server).await;
        expect(&mut at_server, &arrives).await;
        expect(&mut at_server, b"GET / HTTP/1.1\r\n").await;
    }
}

#[test]
fn what_has_no_room_is_told() {
    let marker = Marker::new("pr-1".parse().expect("a name"), "cart:80");
    let baggage = format!("a=1,b={},c=3", "x".repeat(230));
    let context = Context::of_fields(vec![picop_common::header::Field::new("Baggage", &baggage)]).0;
    let route = marker.route(Some(&context.expect("a header")));
    assert_eq!(route.dropped, 2);
    assert_eq!(route.header.expect("a header").get("baggage"), Some(&b"a=1"[..]));
    assert_eq!(marker.route(None).dropped, 0);
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answer() {
    let (server, to) = listener().await;
    let life = Life::default();
    let gateway = start(ExpectHeader::Always, &to.to_string(), &life).await;
    let mut client = connect(gateway).await;
    send(&mut client, b"question").await;
    client.shutdown().await.expect("open");
    let mut at_server = accept(&server).await;
    let (question, end) = rest(&mut at_server).await;
    assert_eq!(question, [&of("pr-1")[..], b"question"].concat());
    end.expect("a FIN");
    send(&mut at_server, b"answer").await;
    drop(at_server);
    expect(&mut client, b"answer").await;
    expect_end(&mut client).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_gets_the_header_at_once() {
    let (server, to) = listener().await;
    let life = Life::default();
    let gateway = start(ExpectHeader::Sniff(Duration::from_millis(1)), &to.to_string(), &life).await;
    let mut client = connect(gateway).await;
    let mut at_server = accept(&server).await;
    expect(&mut at_server, &of("pr-1")).await;
    send(&mut at_server, b"220 hello").await;
    expect(&mut client, b"220 hello").await;
    send(&mut client, b"QUIT").await;
    expect(&mut at_server, b"QUIT").await;
}
