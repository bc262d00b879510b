//! Asks a gateway for HTTP what gateways are asked, as both its clients and its server: what a build is shown that is laid out by
//! what it was seen doing (`cargo xtask dist`).
//!
//! It is of many kinds: environments by host, header and cookie; browsers' requests and short ones; bodies both ways, of known and
//! unknown length; connections kept, and for one request; HTTP/2. Every answer is looked at.

mod gateway;
mod server;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, REFERER, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

#[derive(clap::Args)]
pub struct Args {
    /// The program that is the gateway
    #[arg(long)]
    picop: PathBuf,
    /// Requests in all
    #[arg(long, default_value_t = 24_000)]
    requests: usize,
}

/// Below it, hosts name environments.
const DOMAIN: &str = "train.localhost";
const ENVIRONMENTS: usize = 5;
/// Bytes of bodies.
const SIZES: [usize; 6] = [0, 120, 700, 3_000, 12_000, 60_000];
/// Clients at once that keep their connection, and that do not.
const CLIENTS: usize = 24;
/// For all that is asked, which takes seconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// Connections of HTTP/2, and requests at once on each.
const CONNECTIONS: usize = 3;
const STREAMS: usize = 12;

/// Starts a gateway, asks, and ends it in order: a program with counters in it writes them down at its end.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = server::start().await?;
        let gateway = gateway::Gateway::start(&args.picop, server, DOMAIN).await?;
        let (at, each) = (gateway.address, args.requests / 4);
        let asking = async {
            kept(at, 2 * each).await.context("over lasting connections")?;
            one_by_one(at, each).await.context("a connection for each")?;
            multiplexed(at, each).await.context("over HTTP/2")
        };
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            asked = timeout(PATIENCE, asking) => asked.context("it does not answer all in time")??,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("interrupted"),
        }
        gateway.stop().await
    })
}

async fn kept(gateway: SocketAddr, requests: usize) -> Result<()> {
    let client = |number: usize| async move {
        let mut sender = connect(gateway).await?;
        for n in (number..requests).step_by(CLIENTS) {
            sender.ready().await?;
            check(n, sender.send_request(request(n, false)?).await?).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    try_join_all((0..CLIENTS).map(client)).await.map(drop)
}

async fn one_by_one(gateway: SocketAddr, requests: usize) -> Result<()> {
    let client = |number: usize| async move {
        for n in (number..requests).step_by(CLIENTS) {
            check(n, connect(gateway).await?.send_request(request(n, false)?).await?).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    try_join_all((0..CLIENTS).map(client)).await.map(drop)
}

async fn multiplexed(gateway: SocketAddr, requests: usize) -> Result<()> {
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let io = TokioIo::new(TcpStream::connect(gateway).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    let clients = CONNECTIONS * STREAMS;
    let client = |number: usize| {
        let mut sender = senders[number % CONNECTIONS].clone();
        async move {
            for n in (number..requests).step_by(clients) {
                sender.ready().await?;
                check(n, sender.send_request(request(n, true)?).await?).await?;
            }
            Ok::<_, anyhow::Error>(())
        }
    };
    try_join_all((0..clients).map(client)).await.map(drop)
}

async fn connect(gateway: SocketAddr) -> Result<http1::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Bytes of the body that belongs to a request: its own, or its answer's.
fn size(n: usize) -> usize {
    SIZES[(n / 10) % SIZES.len()]
}

fn environment(n: usize) -> String {
    format!("pr-{}", (n / 3) % ENVIRONMENTS)
}

/// One of many kinds.
fn request(n: usize, is_http2: bool) -> Result<Request<Full<Bytes>>> {
    let (size, environment) = (size(n), environment(n));
    let (method, path) = match n % 10 {
        0..6 => (Method::GET, format!("/bytes/{size}?n={n}")),
        6 => (Method::GET, format!("/chunks/{size}")),
        7 => (Method::HEAD, format!("/bytes/{size}")),
        _ => (Method::POST, "/echo".to_owned()),
    };
    let body = if method == Method::POST { vec![b'q'; size] } else { Vec::new() };
    let (host, named) = match n % 3 {
        0 => (format!("{environment}.{DOMAIN}"), None),
        1 => (DOMAIN.to_owned(), Some(("baggage".parse()?, format!("user=7,env-id={environment}")))),
        _ => (DOMAIN.to_owned(), Some((COOKIE, format!("session=0a1b2c3d4e5f; env={environment}")))),
    };
    let mut builder = Request::builder().method(&method);
    builder = if is_http2 {
        builder.uri(format!("http://{host}{path}"))
    } else {
        builder.uri(path).header(HOST, &host)
    };
    if let Some((name, value)) = named {
        builder = builder.header::<hyper::header::HeaderName, _>(name, value);
    }
    if method == Method::POST {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    if n.is_multiple_of(2) {
        let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36";
        builder = builder
            .header(USER_AGENT, agent)
            .header(ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
            .header(ACCEPT_LANGUAGE, "en-US,en;q=0.9")
            .header(ACCEPT_ENCODING, "gzip, deflate, br")
            .header(CACHE_CONTROL, "no-cache")
            .header(REFERER, format!("http://{host}/"))
            .header("sec-fetch-mode", "navigate");
    } else {
        builder = builder.header(ACCEPT, "*/*");
    }
    Ok(builder.body(Full::from(body))?)
}

/// Reads an answer; it must be that of its environment, and whole.
async fn check(n: usize, answer: Response<Incoming>) -> Result<(), anyhow::Error> {
    ensure!(answer.status() == StatusCode::OK, "request {n}: {}", answer.status());
    let from = answer.headers().get(server::ENVIRONMENT).and_then(|value| value.to_str().ok());
    ensure!(from == Some(&*environment(n)), "request {n} was answered by environment {from:?}");
    let expected = if n % 10 == 7 { 0 } else { size(n) };
    let mut body = answer.into_body();
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        came += frame?.data_ref().map_or(0, Bytes::len);
    }
    ensure!(came == expected, "request {n}: {came} bytes of {expected}");
    Ok(())
}
