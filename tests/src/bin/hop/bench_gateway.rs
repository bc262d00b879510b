//! The least that a proxy of HTTP/1.1 made with hyper does, for `bench gateway`: its server and its client, put together as its own
//! examples do, with connections to the server kept. One thread, one runtime, one server; no environment, no limits, no counters, no
//! line. What it costs beyond nginx is the price of the library; what a real gateway costs beyond it is its own.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

#[derive(clap::Args)]
pub struct Args {
    /// Where clients connect to
    #[arg(long)]
    listen: SocketAddr,
    /// The server
    #[arg(long)]
    to: SocketAddr,
}

/// Connections that are idle, the last used one last.
type Pool = Rc<RefCell<Vec<client::SendRequest<Incoming>>>>;

pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, accept(args))
}

async fn accept(args: &Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await.context("listening")?;
    let pool = Pool::default();
    let to = args.to;
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream.set_nodelay(true)?;
        let pool = Rc::clone(&pool);
        spawn_local(async move {
            let answer = |request| {
                let pool = Rc::clone(&pool);
                // An error closes the connection, and the benchmark sees what is missing.
                async move { forward(request, &pool, to).await }
            };
            let serving = server::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            if let Err(error) = serving.await {
                eprintln!("bench-gateway: {error}");
            }
        });
    }
}

async fn forward(request: Request<Incoming>, pool: &Pool, to: SocketAddr) -> Result<Response<Incoming>> {
    let kept = pool.borrow_mut().pop();
    let mut sender = match kept {
        Some(sender) if sender.is_ready() => sender,
        _ => connect(to).await?,
    };
    let answer = sender.send_request(request).await?;
    let pool = Rc::clone(pool);
    if sender.is_ready() {
        pool.borrow_mut().push(sender);
    } else {
        // As soon as the answer's body was read.
        spawn_local(async move {
            if sender.ready().await.is_ok() {
                pool.borrow_mut().push(sender);
            }
        });
    }
    Ok(answer)
}

async fn connect(to: SocketAddr) -> Result<client::SendRequest<Incoming>> {
    let stream = TcpStream::connect(to).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    spawn_local(async move {
        if let Err(error) = connection.await {
            eprintln!("bench-gateway: {error}");
        }
    });
    Ok(sender)
}
