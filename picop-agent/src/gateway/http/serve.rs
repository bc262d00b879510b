//! One connection of a client.

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use hyper::{Request, body::Incoming, rt, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpStream,
    task::coop,
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::WaitForCancellationFuture;

use super::{
    client::{Activity, Client},
    forward::Edge,
    plain::Plain,
    tls::{ALPN_HTTP1, Certificate},
};
use crate::{gateway::Life, telemetry::chain};

/// How often a client that speaks HTTP/2 is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 250;

/// As good as never.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a TLS handshake, and for the first request.
    pub first: Duration,
    /// For each further one, of HTTP/1.1.
    pub next: Duration,
}

impl Patience {
    /// After which the first look may find that a client has said nothing for too long.
    fn timer(self) -> Sleep {
        sleep(self.first.min(self.next))
    }
}

/// Serves one client until it has gone, or the gateway has.
pub async fn serve(
    edge: Arc<Edge>,
    certificate: Option<Arc<Certificate>>,
    patience: Patience,
    client: TcpStream,
    peer: SocketAddr,
) {
    let _open = edge.life.metrics().accepted();
    match certificate {
        // In a box, as it is larger than all the rest.
        Some(certificate) => Box::pin(serve_tls(&edge, &certificate, patience, client, peer)).await,
        None => serve_plain(&edge, patience, client, peer).await,
    }
}

async fn serve_plain(edge: &Arc<Edge>, patience: Patience, client: TcpStream, peer: SocketAddr) {
    let asking = Arc::new(Client::new(peer, false));
    let timer = pin!(patience.timer());
    let stopping = pin!(edge.life.stopping());
    let mut aside = Aside { client: &asking, patience, life: &edge.life, timer, stopping, told: None };
    let client = match aside.or(pin!(Plain::begin(client, Arc::clone(&asking)))).await {
        Either::Main(Ok(client)) => client,
        // It has asked for nothing.
        Either::Main(Err(_)) | Either::Silent | Either::Stopping => return,
    };
    let is_http1 = client.is_http1();
    requests(edge, &mut aside, client, is_http1).await;
}

async fn serve_tls(
    edge: &Arc<Edge>,
    certificate: &Certificate,
    patience: Patience,
    client: TcpStream,
    peer: SocketAddr,
) {
    let client = match timeout(patience.first, certificate.acceptor().accept(client)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "a TLS handshake took too long"),
    };
    let asking = Arc::new(Client::new(peer, true));
    let timer = pin!(patience.timer());
    let stopping = pin!(edge.life.stopping());
    let mut aside = Aside { client: &asking, patience, life: &edge.life, timer, stopping, told: None };
    let is_http1 = client.get_ref().1.alpn_protocol() == Some(ALPN_HTTP1);
    requests(edge, &mut aside, TokioIo::new(client), is_http1).await;
}

async fn requests<S>(edge: &Arc<Edge>, aside: &mut Aside<'_, '_>, client: S, is_http1: bool)
where
    S: rt::Read + rt::Write + Unpin + Send + 'static,
{
    let asking = aside.client;
    let service = service_fn(|request: Request<Incoming>| {
        let answering = Arc::clone(edge).answer(request, asking);
        async { Ok::<_, Infallible>(answering.await) }
    });
    // Silence is looked after by `Aside`: hyper would make a timer for each request. Each connection is in a box of its own, and made
    // there: a task is moved several times before it runs.
    if is_http1 {
        let serving = async {
            let mut builder = http1::Builder::new();
            builder.header_read_timeout(None);
            let connection = pin!(builder.serve_connection(client, service).with_upgrades());
            carry(connection, http1::UpgradeableConnection::graceful_shutdown, aside).await;
        };
        Box::pin(serving).await;
    } else {
        let serving = async {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().header_read_timeout(None);
            builder
                .http2()
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .max_concurrent_streams(STREAMS);
            let connection = pin!(builder.serve_connection_with_upgrades(client, service));
            carry(connection, auto::UpgradeableConnection::graceful_shutdown, aside).await;
        };
        Box::pin(serving).await;
    }
    // It has its place among the connections until what it went on with has ended.
    asking.tunnels.close();
    asking.tunnels.wait().await;
}

/// Carries a connection to its end; `stop` has it begin nothing new.
async fn carry<C, E>(mut connection: Pin<&mut C>, stop: impl FnOnce(Pin<&mut C>), aside: &mut Aside<'_, '_>)
where
    C: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let served = match aside.or(connection.as_mut()).await {
        Either::Main(served) => served,
        Either::Silent => return tracing::debug!(peer = %aside.client.address, "no request came in time"),
        Either::Stopping => {
            stop(connection.as_mut());
            tokio::select! {
                served = connection => served,
                () = aside.life.ended() => return,
            }
        }
    };
    if let Err(error) = served {
        let error: Box<dyn Error + Send + Sync> = error.into();
        tracing::debug!(peer = %aside.client.address, error = chain(&*error), "a client's connection ended");
    }
}

/// What may end a connection, besides its two ends: silence, and the gateway's own end.
struct Aside<'a, 'l> {
    client: &'a Arc<Client>,
    patience: Patience,
    life: &'l Life,
    timer: Pin<&'a mut Sleep>,
    stopping: Pin<&'a mut WaitForCancellationFuture<'l>>,
    /// Who is woken by these two.
    told: Option<Waker>,
}

/// What came first.
enum Either<T> {
    Main(T),
    Silent,
    Stopping,
}

impl Aside<'_, '_> {
    /// Does the main thing, unless one of these comes before its end.
    async fn or<T>(&mut self, mut main: Pin<&mut impl Future<Output = T>>) -> Either<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = main.as_mut().poll(cx) {
                return Poll::Ready(Either::Main(done));
            }
            // Both wake this task when they have come to something. To ask for that each time that the connection moves costs less than
            // to wait for them anew.
            let is_told = self.told.as_ref().is_some_and(|told| told.will_wake(cx.waker()));
            if is_told && !self.timer.is_elapsed() && !self.life.is_stopping() {
                return Poll::Pending;
            }
            if self.stopping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Either::Stopping);
            }
            while self.timer.as_mut().poll(cx).is_ready() {
                let now = Instant::now();
                let until = self.until(now);
                if until <= now {
                    return Poll::Ready(Either::Silent);
                }
                self.timer.as_mut().reset(until.into());
            }
            // Where this turn has used up what tokio grants one, the timer has not taken notice (`Sleep::poll`).
            self.told = coop::has_budget_remaining().then(|| cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Until when the client may say nothing.
    fn until(&self, now: Instant) -> Instant {
        match self.client.activity() {
            Activity::New { since } => since + self.patience.first,
            Activity::Idle { since } => since + self.patience.next,
            // Whatever ends meanwhile has its whole time after that.
            Activity::Busy(_) => now + self.patience.next,
            // It has its pings.
            Activity::Http2 => now + FAR,
        }
    }
}
