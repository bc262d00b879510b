//! HTTP/1.1 on a port: the controller's, and that of the agent as a proxy.
mod body;

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::body::{Answer, BodyError, MOST, line, whole};

/// Connections at once. Those after them wait.
const CONNECTIONS: usize = 512;

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// How long answers that are under way may take at the end.
const LAST: Duration = Duration::from_secs(10);

/// What answers requests.
pub trait Answers: Send + Sync + 'static {
    /// Answers one.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// Whoever listens.
#[derive(Debug)]
pub struct Server {
    stop: CancellationToken,
    connections: TaskTracker,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Answers from here on.
    pub fn start(listener: TcpListener, api: impl Answers) -> Self {
        let stop = CancellationToken::new();
        let connections = TaskTracker::new();
        let accepting = tokio::spawn(accept(listener, Arc::new(api), connections.clone(), stop.clone()));
        Self { stop, connections, accepting }
    }

    /// Takes no more requests, and waits for the answers to those it has taken.
    pub async fn stop(self) {
        self.stop.cancel();
        // A panic in it was told by itself.
        self.accepting.await.ok();
        self.connections.close();
        if timeout(LAST, self.connections.wait()).await.is_err() {
            tracing::warn!("requests are left unanswered");
        }
    }
}

async fn accept(
    listener: TcpListener,
    api: Arc<impl Answers>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (api, stop) = (Arc::clone(&api), stop.clone());
                connections.spawn(async move {
                    serve(stream, api, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, api: Arc<impl Answers>, stop: CancellationToken) {
    // It matters little if it is not to be had.
    stream.set_nodelay(true).ok();
    let answer = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a client is gone");
    }
}
