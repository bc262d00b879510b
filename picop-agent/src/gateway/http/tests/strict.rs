//! What is not as HTTP has it goes no further, and what is goes on whole.

use std::{convert::Infallible, net::SocketAddr, sync::atomic::Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode, body::Frame, server::conn::http2, service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::{super::*, scene::*};
use crate::gateway::testing::{accept as accept_one, connect, expect, listener, of, rest, send, within};

/// What a client that says this is answered, up to these last words.
async fn answer(at: SocketAddr, request: &str, last: &str) -> String {
    let mut client = connect(at).await;
    send(&mut client, request.as_bytes()).await;
    let mut got = Vec::new();
    let reading = async {
        while !got.ends_with(last.as_bytes()) {
            if client.read_buf(&mut got).await.expect("an answer") == 0 {
                break;
            }
        }
    };
    within(reading).await;
    String::from_utf8(got).expect("text")
}

#[tokio::test]
async fn requests_that_go_no_further() {
    let (server, connections) = server().await;
    let (at, _edge) = begin(edge_to(server, &Life::default()), None).await;
    let chunked = "Host: a\r\nTransfer-Encoding: chunked";
    for (head, body, status, words) in [
        ("Host: pr-1.preview.localhost\r\nHost: pr-2.preview.localhost", "", 400, "more than one Host"),
        ("Host: a\r\nHost: a", "", 400, "more than one Host"),
        ("X-Host: a", "", 400, "no Host"),
        ("Host: a b", "", 400, "the Host is none"),
        ("Host: user@pr-1.preview.localhost", "", 400, "the Host is none"),
        ("Host: pr-1.preview.localhost/x", "", 400, "the Host is none"),
        ("Host: a\r\nTransfer-Encoding: gzip, chunked", "0\r\n\r\n", 501, "not coded otherwise"),
        ("Host: a\r\nContent-Length: 1\r\nContent-Length: 2", "ab", 400, ""),
        ("Host: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 5", "0\r\n\r\n", 400, ""),
        ("Host: a\r\nX: 1\r\n 2", "", 400, ""),
    ] {
        // Where there are no words of the gateway's own, the connection is closed.
        let last = if words.is_empty() { "\0".to_owned() } else { format!("{words}\n") };
        let got = answer(at, &format!("POST / HTTP/1.1\r\n{head}\r\n\r\n{body}"), &last).await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")) && got.contains(words), "{head}: {got}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 0, "the server has seen one of them");
    // These are found out on the way. It is not the server's fault.
    for body in ["zz\r\nabc\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "3\r\nabcd\r\n0\r\n\r\n"] {
        let got = answer(at, &format!("POST / HTTP/1.1\r\n{chunked}\r\n\r\n{body}"), "has it\n").await;
        assert!(got.starts_with("HTTP/1.1 400 ") && got.contains("the request's body"), "{body}: {got}");
    }
    for (head, body) in
        [("Host: a:80", ""), ("Host:", ""), ("Host: [::1]:80", ""), (chunked, "3;x=y\r\nabc\r\n0\r\n\r\n")]
    {
        let head = format!("POST / HTTP/1.1\r\nConnection: close\r\n{head}\r\n\r\n{body}");
        let got = answer(at, &head, "\0").await;
        assert!(got.starts_with("HTTP/1.1 200 "), "{head}: {got}");
    }
}

/// What comes after the first request's end is another request, whatever else its length was said to be.
#[tokio::test]
async fn two_lengths_of_a_request() {
    let (server, at) = listener().await;
    let (gateway, _edge) = begin(edge_to(at, &Life::default()), None).await;
    let mut client = connect(gateway).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.preview.localhost\r\n\r\n";
    let head = "POST / HTTP/1.1\r\nHost: a.preview.localhost\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n";
    send(&mut client, format!("{head}0\r\n\r\n{smuggled}").as_bytes()).await;
    let mut peer = accept_one(&server).await;
    expect(&mut peer, &of("a")).await;
    let head = head_of(&mut peer).await;
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
    expect(&mut peer, b"0\r\n\r\n").await;
    send(&mut peer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    // Of the two requests only the first is answered: the client's connection is not to be trusted any more.
    let mut got = String::new();
    within(client.read_to_string(&mut got)).await.expect("text");
    assert!(got.ends_with("\r\n\r\nok"), "{got}");
}

async fn head_of(peer: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(peer.read_u8()).await.expect("a request"));
    }
    String::from_utf8(head).expect("text").to_lowercase()
}

/// A server that answers one request with this.
async fn says(listener: TcpListener, words: &'static str) -> tokio::net::TcpStream {
    let mut peer = accept_one(&listener).await;
    expect(&mut peer, &of("a")).await;
    head_of(&mut peer).await;
    send(&mut peer, words.as_bytes()).await;
    peer
}

const ASK: &str = "GET / HTTP/1.1\r\nHost: a.preview.localhost\r\nTE: trailers\r\nConnection: TE\r\n\r\n";

#[tokio::test]
async fn two_lengths_of_an_answer() {
    let (server, at) = listener().await;
    let (gateway, edge) = begin(edge_to(at, &Life::default()), None).await;
    let both =
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let serving = tokio::spawn(says(server, both));
    let got = answer(gateway, ASK, "0\r\n\r\n").await.to_lowercase();
    assert!(got.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n") && !got.contains("content-length"), "{got}");
    until(|| edge.pool.count() == 1).await;
    drop(within(serving).await);
}

#[tokio::test]
async fn an_answer_that_is_coded_for_one_hop() {
    let (server, at) = listener().await;
    let (gateway, _edge) = begin(edge_to(at, &Life::default()), None).await;
    let coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let serving = tokio::spawn(says(server, coded));
    let got = answer(gateway, ASK, "chunks\n").await;
    assert!(got.starts_with("HTTP/1.1 502 "), "{got}");
    drop(within(serving).await);
}

#[tokio::test]
async fn trailers_end_an_answer() {
    let (server, at) = listener().await;
    let (gateway, edge) = begin(edge_to(at, &Life::default()), None).await;
    let words = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n";
    let serving = tokio::spawn(says(server, words));
    let got = answer(gateway, ASK, "42\r\n\r\n").await;
    assert!(got.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{got}");
    // Its connection is used again, and it is no answer that the client has not waited for.
    until(|| edge.pool.count() == 1).await;
    let told = format!("{:?}", edge.life.metrics().gather());
    assert!(told.contains("\"ok\"") && !told.contains("\"client_reset\""), "{told}");
    drop(within(serving).await);
}

/// As gRPC has it: HTTP/2 on both sides, bodies both ways, and the status in the trailers.
#[tokio::test]
async fn trailers_over_http2() {
    let (server, at) = listener().await;
    let (gateway, _edge) = begin(Edge { is_http2: true, ..edge_to(at, &Life::default()) }, None).await;
    tokio::spawn(async move {
        let (env, stream, read) = opened(accept_one(&server).await).await;
        let (reading, writing) = stream.into_split();
        let io = TokioIo::new(tokio::io::join(std::io::Cursor::new(read).chain(reading), writing));
        let env = env.expect("an environment");
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let env = env.clone();
            async move {
                assert_eq!(request.headers()["te"], "trailers");
                let asked = request.into_body().collect().await.expect("a body");
                let mut trailers = asked.trailers().cloned().unwrap_or_default();
                trailers.insert("grpc-status", "0".parse().expect("a value"));
                let data = Bytes::from(format!("{env} {}", String::from_utf8_lossy(&asked.to_bytes())));
                let frames = [Frame::data(data), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
                Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
            }
        });
        drop(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
    });
    let mut client = client2_of(gateway).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().expect("a value"));
    let body = Full::new(Bytes::from_static(b"question")).with_trailers(async move { Some(Ok(trailers)) });
    let request = Request::post("http://a.preview.localhost/pkg.Service/Method").header("te", "trailers");
    let answer = within(client.send_request(request.body(body.boxed()).expect("a request"))).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let whole = within(answer.into_body().collect()).await.expect("a body");
    let trailers = whole.trailers().cloned().expect("trailers");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-sum"]),
        (&"0".parse().expect("a value"), &"7".parse().expect("a value"))
    );
    assert_eq!(whole.to_bytes(), "a question");
}

async fn client2_of(at: SocketAddr) -> hyper::client::conn::http2::SendRequest<Body> {
    let io = TokioIo::new(connect(at).await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

/// What a client speaks shows in its first bytes, however few of them come at once.
#[tokio::test]
async fn clients_that_begin_slowly() {
    let (server, _) = server().await;
    let (at, _edge) = begin(edge_to(server, &Life::default()), None).await;
    let slowly = async |bytes: &[u8]| {
        let mut client = connect(at).await;
        for byte in bytes {
            send(&mut client, &[*byte]).await;
            tokio::task::yield_now().await;
        }
        client
    };
    for method in ["GET", "PUT", "PRI"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a.preview.localhost\r\nConnection: close\r\n\r\n");
        let mut client = slowly(head.as_bytes()).await;
        let (answer, _) = rest(&mut client).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", answer.escape_ascii());
    }
    // And a SETTINGS frame (RFC 9113, 6.5), which the other side answers with one.
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut client = slowly(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).await;
    let mut frame = [0; 9];
    within(client.read_exact(&mut frame)).await.expect("a frame");
    assert_eq!(frame[3], 4, "{frame:?}");
}
