//! A service of hyper's that hands on what OpenTelemetry propagates, the environment among it.
//!
//! ```sh
//! cargo run -p picop-common --features tokio,opentelemetry --example hyper -- 127.0.0.1:8081 &
//! cargo run -p picop-common --features tokio,opentelemetry --example hyper -- 127.0.0.1:8080 127.0.0.1:8081 &
//! picop curl --env-id pr-1 --url http://127.0.0.1:8080/
//! ```
use std::{error::Error, fmt::Write as _, sync::Arc};

use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry::{Context, context::FutureExt as _, trace::TraceContextExt as _};
use picop_common::{
    net::{self, Accepted, Listener, Rules},
    protocol::EnvId,
    telemetry,
};
use tokio::net::TcpStream;

type Failed = Box<dyn Error + Send + Sync>;

/// Says what was propagated to here, and what the next service says of it.
async fn hello(next: Option<&str>) -> Result<String, Failed> {
    let mut answer = Context::map_current(|context| {
        let environment = context.get::<EnvId>().map_or("none", EnvId::as_str);
        let trace = context.span().span_context().trace_id();
        format!("environment {environment}, trace {trace}\n")
    });
    if let Some(next) = next {
        let said = ask(next).await?;
        writeln!(answer, "{next} says: {}", said.trim_end()).expect("a String takes all");
    }
    Ok(answer)
}

async fn ask(next: &str) -> Result<String, Failed> {
    let (header, dropped) = telemetry::current();
    if !dropped.is_nothing() {
        eprintln!("a header has 255 bytes; of this one were dropped: {dropped:?}");
    }
    let stream = net::connect_with(next, header.as_ref()).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let carrying = tokio::spawn(connection);
    let request = Request::get("/").header("host", next).body(Empty::<Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    // A connection is of one context, so it is not kept for whoever comes next.
    drop(sender);
    carrying.await??;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Serves a connection in the context that its header has.
async fn serve(accepted: Accepted<TcpStream>, next: Arc<Option<String>>) {
    let propagated = accepted.context.as_ref().map(telemetry::extract).unwrap_or_default();
    let service = service_fn(|_| async {
        let (status, text) = match hello(next.as_deref()).await {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::BAD_GATEWAY, format!("{error}\n")),
        };
        Response::builder().status(status).body(Full::<Bytes>::from(text))
    });
    let serving =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(accepted.stream), service);
    if let Err(error) = serving.with_context(propagated).await {
        eprintln!("a connection ended: {error}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: hyper ADDRESS [NEXT]")?;
    let next = Arc::new(arguments.next());
    let listener = Listener::bind(address, Rules::default()).await?;
    let mut listener = listener.on_refused(|client, error| eprintln!("{client} is refused: {error}"));
    eprintln!("listening at {}", listener.local_addr()?);
    loop {
        let (accepted, _client) = listener.accept().await?;
        tokio::spawn(serve(accepted, Arc::clone(&next)));
    }
}
