use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{connect, curl};
use crate::gateway::{
    args::{ConnectArgs, CurlArgs},
    testing::{accept, expect, http_server, listener, of, rest, send, within},
};

#[derive(Parser)]
struct CurlLine {
    #[command(flatten)]
    args: CurlArgs,
}

#[derive(Parser)]
struct ConnectLine {
    #[command(flatten)]
    args: ConnectArgs,
}

fn curl_args(args: &[&str]) -> CurlArgs {
    CurlLine::try_parse_from(["curl"].iter().chain(args)).expect("a command line").args
}

/// A server that says what it was asked.
async fn telling() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let at = http_server(move |request: Request<Incoming>| {
        let told = Arc::clone(&told);
        async move {
            let header = |name: &str| {
                let value = request.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
                value.unwrap_or_default()
            };
            let line = format!(
                "{} {} host={} x={} type={}",
                request.method(),
                request.uri(),
                header("host"),
                header("x-own"),
                header("content-type")
            );
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            told.lock().expect("no panic").push(format!("{line} {}", String::from_utf8_lossy(&body)));
            let mut answer = Response::new(Full::new(Bytes::from_static(b"the answer\n")));
            *answer.status_mut() = StatusCode::IM_A_TEAPOT;
            answer
        }
    })
    .await;
    (at, seen)
}

#[tokio::test]
async fn what_curl_sends_and_prints() {
    let (at, seen) = telling().await;
    let url = format!("http://{at}/a?b=c");
    let form = "application/x-www-form-urlencoded";
    for (args, asked) in [
        (vec!["--url", &url], format!("GET /a?b=c host={at} x= type= ")),
        (vec!["--url", &url, "--data", "q=1"], format!("POST /a?b=c host={at} x= type={form} q=1")),
        (
            vec!["--url", &url, "--method", "PUT", "-H", "X-Own: 1", "-H", "Host: other", "--data", "q"],
            format!("PUT /a?b=c host=other x=1 type={form} q"),
        ),
    ] {
        let mut out = Vec::new();
        within(curl::run(curl_args(&args), &mut out)).await.expect("an answer");
        assert_eq!(String::from_utf8(out).expect("text"), "the answer\n");
        assert_eq!(seen.lock().expect("no panic").pop(), Some(asked));
    }
    let mut out = Vec::new();
    within(curl::run(curl_args(&["--url", &url, "-i"]), &mut out)).await.expect("an answer");
    let out = String::from_utf8(out).expect("text");
    assert!(
        out.starts_with("HTTP/1.1 418 I'm a teapot\r\n") && out.ends_with("\r\n\r\nthe answer\n"),
        "{out}"
    );
}

#[tokio::test]
async fn curl_begins_with_a_header() {
    let (listener, at) = listener().await;
    let url = format!("http://{at}");
    let args = curl_args(&["--env-id", "pr-1", "--url", &url]);
    let asking = tokio::spawn(async move {
        let mut out = Vec::new();
        curl::run(args, &mut out).await.map(|_| out)
    });
    let mut served = accept(&listener).await;
    expect(&mut served, &of("pr-1")).await;
    expect(&mut served, b"GET / HTTP/1.1\r\n").await;
    send(&mut served, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(within(asking).await.expect("no panic").expect("an answer"), b"ok");
}

#[tokio::test]
async fn what_curl_cannot_do_is_said() {
    let (nobody, at) = listener().await;
    drop(nobody);
    for (url, words) in [
        ("ftp://localhost/", "http://HOST"),
        ("localhost", "http://HOST"),
        ("http://localhost:65536/", "http://HOST"),
        (&*format!("http://{at}/"), "cannot connect"),
    ] {
        let error = within(curl::run(curl_args(&["--url", url]), &mut Vec::new())).await.expect_err(url);
        assert!(error.to_string().contains(words), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_conversation_that_is_half_closed() {
    let (listener, at) = listener().await;
    let args = ConnectLine::try_parse_from(["connect", "pr-1", &at.to_string()]).expect("arguments").args;
    let (mut input, theirs) = tokio::io::duplex(64);
    let (output, mut printed) = tokio::io::duplex(64);
    let connecting = tokio::spawn(async move { connect::run(&args, theirs, output).await });
    let mut served = accept(&listener).await;
    // The server may speak first: the header is there before anything is typed.
    expect(&mut served, &of("pr-1")).await;
    send(&mut served, b"hello").await;
    let mut got = [0; 5];
    within(printed.read_exact(&mut got)).await.expect("what the server said");
    assert_eq!(&got, b"hello");
    input.write_all(b"question").await.expect("open");
    drop(input);
    let (question, end) = rest(&mut served).await;
    assert_eq!(question, b"question");
    end.expect("a FIN");
    send(&mut served, b"answer").await;
    drop(served);
    let mut answer = Vec::new();
    within(printed.read_to_end(&mut answer)).await.expect("the rest");
    assert_eq!(answer, b"answer");
    within(connecting).await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_server_that_ends_first() {
    let (listener, at) = listener().await;
    let args = ConnectLine::try_parse_from(["connect", "pr-1", &at.to_string()]).expect("arguments").args;
    let (_input, theirs) = tokio::io::duplex(64);
    let connecting = tokio::spawn(async move { connect::run(&args, theirs, tokio::io::sink()).await });
    let mut served = accept(&listener).await;
    expect(&mut served, &of("pr-1")).await;
    drop(served);
    within(connecting).await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_server_that_half_closes_first_gets_all_there_is() {
    let (listener, at) = listener().await;
    let args = ConnectLine::try_parse_from(["connect", "pr-1", &at.to_string()]).expect("arguments").args;
    let all: Vec<u8> = (0..5_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let input = std::io::Cursor::new(all.clone());
    let connecting = tokio::spawn(async move { connect::run(&args, input, tokio::io::sink()).await });
    let mut served = accept(&listener).await;
    served.shutdown().await.expect("open");
    expect(&mut served, &of("pr-1")).await;
    let (got, end) = rest(&mut served).await;
    assert!(got == all, "{} of {} bytes", got.len(), all.len());
    end.expect("a FIN");
    within(connecting).await.expect("no panic").expect("an orderly end");
}

mod https;
