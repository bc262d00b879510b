//! Bodies that come bit by bit, and go on as they come.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Channel};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{super::*, scene::*};
use crate::gateway::testing::{accept as accept_one, connect, expect, listener, of, rest, send, within};

/// A client may well say all it has before it reads a word, while the server answers all along.
#[tokio::test]
async fn a_request_goes_on_while_nobody_reads_the_answer() {
    const MUCH: usize = 16 << 20;
    let (server, to) = listener().await;
    let (at, _edge) = begin(edge_to(to, &Life::default()), None).await;
    let serving = tokio::spawn(async move {
        let mut peer = accept_one(&server).await;
        expect(&mut peer, &of("a")).await;
        while !matches!(within(peer.read_u8()).await, Ok(b'!')) {}
        let (mut reading, mut writing) = peer.into_split();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
        let asked = async {
            let mut rest = vec![0; MUCH - 1];
            reading.read_exact(&mut rest).await
        };
        let answer = [head.as_bytes(), &vec![b'a'; MUCH]].concat();
        let (asked, answered) = within(async { tokio::join!(asked, writing.write_all(&answer)) }).await;
        asked.expect("all that was asked");
        answered.expect("somebody listens");
        writing
    });
    let mut client = connect(at).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a.preview.localhost\r\nContent-Length: {MUCH}\r\n\r\n!");
    send(&mut client, &[head.as_bytes(), &vec![b'q'; MUCH - 1]].concat()).await;
    let mut answer = Vec::new();
    let reading = async {
        while !answer.ends_with(b"a") || answer.len() < MUCH {
            assert_ne!(client.read_buf(&mut answer).await.expect("an answer"), 0, "{} bytes", answer.len());
        }
    };
    within(reading).await;
    within(serving).await.expect("no panic");
}

/// A server that has answered may let the rest of the request lie. Its client is not kept for that.
#[tokio::test]
async fn a_server_that_answers_and_reads_no_more() {
    let (server, to) = listener().await;
    let life = Life::default();
    let (at, _edge) = begin(edge_to(to, &life), None).await;
    let mut client = connect(at).await;
    let head = "POST / HTTP/1.1\r\nHost: a.preview.localhost\r\nContent-Length: 100000000\r\n\r\n!";
    send(&mut client, head.as_bytes()).await;
    let (mut asking, mut saying) = client.into_split();
    let sending = tokio::spawn(async move { drop(saying.write_all(&vec![b'q'; 90_000_000]).await) });
    let mut peer = accept_one(&server).await;
    expect(&mut peer, &of("a")).await;
    while !matches!(within(peer.read_u8()).await, Ok(b'!')) {}
    send(&mut peer, b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await;
    let mut answer = Vec::new();
    let reading = async {
        while !answer.ends_with(b"big") {
            assert_ne!(asking.read_buf(&mut answer).await.expect("an answer"), 0);
        }
    };
    within(reading).await;
    sending.abort();
    drop(within(sending).await);
    drop(asking);
    until(|| life.connections() == 0).await;
}

/// The client gets a piece before the server has sent the next one, and the other way round.
#[tokio::test]
async fn both_ways_at_once() {
    let (server, to) = listener().await;
    let (at, edge) = begin(edge_to(to, &Life::default()), None).await;
    let (mut sender, connection) =
        http1::handshake::<_, Channel<Bytes, Infallible>>(TokioIo::new(connect(at).await))
            .await
            .expect("open");
    tokio::spawn(connection);
    let (mut up, body) = Channel::new(1);
    let request = Request::post("/").header("host", "a.preview.localhost").body(body).expect("a request");
    let asking = sender.send_request(request);
    let serving = async {
        let mut peer = accept_one(&server).await;
        expect(&mut peer, &of("a")).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(peer.read_u8()).await.expect("a request"));
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        send(&mut peer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        peer
    };
    let (answer, mut peer) = within(async { tokio::join!(asking, serving) }).await;
    let mut down = answer.expect("an answer").into_body();
    for number in 0..10 {
        let piece = format!("piece{number}");
        within(up.send_data(piece.clone().into())).await.expect("room");
        let chunk = format!("6\r\n{piece}\r\n");
        expect(&mut peer, chunk.as_bytes()).await;
        send(&mut peer, chunk.as_bytes()).await;
        let frame = within(down.frame()).await.expect("a frame").expect("whole");
        assert_eq!(frame.into_data().expect("data"), piece);
    }
    drop(up);
    expect(&mut peer, b"0\r\n\r\n").await;
    send(&mut peer, b"0\r\n\r\n").await;
    assert!(within(down.frame()).await.is_none());
    until(|| edge.pool.count() == 1).await;
}

/// Of another protocol, either direction may end before the other.
#[tokio::test]
async fn a_tunnel_whose_server_ends_first() {
    let (server, to) = listener().await;
    let life = Life::default();
    let (at, _edge) = begin(edge_to(to, &life), None).await;
    let serving = tokio::spawn(async move {
        let mut peer = accept_one(&server).await;
        expect(&mut peer, &of("a")).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(peer.read_u8()).await.expect("a request"));
        }
        send(&mut peer, b"HTTP/1.1 101 .\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nall I say").await;
        peer.shutdown().await.expect("open");
        rest(&mut peer).await.0
    });
    let mut client = connect(at).await;
    let head = "GET / HTTP/1.1\r\nHost: a.preview.localhost\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    send(&mut client, head.as_bytes()).await;
    let told = rest(&mut client).await.0;
    assert!(told.ends_with(b"\r\n\r\nall I say"), "{}", told.escape_ascii());
    send(&mut client, b"and I go on").await;
    client.shutdown().await.expect("open");
    assert_eq!(within(serving).await.expect("no panic"), b"and I go on");
    until(|| life.connections() == 0).await;
}
