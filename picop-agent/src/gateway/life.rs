//! The life of a gateway: accepting, and coming to an end.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::Semaphore,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};

use super::{GatewayError, listener::Listener, metrics::Metrics, stream::prepare, workers::Workers};
use crate::listen::{EVERYWHERE, bind};

/// How long accepting rests when the system has no more to give.
const REST: Duration = Duration::from_millis(200);

/// What runs, and whether it is to go on. A clone is of the same gateway.
#[derive(Clone, Debug, Default)]
pub struct Life {
    stopping: CancellationToken,
    /// The same to be asked in passing, without the token's lock, which all threads would share.
    is_stopping: Arc<AtomicBool>,
    ended: CancellationToken,
    tasks: TaskTracker,
    connections: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    /// Where connections are served; without any, where they are accepted.
    workers: Arc<[Handle]>,
}

impl Life {
    /// A gateway whose connections are served by these.
    pub fn with_workers(workers: &Workers) -> Self {
        Self { workers: workers.handles(), ..Self::default() }
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How many serve connections.
    pub fn workers(&self) -> usize {
        self.workers.len().max(1)
    }

    /// Completes when nothing new is to begin.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stopping.cancelled()
    }

    /// Whether nothing new is to begin. Whoever waits for [`Self::stopping`] is woken after this says so.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Completes when whatever still runs is to break off.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Runs something that ends by itself when the gateway stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Lets nothing new begin, and what runs come to its end for so long; then breaks it off. The number of connections broken
    /// off.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.is_stopping.store(true, Ordering::Release);
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.connections();
        self.ended.cancel();
        self.tasks.wait().await;
        left
    }

    /// Accepts connections until the gateway stops, and serves so many of them at once. Further ones wait in the listener's
    /// queue, and then with the client. `serve` is asked for once for each worker, by number.
    ///
    /// # Errors
    /// When the workers cannot share the listener.
    pub fn accept<S, F>(
        &self,
        listener: TcpListener,
        at_once: u32,
        mut serve: impl FnMut(usize) -> S,
    ) -> Result<(), GatewayError>
    where
        S: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        prepare(&listener).map_err(GatewayError::Share)?;
        let at_once = usize::try_from(at_once).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(at_once));
        let listener = listener.into_std().map_err(GatewayError::Share)?;
        if self.workers.is_empty() {
            let own = Listener::new(listener, false).map_err(GatewayError::Share)?;
            self.spawn(self.clone().accepting(own, places, serve(0)));
            return Ok(());
        }
        for (number, worker) in self.workers.iter().enumerate() {
            let own = listener.try_clone().map_err(GatewayError::Share)?;
            let _there = worker.enter();
            let own = Listener::new(own, self.workers.len() > 1).map_err(GatewayError::Share)?;
            let accepting = self.clone().accepting(own, Arc::clone(&places), serve(number));
            self.tasks.spawn_on(accepting, worker);
        }
        Ok(())
    }

    async fn accepting<S, F>(self, listener: Listener, places: Arc<Semaphore>, serve: S)
    where
        S: Fn(TcpStream, SocketAddr) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::select! {
            () = accept_all(&listener, &places, serve, &self) => {}
            () = self.stopping() => {}
        }
    }
}

async fn accept_all<S, F>(listener: &Listener, places: &Arc<Semaphore>, serve: S, life: &Life)
where
    S: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let place = Arc::clone(places).acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let serving = serve(stream, peer);
                let connections = Arc::clone(&life.connections);
                // As `Life::spawn`, without a wrapper that every turn of the connection would go through. In a box, since a task's
                // future is moved at its beginning and its end.
                let token = life.tasks.token();
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(Box::pin(serving).map(move |()| {
                    connections.fetch_sub(1, Ordering::Relaxed);
                    drop((place, token));
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept; too many open files (ulimit -n)?");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Listens at a port on all addresses, of both families where there are two.
pub async fn listen_everywhere(port: u16) -> Result<TcpListener, GatewayError> {
    listen((EVERYWHERE, port).into()).await
}

/// Listens at one address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, GatewayError> {
    bind(address).await.map_err(|source| GatewayError::Listen { address, source })
}

/// Says where a listener is.
pub fn announce(what: &'static str, listener: &TcpListener) {
    match listener.local_addr() {
        Ok(address) => tracing::info!(%address, what, "listening"),
        Err(error) => tracing::warn!(%error, what, "listening, at an address that is not known"),
    }
}

/// The signals that end a gateway.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on such a signal ends nothing by itself.
    pub fn new() -> Result<Self, GatewayError> {
        let on = |kind| signal(kind).map_err(GatewayError::Signals);
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Returns when the gateway is to stop.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
