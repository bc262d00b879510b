//! One request: its environment, its connection, its answer.

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::future;
use http_body_util::{Either, Empty};
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    header::{HOST, HeaderValue},
    http::uri::Authority,
    upgrade::OnUpgrade,
};
use tokio::{sync::Mutex, time::timeout};

use super::{
    answer::{Answer, Lent, RequestLine, of_server, own, text},
    client::Client,
    environment::Finder,
    headers::{Special, set_upgrade},
    hosts::Host,
    limits::Limits,
    places::Places,
    pool::{Pool, Shelf},
    progress::{Progress, Watched},
    repeat::Repeat,
    tunnel::tunnel,
    upstream::{Asking, ConnectError, Failed, Sender, Sending},
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
    pub places: Arc<Places>,
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

/// A request on its way. It is in a box, as futures that hold it are moved before they run.
struct Asked {
    /// Until it is sent.
    request: Option<Asking>,
    /// From then on.
    sent: Option<Sent>,
    line: Box<RequestLine>,
    is_http2: bool,
    /// Whether it may be sent again though the server may have seen it.
    is_repeatable: bool,
    progress: Option<Progress>,
    /// The client's side, if it asks for another protocol.
    client_side: Option<OnUpgrade>,
}

/// A request that was sent, and has no answer yet.
struct Sent {
    sender: Sender,
    sending: Sending,
    /// To send it again.
    repeat: Option<Repeat>,
}

// A future is moved before it runs, and keeps room for all that it was given besides what it makes of it. So what needs no waiting is
// done outside of futures: nearly always, that is all until the answer.
impl Edge {
    /// Answers a request.
    pub fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: &Arc<Client>,
    ) -> impl Future<Output = Answer> + use<> {
        match self.ready(request, client) {
            Ok(mut asked) => {
                self.send_over_kept(&mut asked);
                future::Either::Left(self.forward(asked))
            }
            Err(answer) => future::Either::Right(std::future::ready(*answer)),
        }
    }

    /// Makes a request one of the gateway's, or answers it.
    fn ready(&self, mut request: Request<Incoming>, client: &Arc<Client>) -> Result<Box<Asked>, Box<Answer>> {
        let has = Special::of(request.headers());
        let named = request.headers().get(HOST);
        let name = named.and_then(|named| Host::of(named.as_bytes()));
        let wrong_host = has.wrong_host(name, request.version() == Version::HTTP_11);
        let of_uri = request.uri().authority().map(host_of);
        let is_of_uri = of_uri.is_some();
        let (host, name) = match &of_uri {
            Some(host) => (host.as_ref(), host.as_ref().and_then(|host| Host::of(host.as_bytes()))),
            None => (named, name),
        };
        let (environment, env_source) = self.finder.find(name, request.headers());
        let mut line = Box::new(RequestLine {
            metrics: Arc::clone(self.life.metrics()),
            under_way: client.asks(request.version()),
            since: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            host: host.cloned(),
            environment,
            env_source,
            reused: false,
            status: None,
            bytes_down: 0,
            outcome: "client_reset",
            error: None,
            place: self.places.take(),
            lent: None,
            ended: None,
        });
        if line.place.is_none() {
            line.error = Some("too many requests at once; see --max-requests".to_owned());
            return Err(Box::new(own(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once", line)));
        }
        if request.method() == Method::CONNECT {
            let words = "this is a gateway, and no proxy for CONNECT";
            return Err(Box::new(own(StatusCode::NOT_IMPLEMENTED, words, line)));
        }
        if let Some(words) = wrong_host {
            return Err(Box::new(own(StatusCode::BAD_REQUEST, words, line)));
        }
        if has.is_coded(request.headers()) {
            let words = "a body may come in chunks, and not coded otherwise";
            return Err(Box::new(own(StatusCode::NOT_IMPLEMENTED, words, line)));
        }
        let protocol = has.upgrade(request.headers());
        let client_side = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
        let host = line.host.clone().filter(|host| !host.is_empty());
        has.prepare(request.headers_mut(), &client.told, host, client.is_tls);
        if let Some(protocol) = protocol {
            set_upgrade(request.headers_mut(), protocol);
        }
        // An upgrade is a matter of HTTP/1.1.
        let is_http2 = self.is_http2 && client_side.is_none();
        if is_http2 || is_of_uri {
            let Some(uri) = target(request.uri(), text(line.host.as_ref()), is_http2) else {
                return Err(Box::new(own(StatusCode::BAD_REQUEST, "the request is for no path", line)));
            };
            *request.uri_mut() = uri;
            request.headers_mut().remove(HOST);
            if let Some(host) = line.host.clone().filter(|_| !is_http2) {
                request.headers_mut().insert(HOST, host);
            }
        }
        *request.version_mut() = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };

        let has_body = !request.body().is_end_stream();
        let is_repeatable = !has_body && request.method().is_safe();
        let progress = has_body.then(Progress::default);
        let request = request.map(|body| match &progress {
            None => Either::Right(Empty::new()),
            Some(progress) => Either::Left(Watched::new(body, progress.clone(), line.under_way.clone())),
        });
        let (request, sent) = (Some(request), None);
        Ok(Box::new(Asked { request, sent, line, is_http2, is_repeatable, progress, client_side }))
    }

    /// Waits for the answer.
    async fn forward(self: Arc<Self>, mut asked: Box<Asked>) -> Answer {
        let sent = self.send(&mut asked).await;
        self.answered(sent, *asked)
    }

    /// Sends it until there is an answer. A connection that the server closed while it was kept is no reason to fail: a request that it
    /// cannot have seen, or that may be repeated, is sent again.
    async fn send(&self, asked: &mut Asked) -> Result<Response<Incoming>, ForwardError> {
        // Each turn takes a connection off the pool, or is the last, so this ends.
        loop {
            let Some(sent) = &mut asked.sent else {
                asked.line.reused = false;
                // In a box, as most requests have no need of it.
                let new = Box::pin(self.connection(&asked.line.environment, asked.is_http2)).await?;
                asked.send_over(new, false);
                continue;
            };
            let answer = self.wait(&mut sent.sending, asked.progress.as_ref()).await?;
            let Sent { sender, repeat, .. } = asked.sent.take().expect("it was sent");
            match answer {
                Ok(answer) => {
                    let pool = (self.is_http2 == asked.is_http2).then(|| Arc::clone(&self.pool));
                    asked.line.lent = Some(Lent { pool, sender });
                    return Ok(answer);
                }
                Err(failed) => {
                    asked.request = Some(asked.again(failed, repeat.as_ref())?);
                    // One that many use is still in the pool, if it is open: that is for the last turn.
                    if matches!(sender, Sender::One { .. }) {
                        self.send_over_kept(asked);
                    }
                }
            }
        }
    }

    /// Sends it over a connection that is kept, if there is one.
    fn send_over_kept(&self, asked: &mut Asked) {
        if self.is_http2 == asked.is_http2
            && let Some(kept) = self.pool.take(&asked.line.environment, asked.line.since)
        {
            asked.send_over(kept, true);
        }
    }

    /// What the client is told.
    fn answered(&self, sent: Result<Response<Incoming>, ForwardError>, asked: Asked) -> Answer {
        let mut line = asked.line;
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                line.error = Some(chain(&error));
                let place = line.environment.as_ref().map(|env| format!(" (environment {env})"));
                let words = format!("{error}{}", place.unwrap_or_default());
                return own(error.status(), &words, line);
            }
        };
        let has = Special::of(answer.headers());
        if has.is_coded(answer.headers()) {
            line.lent = None;
            return own(StatusCode::BAD_GATEWAY, "the server's answer is coded in more than chunks", line);
        }
        line.status = Some(answer.status());
        let granted = has.upgrade(answer.headers());
        has.remove_of_one_hop(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_11;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(client_side), Some(protocol)) = (asked.client_side, granted) else {
                line.lent = None;
                return own(StatusCode::BAD_GATEWAY, "the server switched protocols unasked", line);
            };
            set_upgrade(answer.headers_mut(), protocol);
            return tunnel(answer, client_side, line, &self.life);
        }
        of_server(answer, line)
    }

    /// A new connection.
    async fn connection(&self, environment: &Shelf, is_http2: bool) -> Result<Sender, ConnectError> {
        if is_http2 { self.shared(environment).await } else { self.connect(environment, false).await }
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
            self.pool.keep(environment.clone(), shared, Instant::now());
        }
        Ok(sender)
    }

    /// Waits for the answer for as long as the request still moves, and then as long as the server may take.
    async fn wait(
        &self,
        sending: &mut Sending,
        progress: Option<&Progress>,
    ) -> Result<Result<Response<Incoming>, Failed>, ForwardError> {
        let frames = || progress.map_or(0, Progress::frames);
        let mut limit = self.limits.begin();
        let mut before = frames();
        poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
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

impl Asked {
    fn send_over(&mut self, mut sender: Sender, is_kept: bool) {
        let request = self.request.take().expect("there is one to be sent");
        self.line.reused = is_kept;
        let repeat = (is_kept && self.is_repeatable).then(|| Repeat::of(&request));
        self.sent = Some(Sent { sending: sender.send(request), sender, repeat });
    }

    /// What is to be sent again, or why there is nothing.
    fn again(&self, mut failed: Failed, repeat: Option<&Repeat>) -> Result<Asking, ForwardError> {
        // One that was not sent at all comes back.
        let request = failed.take_message().or_else(|| repeat.map(Repeat::request));
        match request {
            Some(request) if self.line.reused => Ok(request),
            _ if self.progress.as_ref().is_some_and(Progress::is_broken) => {
                Err(ForwardError::Request(failed.into_error()))
            }
            _ => Err(ForwardError::Broken(failed.into_error())),
        }
    }
}

/// The host of an address, without a user's name.
fn host_of(authority: &Authority) -> Option<HeaderValue> {
    HeaderValue::from_str(authority.as_str().rsplit('@').next()?).ok()
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
