//! Accepting: one task per listener, one per connection.

use std::{
    io,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Limits, connection,
    limits::{Gauge, Permit},
};
use crate::{
    intercept::{
        maps::Maps,
        netns::{Listeners, NetnsThread},
        workloads::{Event, ManagedWorkload},
    },
    route::RouteHandle,
    telemetry::access::{AccessRecord, Outcome},
};

/// How long after a workload's removal its connections are still accepted. A handshake over loopback takes microseconds,
/// unless its CPU is taken away; a listener that nobody is sent to costs nothing.
const LAST_CONNECTS: Duration = Duration::from_secs(1);

/// What every connection needs.
#[derive(Debug)]
pub struct Shared {
    /// The routes in effect.
    pub routes: RouteHandle,
    /// Where original destinations are.
    pub maps: Arc<Maps>,
    /// Where upstream sockets are made.
    pub netns: NetnsThread,
    /// What the relay bears.
    pub limits: Limits,
    /// Counts up per connection: which endpoint's turn it is.
    pub turn: AtomicUsize,
    total: Arc<Gauge>,
}

/// The relay.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Ends accepting, everywhere.
    accepting: CancellationToken,
    /// Ends connections, everywhere.
    force: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// A relay that serves nobody yet.
    pub fn new(routes: RouteHandle, maps: Arc<Maps>, netns: NetnsThread, limits: Limits) -> Self {
        let shared = Shared {
            routes,
            maps,
            netns,
            limits,
            turn: AtomicUsize::new(0),
            total: Arc::new(Gauge::default()),
        };
        Self {
            shared: Arc::new(shared),
            accepting: CancellationToken::new(),
            force: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves workloads as they come and go, until the reconciler's end of the channel is dropped.
    pub async fn serve(&self, mut event_rx: mpsc::UnboundedReceiver<Event>) {
        let mut running = std::collections::HashMap::new();
        while let Some(event) = event_rx.recv().await {
            match event {
                Event::Added(workload, listeners) => {
                    let stop = self.accepting.child_token();
                    let ports = self.accept_on(&workload, listeners, &stop);
                    running.insert(Arc::as_ptr(&workload) as usize, (stop, ports));
                }
                Event::Removed(workload) => {
                    if let Some((stop, ports)) = running.remove(&(Arc::as_ptr(&workload) as usize)) {
                        // Not among the tasks that a drain waits for: the agent's end is the end of this too.
                        tokio::spawn(retire(Arc::clone(&self.shared.maps), workload, stop, ports));
                    }
                }
            }
        }
    }

    /// Ends: accepts what is in the queues already, waits for connections to end, and after `patience` resets the rest.
    /// Returns how many had to be reset.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.accepting.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.force.cancel();
        self.tasks.wait().await;
        left
    }

    /// Starts accepting. Returns the listeners' ports.
    fn accept_on(
        &self,
        workload: &Arc<ManagedWorkload>,
        listeners: Listeners,
        stop: &CancellationToken,
    ) -> Vec<u16> {
        let gauge = Arc::new(Gauge::default());
        let mut ports = Vec::new();
        for listener in [Some(listeners.v4), listeners.v6].into_iter().flatten() {
            ports.extend(listener.local_addr().map(|addr| addr.port()));
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(workload = workload.name, %error, "cannot use a listener");
                    continue;
                }
            };
            let accept = Accept {
                shared: Arc::clone(&self.shared),
                workload: Arc::clone(workload),
                gauge: Arc::clone(&gauge),
                force: self.force.clone(),
                tasks: self.tasks.clone(),
            };
            self.tasks.spawn(accept.run(listener, stop.clone()));
        }
        ports
    }
}

/// Ends accepting for a workload that the hooks know no more. Connects that they rewrote just before are still to be
/// accepted, and their destinations to be looked up.
async fn retire(maps: Arc<Maps>, workload: Arc<ManagedWorkload>, stop: CancellationToken, ports: Vec<u16>) {
    tokio::time::sleep(LAST_CONNECTS).await;
    stop.cancel();
    // What came between the last accept and the end of a listener was reset with it; nobody asks for it. By port, as the
    // namespace may be managed again.
    tokio::time::sleep(LAST_CONNECTS).await;
    match maps.sweep_originals(workload.netns_cookie, &ports) {
        Ok(0) => {}
        Ok(swept) => tracing::warn!(workload = workload.name, swept, "connections were never accepted"),
        Err(error) => tracing::warn!(%error, "cannot sweep original destinations"),
    }
}

/// One listener's accept loop.
struct Accept {
    shared: Arc<Shared>,
    workload: Arc<ManagedWorkload>,
    gauge: Arc<Gauge>,
    force: CancellationToken,
    tasks: TaskTracker,
}

impl Accept {
    async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let port = match listener.local_addr() {
            Ok(addr) => addr.port(),
            Err(error) => {
                return tracing::error!(workload = self.workload.name, %error, "a listener has no address");
            }
        };
        let mut backoff = Backoff::default();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, client)) => {
                    backoff = Backoff::default();
                    self.begin(stream, client, port);
                }
                // The client gave up while it was in the queue.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let pause = backoff.next();
                    tracing::error!(workload = self.workload.name, %error, ?pause, "cannot accept; pausing");
                    tokio::time::sleep(pause).await;
                }
            }
        }
        // Handshakes that were done before the end are connections like any other.
        while let Some(Ok((stream, client))) = now(listener.accept()).await {
            self.begin(stream, client, port);
        }
    }

    fn begin(&self, stream: TcpStream, client: std::net::SocketAddr, port: u16) {
        let mut record = AccessRecord::new(&self.workload.name, client);
        let Some(permits) = self.permits() else {
            record.end(Outcome::Limit, "too many connections at once".to_owned());
            return reset(&stream);
        };
        let shared = Arc::clone(&self.shared);
        let workload = Arc::clone(&self.workload);
        let force = self.force.clone();
        self.tasks.spawn(async move {
            let _permits = permits;
            let mut stream = stream;
            let served = connection::serve(&shared, &workload, &mut stream, client, port, &mut record);
            let orderly = force.run_until_cancelled(served).await.unwrap_or(false);
            if !orderly {
                reset(&stream);
            }
        });
    }

    fn permits(&self) -> Option<(Permit, Permit)> {
        let limits = &self.shared.limits;
        let max = self.workload.spec.load().max_connections.unwrap_or(limits.max_connections_per_workload);
        Some((self.gauge.admit(max)?, self.shared.total.admit(limits.max_connections)?))
    }
}

/// Makes the coming close a reset: the client must not take it for an orderly end.
pub(super) fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot turn a close into a reset");
    }
}

/// A future's result if it has one without waiting.
async fn now<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

/// Pauses between failing accepts (descriptors run out, and come back): doubling, up to a second.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        self.0 = (self.0 + 1).min(8);
        Duration::from_millis(4 << self.0)
    }
}
