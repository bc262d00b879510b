//! One request: its environment, its connection, its answer.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::future;
use http_body_util::{Either, Empty};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    header::{HOST, HeaderValue},
    upgrade::OnUpgrade,
};
use tokio::{
    sync::{Mutex, Semaphore},
    task::yield_now,
    time::timeout,
};

use super::{
    answer::{Answer, Lent, RequestLine, of_server, own},
    client::Client,
    environment::Finder,
    headers::{host_value, is_coded, prepare, remove_of_one_hop, set_upgrade, upgrade, wrong_host},
    limits::Limits,
    pool::{Pool, Shelf},
    progress::{Progress, Watched},
    tunnel::tunnel,
    upstream::{Asking, ConnectError, Failed, Sender},
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
    pub limits: Limits,
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

/// A request that is ready to be sent.
struct Asked {
    /// While it is sent, a copy of it if it may be repeated.
    request: Option<Asking>,
    is_http2: bool,
    /// Whether it may be sent again though the server may have seen it.
    is_repeatable: bool,
    progress: Option<Progress>,
    /// The client's side, if it asks for another protocol.
    client_side: Option<OnUpgrade>,
    client: Arc<Client>,
}

// A future is moved before it runs, and keeps room for all that it was given besides what it makes of it. So what needs no waiting is
// done outside of futures, and a request stays in the one place from which it is sent.
impl Edge {
    /// Answers a request.
    pub fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: Arc<Client>,
    ) -> impl Future<Output = Answer> + use<> {
        match self.ready(request, client) {
            Ok((asked, line)) => future::Either::Left(self.forward(asked, line)),
            Err(answer) => future::Either::Right(std::future::ready(*answer)),
        }
    }

    /// Makes a request one of the gateway's, or answers it.
    fn ready(
        &self,
        mut request: Request<Incoming>,
        client: Arc<Client>,
    ) -> Result<(Asked, Box<RequestLine>), Box<Answer>> {
        let host = host(&request);
        let (environment, env_source) = self.finder.find(&host, request.headers());
        let mut line = Box::new(RequestLine {
            metrics: Arc::clone(self.life.metrics()),
            under_way: client.asks(request.version()),
            since: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            host,
            environment,
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
            return Err(Box::new(own(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once", line)));
        }
        if request.method() == Method::CONNECT {
            let words = "this is a gateway, and no proxy for CONNECT";
            return Err(Box::new(own(StatusCode::NOT_IMPLEMENTED, words, line)));
        }
        if let Some(words) = wrong_host(request.headers(), request.version() == Version::HTTP_11) {
            return Err(Box::new(own(StatusCode::BAD_REQUEST, words, line)));
        }
        if is_coded(request.headers()) {
            let words = "a body may come in chunks, and not coded otherwise";
            return Err(Box::new(own(StatusCode::NOT_IMPLEMENTED, words, line)));
        }
        let protocol = upgrade(request.headers());
        let client_side = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
        let host = host_value(request.headers(), &line.host);
        prepare(request.headers_mut(), &client.told, host.clone(), client.is_tls);
        if let Some(protocol) = protocol {
            set_upgrade(request.headers_mut(), protocol);
        }
        // An upgrade is a matter of HTTP/1.1.
        let is_http2 = self.is_http2 && client_side.is_none();
        if is_http2 || request.uri().authority().is_some() {
            let Some(uri) = target(request.uri(), &line.host, is_http2) else {
                return Err(Box::new(own(StatusCode::BAD_REQUEST, "the request is for no path", line)));
            };
            *request.uri_mut() = uri;
        }
        *request.version_mut() = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        set_host(request.headers_mut(), host, is_http2);

        let (parts, body) = request.into_parts();
        let is_repeatable = body.is_end_stream() && parts.method.is_safe();
        let progress = (!body.is_end_stream()).then(Progress::default);
        let body = match &progress {
            None => Either::Right(Empty::new()),
            Some(progress) => Either::Left(Watched::new(body, progress.clone(), line.under_way.clone())),
        };
        let request = Some(Request::from_parts(parts, body));
        Ok((Asked { request, is_http2, is_repeatable, progress, client_side, client }, line))
    }

    async fn forward(self: Arc<Self>, mut asked: Asked, mut line: Box<RequestLine>) -> Answer {
        // Whoever else is ready reads first, here and below. What is written then is written in a row, and finds the processes that
        // get it awake: to wake one costs more than to write to one that is.
        yield_now().await;
        let sent = self.send(&mut asked, &mut line).await;
        yield_now().await;
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
            let (Some(client_side), Some(protocol), Sender::One(server, _)) =
                (asked.client_side, granted, lent.sender)
            else {
                return own(StatusCode::BAD_GATEWAY, "the server switched protocols unasked", line);
            };
            set_upgrade(answer.headers_mut(), protocol);
            return tunnel(answer, client_side, server, line, &self.life, &asked.client.tunnels);
        }
        of_server(answer, line, lent)
    }

    /// Sends it over a connection that is kept, or else a new one. One that the server closed in the meantime is no reason to
    /// fail: a request that it cannot have seen, or that may be repeated, is sent again.
    async fn send(
        &self,
        asked: &mut Asked,
        line: &mut RequestLine,
    ) -> Result<(Response<Incoming>, Lent), ForwardError> {
        let is_http2 = asked.is_http2;
        loop {
            let kept =
                if self.is_http2 == is_http2 { self.pool.take(&line.environment, line.since) } else { None };
            line.reused = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                // Boxed, as most requests have no need of these.
                None if is_http2 => Box::pin(self.shared(&line.environment)).await?,
                None => Box::pin(self.connect(&line.environment, false)).await?,
            };
            let failed = match self.wait(&mut sender, asked, line.reused).await? {
                Ok(answer) => {
                    let is_over = asked.progress.as_ref().is_none_or(Progress::is_over);
                    if !is_over && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                        sender.go_on_alone();
                    }
                    let pool = (self.is_http2 == is_http2).then(|| Arc::clone(&self.pool));
                    let lent = Lent { pool, shelf: line.environment.clone(), sender };
                    return Ok((answer, lent));
                }
                Err(failed) => failed,
            };
            let mut failed = failed;
            if let Some(unsent) = failed.take_message() {
                asked.request = Some(unsent);
            }
            // Each turn takes one off the pool, so this ends.
            if !line.reused || asked.request.is_none() {
                return Err(if asked.progress.as_ref().is_some_and(Progress::is_broken) {
                    ForwardError::Request(failed.into_error())
                } else {
                    ForwardError::Broken(failed.into_error())
                });
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
        if let Some(made_meanwhile) = self.pool.take(environment, Instant::now()) {
            return Ok(made_meanwhile);
        }
        let sender = self.connect(environment, true).await?;
        if let Some(shared) = sender.share() {
            self.pool.keep(environment.clone(), shared);
        }
        Ok(sender)
    }

    /// Sends it, and waits for the answer for as long as the request still moves, and then as long as the server may take.
    fn wait<'a>(
        &'a self,
        sender: &'a mut Sender,
        asked: &'a mut Asked,
        is_reused: bool,
    ) -> impl Future<Output = Result<Result<Response<Incoming>, Failed>, ForwardError>> {
        let request = asked.request.take().expect("there is one to be sent");
        if asked.is_repeatable && is_reused {
            asked.request = Some(copy(&request));
        }
        let sending = sender.submit(request);
        let frames = || asked.progress.as_ref().map_or(0, Progress::frames);
        async move {
            let mut sending = pin!(sending);
            let mut limit = self.limits.begin();
            let mut before = frames();
            poll_fn(|cx| {
                if let Poll::Ready(sent) = sender.poll_answer(sending.as_mut(), cx) {
                    return Poll::Ready(Ok(sent));
                }
                while limit.poll(cx).is_ready() {
                    let now = frames();
                    if now == before {
                        return Poll::Ready(Err(ForwardError::Timeout(self.limits.length())));
                    }
                    before = now;
                    limit.again();
                }
                Poll::Pending
            })
            .await
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

fn set_host(headers: &mut HeaderMap, host: Option<HeaderValue>, is_http2: bool) {
    if is_http2 {
        headers.remove(HOST);
    } else if let Some(host) = host
        && headers.get_all(HOST).iter().ne([&host])
    {
        headers.insert(HOST, host);
    }
}
