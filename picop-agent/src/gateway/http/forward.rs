//! One request: its environment, its connection, its answer.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{Either, Empty};
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    header::{HOST, HeaderValue},
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    answer::{Answer, Lent, RequestLine, of_server, own},
    environment::Finder,
    headers::{host_value, is_coded, prepare, remove_of_one_hop, set_upgrade, upgrade, wrong_host},
    pool::{Pool, Shelf},
    progress::{Progress, Watched},
    tunnel::tunnel,
    upstream::{Asking, ConnectError, Sender},
};
use crate::{gateway::Life, telemetry::chain};

/// What all requests have in common.
pub struct Edge {
    /// Finds environments.
    pub finder: Finder,
    /// Where requests go.
    pub upstream: String,
    /// Whether the server speaks HTTP/2.
    pub is_http2: bool,
    /// For the server to accept a connection.
    pub connect_timeout: Duration,
    /// For the server to begin an answer, once it has the request.
    pub answer_timeout: Duration,
    /// Connections to it.
    pub pool: Arc<Pool>,
    /// After which no further request begins on one of them.
    pub connection_age: Duration,
    /// Held while a connection is made that many requests may use: those that come meanwhile are to use it, too.
    pub connecting: Mutex<()>,
    /// Requests at once.
    pub places: Arc<Semaphore>,
    /// The gateway's.
    pub life: Life,
}

/// Who asks.
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// The same, as servers are told it.
    told: HeaderValue,
    /// Whether it has spoken TLS.
    pub is_tls: bool,
    /// What its connection went on with.
    pub tunnels: TaskTracker,
}

impl Client {
    /// One that has nothing but its connection.
    pub fn new(address: SocketAddr, is_tls: bool) -> Self {
        let told = HeaderValue::from_str(&address.ip().to_string()).expect("an address is visible ASCII");
        Self { address, told, is_tls, tunnels: TaskTracker::new() }
    }
}

/// Why there is no answer of the server's.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("the server cannot be reached")]
    Connect(#[from] ConnectError),
    #[error("the server did not begin to answer within {0:?}")]
    Timeout(Duration),
    #[error("the server closed the connection, or did not speak HTTP, before it had answered")]
    Broken(#[source] hyper::Error),
    #[error("the request's body broke off, or is not as HTTP has it")]
    Request(#[source] hyper::Error),
}

impl ForwardError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(ConnectError::Open(error)) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(_) | Self::Broken(_) => StatusCode::BAD_GATEWAY,
            Self::Request(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl Edge {
    /// Answers a request.
    pub async fn answer(&self, mut request: Request<Incoming>, client: &Client) -> Answer {
        let host = host(&request);
        let (environment, env_source) = self.finder.find(&host, request.headers());
        let mut line = Box::new(RequestLine {
            metrics: Arc::clone(self.life.metrics()),
            client: client.address,
            since: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            host,
            environment: environment.clone(),
            env_source,
            reused: false,
            status: None,
            bytes_down: 0,
            outcome: "client_reset",
            error: None,
            place: Arc::clone(&self.places).try_acquire_owned().ok(),
        });
        if line.place.is_none() {
            line.error = Some("too many requests at once; see --max-requests".to_owned());
            return own(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once", line);
        }
        if request.method() == Method::CONNECT {
            return own(StatusCode::NOT_IMPLEMENTED, "this is a gateway, and no proxy for CONNECT", line);
        }
        if let Some(words) = wrong_host(request.headers(), request.version() == Version::HTTP_11) {
            return own(StatusCode::BAD_REQUEST, words, line);
        }
        if is_coded(request.headers()) {
            return own(
                StatusCode::NOT_IMPLEMENTED,
                "a body may come in chunks, and not coded otherwise",
                line,
            );
        }
        let protocol = upgrade(request.headers());
        let client_side = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
        prepare(request.headers_mut(), &client.told, &line.host, client.is_tls);
        if let Some(protocol) = protocol {
            set_upgrade(request.headers_mut(), protocol);
        }
        // An upgrade is a matter of HTTP/1.1.
        let is_http2 = self.is_http2 && client_side.is_none();
        if is_http2 || request.uri().authority().is_some() {
            let Some(uri) = target(request.uri(), &line.host, is_http2) else {
                return own(StatusCode::BAD_REQUEST, "the request is for no path", line);
            };
            *request.uri_mut() = uri;
        }
        *request.version_mut() = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        set_host(&mut request, &line.host, is_http2);

        let sent = self.send(request, &environment, is_http2, &mut line).await;
        let (mut answer, lent) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                line.error = Some(chain(&error));
                let place = line.environment.as_ref().map(|env| format!(" (environment {env})"));
                let words = format!("{error}{}", place.unwrap_or_default());
                return own(error.status(), &words, line);
            }
        };
        if is_coded(answer.headers()) {
            return own(StatusCode::BAD_GATEWAY, "the server's answer is coded in more than chunks", line);
        }
        line.status = Some(answer.status());
        let granted = upgrade(answer.headers());
        remove_of_one_hop(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_11;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some((client_side, protocol)) = client_side.zip(granted) else {
                return own(StatusCode::BAD_GATEWAY, "the server switched protocols unasked", line);
            };
            set_upgrade(answer.headers_mut(), protocol);
            return tunnel(answer, client_side, line, &self.life, &client.tunnels);
        }
        of_server(answer, line, lent)
    }

    /// Sends it over a connection that is kept, or else a new one. One that the server closed in the meantime is no reason to
    /// fail: a request that it cannot have seen, or that may be repeated, is sent again.
    async fn send(
        &self,
        request: Request<Incoming>,
        environment: &Shelf,
        is_http2: bool,
        line: &mut RequestLine,
    ) -> Result<(Response<Incoming>, Lent), ForwardError> {
        let progress = Progress::default();
        let (parts, body) = request.into_parts();
        let is_repeatable = body.is_end_stream() && parts.method.is_safe();
        let mut spare = None;
        let body = if body.is_end_stream() {
            Either::Right(Empty::new())
        } else {
            Either::Left(Watched::new(body, progress.clone()))
        };
        let mut request = Request::from_parts(parts, body);
        loop {
            let kept = if self.is_http2 == is_http2 { self.pool.take(environment) } else { None };
            line.reused = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                // Boxed, as most requests have no need of these: each is moved more than once with all that it might need.
                None if is_http2 => Box::pin(self.shared(environment)).await?,
                None => Box::pin(self.connect(environment, false)).await?,
            };
            if is_repeatable && line.reused {
                spare = Some(copy(&request));
            }
            let failed = match self.wait(&mut sender, request, &progress).await? {
                Ok(answer) => {
                    let pool = (self.is_http2 == is_http2).then(|| Arc::clone(&self.pool));
                    let lent = Lent { pool, shelf: environment.clone(), sender };
                    return Ok((answer, lent));
                }
                Err(failed) => failed,
            };
            let mut failed = failed;
            match failed.take_message().or_else(|| spare.take()) {
                // Each turn takes one off the pool, so this ends.
                Some(again) if line.reused => request = again,
                _ if progress.is_broken() => return Err(ForwardError::Request(failed.into_error())),
                _ => return Err(ForwardError::Broken(failed.into_error())),
            }
        }
    }

    async fn connect(&self, environment: &Shelf, is_http2: bool) -> Result<Sender, ConnectError> {
        Sender::connect(&self.upstream, environment, is_http2, self.connect_timeout, self.connection_age)
            .await
    }

    /// A connection that many may use at once, which is kept from its beginning.
    async fn shared(&self, environment: &Shelf) -> Result<Sender, ConnectError> {
        // Whoever waited too long, as the server is slow to accept, makes one of its own.
        let _turn = timeout(self.connect_timeout, self.connecting.lock()).await;
        if let Some(made_meanwhile) = self.pool.take(environment) {
            return Ok(made_meanwhile);
        }
        let sender = self.connect(environment, true).await?;
        if let Some(shared) = sender.share() {
            self.pool.keep(environment.clone(), shared);
        }
        Ok(sender)
    }

    /// Waits for the answer for as long as the request still moves, and then as long as the server may take.
    async fn wait(
        &self,
        sender: &mut Sender,
        request: Asking,
        progress: &Progress,
    ) -> Result<Result<Response<Incoming>, hyper::client::conn::TrySendError<Asking>>, ForwardError> {
        let sending = sender.send(request);
        tokio::pin!(sending);
        loop {
            let before = progress.frames();
            match timeout(self.answer_timeout, &mut sending).await {
                Ok(sent) => return Ok(sent),
                Err(_) if progress.frames() == before => {
                    return Err(ForwardError::Timeout(self.answer_timeout));
                }
                Err(_) => {}
            }
        }
    }
}

/// The same request, without a body.
fn copy(request: &Asking) -> Asking {
    let mut copy = Request::new(Either::Right(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The host that is asked for.
fn host<B>(request: &Request<B>) -> String {
    let of_uri = request.uri().authority().map(|authority| {
        // Without a user's name.
        authority.as_str().rsplit('@').next().unwrap_or_default().to_owned()
    });
    let of_header = || request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    of_uri.or_else(of_header).unwrap_or_default()
}

/// What the server is asked for: a path, in HTTP/2 with the host.
fn target(uri: &Uri, host: &str, is_http2: bool) -> Option<Uri> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if is_http2 {
        let host = if host.is_empty() { "localhost" } else { host };
        return Uri::builder().scheme("http").authority(host).path_and_query(path).build().ok();
    }
    path.parse().ok()
}

fn set_host(request: &mut Request<Incoming>, host: &str, is_http2: bool) {
    let headers = request.headers_mut();
    if is_http2 {
        headers.remove(HOST);
    } else if let Some(host) = host_value(headers, host) {
        headers.insert(HOST, host);
    }
}
