//! A service of axum's that knows the environment of each request, and asks the next service in it.
//!
//! ```sh
//! cargo run -p picop-common --features tokio --example axum -- 127.0.0.1:8081 &
//! cargo run -p picop-common --features tokio --example axum -- 127.0.0.1:8080 127.0.0.1:8081 &
//! picop curl --env-id pr-1 --url http://127.0.0.1:8080/
//! ```
use std::{
    convert::Infallible,
    error::Error,
    fmt::Write as _,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::StatusCode,
    response::Response,
    routing::get,
    serve::{IncomingStream, Listener as _},
};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use picop_common::{
    net::{self, Listener, Rules, Stream},
    protocol::Context,
};
use tokio::net::TcpStream;
use tower::{Layer, Service};

/// What is known of a connection, for [`axum::extract::ConnectInfo`].
#[derive(Clone, Debug)]
struct Connection {
    client: SocketAddr,
    context: Option<Context>,
}

/// The listener, as axum has them.
struct Connections(Listener);

impl axum::serve::Listener for Connections {
    type Io = Stream<TcpStream>;
    type Addr = Connection;

    async fn accept(&mut self) -> (Self::Io, Connection) {
        loop {
            match self.0.accept().await {
                Ok((accepted, client)) => {
                    return (accepted.stream, Connection { client, context: accepted.context });
                }
                Err(error) => {
                    // Too many open files, most likely. It passes.
                    eprintln!("accepting failed: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Connection> {
        Ok(Connection { client: self.0.local_addr()?, context: None })
    }
}

impl Connected<IncomingStream<'_, Connections>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Has each request run in the context of its connection: a layer for any service of tower's behind [`Connections`].
#[derive(Clone)]
struct InContext;

#[derive(Clone)]
struct WithContext<S>(S);

impl<S> Layer<S> for InContext {
    type Service = WithContext<S>;

    fn layer(&self, inner: S) -> WithContext<S> {
        WithContext(inner)
    }
}

impl<S> Service<Request> for WithContext<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let connection = request.extensions().get::<ConnectInfo<Connection>>();
        let context = connection.and_then(|ConnectInfo(connection)| connection.context.clone());
        Box::pin(net::scope(context, self.0.call(request)))
    }
}

/// Says whose request it is, and what the next service says of it.
async fn hello(
    State(next): State<Option<String>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
) -> Result<String, (StatusCode, String)> {
    let environment = net::current().and_then(|context| context.env_id());
    let environment = environment.as_ref().map_or("none", |name| name.as_str());
    let mut answer = format!("{} is in environment {environment}\n", connection.client);
    if let Some(next) = next {
        let said =
            ask(&next).await.map_err(|error| (StatusCode::BAD_GATEWAY, format!("{next}: {error}\n")))?;
        writeln!(answer, "{next} says: {}", said.trim_end()).expect("a String takes all");
    }
    Ok(answer)
}

/// Asks over a connection of the context that it is called in: nothing of it need be handed down to here.
async fn ask(next: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let stream = net::connect(next).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let carrying = tokio::spawn(connection);
    let request = hyper::Request::get("/").header("host", next).body(Empty::<Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    // A connection is of one context, so it is not kept for whoever comes next.
    drop(sender);
    carrying.await??;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: axum ADDRESS [NEXT]")?;
    let listener = Listener::bind(address, Rules::default()).await?;
    let listener = listener.on_refused(|client, error| eprintln!("{client} is refused: {error}"));
    let connections = Connections(listener);
    eprintln!("listening at {}", connections.local_addr()?.client);
    let router = Router::new().route("/", get(hello)).layer(InContext).with_state(arguments.next());
    axum::serve(connections, router.into_make_service_with_connect_info::<Connection>()).await?;
    Ok(())
}
