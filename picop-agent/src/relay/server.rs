//! Accepting: one task per listener, one per connection.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd as _, OwnedFd},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Limits, connection,
    event_loop::{self, LocalFuture, Mode, READABLE, Source},
    limits::{Gauge, Permit},
    socket::Socket,
    sockets::Sockets,
    threads::{DataThread, DataThreads, Place},
};
use crate::{
    intercept::{
        maps::Maps,
        netns::{Listeners, NetnsThread},
        workloads::{Event, ManagedWorkload},
    },
    route::RouteHandle,
    sys::tcp,
    telemetry::{
        access::{AccessRecord, Outcome},
        hub::Hub,
    },
};

/// How long after a workload's removal its connections are still accepted. A handshake over loopback takes microseconds,
/// unless its CPU is taken away; a listener that nobody is sent to costs nothing.
const LAST_CONNECTS: Duration = Duration::from_secs(1);

/// How often workloads are looked at that are no longer in use.
const TRIM: Duration = Duration::from_secs(3);

/// What every connection needs.
#[derive(Debug)]
pub struct Shared {
    /// The routes in effect.
    pub routes: RouteHandle,
    /// Where original destinations are.
    pub maps: Arc<Maps>,
    /// What the relay bears.
    pub limits: Limits,
    /// Counts up per connection: which endpoint's turn it is.
    pub turn: AtomicUsize,
    /// Whom connections tell what becomes of them.
    pub hub: Hub,
    total: Arc<Gauge>,
}

/// What every connection of a workload needs.
#[derive(Debug)]
pub struct Workload {
    /// As the reconciler knows it.
    pub managed: Arc<ManagedWorkload>,
    /// For its connections upstream.
    pub sockets: Sockets,
    gauge: Arc<Gauge>,
}

/// The relay.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    netns: NetnsThread,
    threads: Vec<Arc<DataThread>>,
    /// Ends accepting, everywhere.
    accepting: CancellationToken,
    /// Ends connections, everywhere, when they look.
    force: Arc<AtomicBool>,
    tasks: TaskTracker,
}

impl Server {
    /// A relay that serves nobody yet.
    pub fn new(
        routes: RouteHandle,
        maps: Arc<Maps>,
        netns: NetnsThread,
        threads: &DataThreads,
        limits: Limits,
        hub: Hub,
    ) -> Self {
        let shared = Shared {
            routes,
            maps,
            limits,
            turn: AtomicUsize::new(0),
            hub,
            total: Arc::new(Gauge::default()),
        };
        Self {
            shared: Arc::new(shared),
            netns,
            threads: threads.all(),
            accepting: CancellationToken::new(),
            force: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves workloads as they come and go, until the reconciler's end of the channel is dropped.
    pub async fn serve(&self, mut event_rx: mpsc::UnboundedReceiver<Event>) {
        let mut running: HashMap<usize, Running> = HashMap::new();
        let mut trim = tokio::time::interval(TRIM);
        // Workloads take turns; a workload's two listeners are on one thread.
        let mut homes = self.threads.clone().into_iter().cycle();
        loop {
            let event = tokio::select! {
                event = event_rx.recv() => event,
                _ = trim.tick() => {
                    for running in running.values() {
                        running.workload.sockets.trim();
                    }
                    continue;
                }
            };
            match event {
                Some(Event::Added(managed, listeners)) => {
                    let stop = self.accepting.child_token();
                    let workload = Arc::new(Workload {
                        sockets: Sockets::new(self.netns.clone(), Arc::clone(&managed.netns)),
                        gauge: Arc::new(Gauge::default()),
                        managed: Arc::clone(&managed),
                    });
                    let home = homes.next().expect("a data thread");
                    let ports = self.accept_on(&workload, listeners, &home, &stop);
                    running.insert(Arc::as_ptr(&managed) as usize, Running { workload, stop, ports });
                }
                Some(Event::Removed(managed)) => {
                    if let Some(running) = running.remove(&(Arc::as_ptr(&managed) as usize)) {
                        // Not among the tasks that a drain waits for: the agent's end is the end of this too.
                        tokio::spawn(retire(Arc::clone(&self.shared.maps), running));
                    }
                }
                None => return,
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
        self.force.store(true, Ordering::Release);
        self.threads.iter().for_each(|thread| thread.mailbox().wake_all());
        self.tasks.wait().await;
        left
    }

    /// Starts accepting. Returns the listeners' ports.
    fn accept_on(
        &self,
        workload: &Arc<Workload>,
        listeners: Listeners,
        home: &Arc<DataThread>,
        stop: &CancellationToken,
    ) -> Vec<u16> {
        let mut ports = Vec::new();
        for listener in [Some(listeners.v4), listeners.v6].into_iter().flatten() {
            ports.extend(listener.local_addr().map(|addr| addr.port()));
            let accept = Accept {
                shared: Arc::clone(&self.shared),
                workload: Arc::clone(workload),
                force: Arc::clone(&self.force),
                tasks: self.tasks.clone(),
                threads: self.threads.clone(),
                home: Arc::clone(home),
            };
            let (stop, counted) = (stop.clone(), self.tasks.token());
            home.mailbox().spawn(move || {
                Box::pin(async move {
                    accept.run(listener, stop).await;
                    drop(counted);
                })
            });
        }
        ports
    }
}

/// A workload that is accepted for.
struct Running {
    workload: Arc<Workload>,
    stop: CancellationToken,
    ports: Vec<u16>,
}

/// Ends accepting for a workload that the hooks know no more. Connects that they rewrote just before are still to be
/// accepted, and their destinations to be looked up.
async fn retire(maps: Arc<Maps>, Running { workload, stop, ports }: Running) {
    workload.sockets.close();
    let workload = Arc::clone(&workload.managed);
    tokio::time::sleep(LAST_CONNECTS).await;
    stop.cancel();
    // What came between the last accept and the end of a listener was reset with it; nobody asks for it. By port, as the
    // namespace may be managed again.
    tokio::time::sleep(LAST_CONNECTS).await;
    match maps.sweep_originals(workload.netns_cookie, &ports) {
        Ok(0) => {}
        Ok(swept) => tracing::warn!(workload = &*workload.name, swept, "connections were never accepted"),
        Err(error) => tracing::warn!(%error, "cannot sweep original destinations"),
    }
}

/// One listener's accept loop.
struct Accept {
    shared: Arc<Shared>,
    workload: Arc<Workload>,
    force: Arc<AtomicBool>,
    tasks: TaskTracker,
    threads: Vec<Arc<DataThread>>,
    home: Arc<DataThread>,
}

impl Accept {
    async fn run(self, listener: TcpListener, stop: CancellationToken) {
        if let Err(error) = self.accept(listener, stop).await {
            tracing::error!(workload = &*self.workload.managed.name, %error, "cannot use a listener");
        }
    }

    async fn accept(&self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let port = listener.local_addr()?.port();
        let listener = OwnedFd::from(listener);
        let mut source = Source::new(&listener, Mode::Listener)?;
        let mut stopped = pin!(stop.cancelled());
        let mut backoff = Backoff::default();
        while poll_fn(|cx| poll_waiting(&source, stopped.as_mut(), cx)).await {
            // To accept nobody costs the making of a socket, and to be told again costs a round: asking is cheaper.
            let waiting = tcp::waiting(listener.as_fd())?;
            for _ in 0..waiting {
                match try_accept(&listener) {
                    Ok((socket, client)) => {
                        backoff = Backoff::default();
                        self.begin(socket, client, port);
                    }
                    // The client gave up while it was in the queue.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        let pause = backoff.next();
                        let workload = &*self.workload.managed.name;
                        tracing::error!(workload, %error, ?pause, "cannot accept; pausing");
                        // Whoever waits there would be told of all the time.
                        source.remove(&listener)?;
                        event_loop::sleep(pause).await;
                        source = Source::new(&listener, Mode::Listener)?;
                        break;
                    }
                }
            }
        }
        // Handshakes that were done before the end are connections like any other.
        while let Ok((socket, client)) = try_accept(&listener) {
            self.begin(socket, client, port);
        }
        Ok(())
    }

    fn begin(&self, client: OwnedFd, from: SocketAddr, port: u16) {
        let mut record = AccessRecord::new(&self.shared.hub, Arc::clone(&self.workload.managed.name), from);
        let Some(permits) = self.permits() else {
            record.end(Outcome::Limit, "too many connections at once".to_owned());
            return reset(&Socket::new(client));
        };
        let shared = Arc::clone(&self.shared);
        let workload = Arc::clone(&self.workload);
        let force = Arc::clone(&self.force);
        let place = Place::find(&self.threads, &self.home);
        let thread = Arc::clone(place.thread());
        let counted = (permits, self.tasks.token(), place);
        let begin = move || -> LocalFuture {
            Box::pin(async move {
                let _counted = counted;
                let client = Socket::new(client);
                let served = connection::serve(&shared, &workload, &client, from, port, &mut record);
                let orderly = unless(&force, served).await.unwrap_or(false);
                if !orderly {
                    reset(&client);
                }
                // Nobody is to wait for the log.
                drop(client);
            })
        };
        if Arc::ptr_eq(&thread, &self.home) {
            event_loop::spawn(begin());
        } else {
            thread.mailbox().spawn(begin);
        }
    }

    fn permits(&self) -> Option<(Permit, Permit)> {
        let limits = &self.shared.limits;
        let max =
            self.workload.managed.spec.load().max_connections.unwrap_or(limits.max_connections_per_workload);
        Some((self.workload.gauge.admit(max)?, self.shared.total.admit(limits.max_connections)?))
    }
}

/// Waits until somebody is to be accepted, and says so; or until the end, and says no.
fn poll_waiting(
    source: &Source,
    stopped: Pin<&mut impl Future<Output = ()>>,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    if source.poll(cx, READABLE).is_ready() {
        // If there is another one, the next event says so.
        source.clear(READABLE);
        return Poll::Ready(true);
    }
    stopped.poll(cx).map(|()| false)
}

fn try_accept(listener: &OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let (socket, from) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let from = from.and_then(|from| from.try_into().ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket, from))
}

/// Makes the coming close a reset: the client must not take it for an orderly end.
pub(super) fn reset(socket: &Socket) {
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot turn a close into a reset");
    }
}

/// A future's result, or none if there is to be an end first. Whoever says so wakes every task.
async fn unless<F: Future>(end: &AtomicBool, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if end.load(Ordering::Acquire) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
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
