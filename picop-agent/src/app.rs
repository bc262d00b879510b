//! Where everything is put together: the life of `picop run`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    maps::{MapData, RingBuf},
    programs::links::FdLink,
};
use picop_common::{
    maps::AGENT_TELL,
    route::{Route, RouteKey},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
    time::timeout,
};

use crate::{
    cli::RunArgs,
    intercept::{
        canary::{Canary, Report, Status},
        capabilities,
        cgroup::{Cgroup, CgroupMount},
        graft_probe,
        heartbeat::{self, Heartbeat},
        leave,
        maps::{self, Maps},
        netns::NetnsThread,
        object,
        pins::Pins,
        programs::{self, Attached},
        snapshot::{self, Snapshot},
        table, told, upkeep,
        workloads::{self, Reconciler},
    },
    relay::{Limits, server::Server, threads::DataThreads},
    route::{RouteHandle, RouteTable},
    source::file::{self, FileSource},
};

/// How long the canary may take to prove interception at start.
const PROOF: Duration = Duration::from_secs(10);

/// From "no more connections here" to closing the listeners. A handshake over loopback takes microseconds.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs the agent until it is told to stop.
pub async fn run(args: RunArgs) -> Result<()> {
    // Before anything is touched: a signal from here on is an orderly stop.
    let mut stop = Stop::new()?;
    raise_descriptor_limit();
    check_capabilities()?;

    if let Some(file) = &args.ready_file {
        // A predecessor that was killed left it.
        remove(file);
    }
    let mount = CgroupMount::find()?;
    let root = match &args.cgroup {
        Some(path) => mount.cgroup(path)?,
        None => mount.default_attach_point()?,
    };
    let own = mount.own()?;

    let routes = RouteHandle::new();
    let reload = Arc::new(Notify::new());
    let source = FileSource::open(&args.routes, routes.clone())?;
    // Before anything is touched: a table that is too large for this node.
    maps::check_routes(table::count(source.table())?)?;

    let netns = NetnsThread::spawn().context("cannot start the network namespace thread")?;
    let pins = args.pin_dir.as_deref().map(|dir| Pins::new(dir, &root)).transpose()?;
    let Kernel { maps, told, attached, pins, _own } = Kernel::take_over_or_make(pins, &root, &own)?;
    maps.grafts.reset()?;

    let agent = Agent { args, mount, root, own, routes, reload, maps: Arc::new(maps), netns, pins };
    agent.serve(source, attached, told, &mut stop).await
}

/// The programs and maps, attached.
struct Kernel {
    maps: Maps,
    told: RingBuf<MapData>,
    attached: Attached,
    pins: Option<Pins>,
    /// The hook on the agent's own sockets.
    _own: FdLink,
}

impl Kernel {
    /// Adopts what an agent of the same build left pinned, or loads and attaches (and pins) anew.
    fn take_over_or_make(pins: Option<Pins>, root: &Cgroup, own: &Cgroup) -> Result<Self> {
        match pins {
            Some(mut pins) if pins.are_whole() => {
                let (maps, told, attached) =
                    (Maps::take(&mut pins)?, Maps::take_told(&mut pins)?, pins.adopt()?);
                tracing::info!(cgroup = %root.dir.display(), "adopted the last agent's programs");
                let own = programs::attach_to_own(&mut pins.agent_ops()?, own)?;
                Ok(Self { maps, told, attached, pins: Some(pins), _own: own })
            }
            pins => Self::make(root, own, pins),
        }
    }

    fn make(root: &Cgroup, own: &Cgroup, pins: Option<Pins>) -> Result<Self> {
        let mut ebpf = object::load()?;
        programs::load(&mut ebpf)?;
        let attached = programs::attach(&mut ebpf, root)?;
        tracing::info!(cgroup = %root.dir.display(), "programs attached");
        let attached = match &pins {
            Some(pins) => pins.pin(&mut ebpf, attached)?,
            None => attached,
        };
        let own = programs::attach_to_own(programs::agent_ops(&mut ebpf)?, own)?;
        let (maps, told) = (Maps::take(&mut ebpf)?, Maps::take_told(&mut ebpf)?);
        // No workload is known to the hooks yet, so nothing is routed without a table.
        Ok(Self { maps, told, attached, pins, _own: own })
    }
}

/// The parts that live as long as the agent.
struct Agent {
    args: RunArgs,
    mount: CgroupMount,
    root: Cgroup,
    own: Cgroup,
    routes: RouteHandle,
    reload: Arc<Notify>,
    maps: Arc<Maps>,
    netns: NetnsThread,
    pins: Option<Pins>,
}

impl Agent {
    async fn serve(
        self,
        source: file::Opened,
        mut attached: Attached,
        told: RingBuf<MapData>,
        stop: &mut Stop,
    ) -> Result<()> {
        let own_programs = attached.program_ids().to_vec();
        let mut canary =
            Canary::start(&self.mount, &self.root, &self.own, Arc::clone(&self.maps), &self.netns).await?;
        // A connection is decided by the kernel or by the relay: both have a table, or neither. The kernel, which may have no
        // room for it, is asked first.
        self.routes.install_by({
            let (maps, fixed) = (Arc::clone(&self.maps), canary.routes());
            move |table| sync_routes(&maps, table, &fixed)
        });
        let source = source.put_in_effect()?;
        let (event_tx, event_rx) = mpsc::unbounded_channel();
        let mut reconciler = Reconciler::new(
            self.mount.clone(),
            self.root.clone(),
            self.own.clone(),
            Arc::clone(&self.maps),
            self.netns.clone(),
            event_tx,
            &[canary.place()],
        );
        // The hooks must know where to look, the canary included, before anybody asks whether they work.
        reconciler.round(&self.routes.load()).await?;
        // From here on connections may be sent to the listeners.
        self.maps.beat(heartbeat::now_ns())?;
        let threads = DataThreads::start().context("cannot start the data threads")?;
        let server = Arc::new(Server::new(
            self.routes.clone(),
            Arc::clone(&self.maps),
            self.netns.clone(),
            &threads,
            self.limits(),
        ));
        let unknown = Report { interception: Status::Unknown, injection: Status::Unknown };
        let (canary_tx, canary_rx) = watch::channel(unknown);

        let heartbeat = Heartbeat::start(Arc::clone(&self.maps), threads.runtimes())
            .context("cannot start the heartbeat")?;
        let serving = tokio::spawn({
            let server = Arc::clone(&server);
            async move { server.serve(event_rx).await }
        });
        let telling = tokio::spawn(told::run(told, reconciler.registry(), self.routes.clone()));
        let reconciling = tokio::spawn(reconcile(reconciler, self.routes.clone()));
        let always =
            if self.args.log_direct { AGENT_TELL } else { 0 } | graft_probe::flags(&self.maps.grafts);
        let (settled_tx, settled_rx) = watch::channel(false);
        let watching = tokio::spawn(source.run(Arc::clone(&self.reload)));
        let upkeep = tokio::spawn(upkeep::run(
            Arc::clone(&self.maps),
            self.root.clone(),
            own_programs,
            always,
            canary_rx.clone(),
            settled_tx,
        ));

        let result = {
            let watch = canary.run(canary_tx);
            let ready = Ready {
                file: self.args.ready_file.clone(),
                routes: self.routes.clone(),
                pins: self.pins.as_ref(),
            };
            tokio::select! {
                () = watch => Ok(()),
                result = ready.keep(canary_rx, settled_rx, &self.root) => result,
                () = stop.requested(&self.reload) => Ok(()),
            }
        };

        self.going(&server, stop, heartbeat).await;
        for task in [watching, telling, upkeep, reconciling, serving] {
            task.abort();
        }
        canary.stop().await;
        // `picop uninstall` may have removed the pins meanwhile.
        if self.pins.as_ref().is_some_and(Pins::are_whole) {
            tracing::info!("the programs stay, with the last routes (`picop uninstall` removes them)");
        } else {
            attached.detach_connect();
            self.last_headers(stop).await;
        }
        match Snapshot::of(&self.maps) {
            Ok(Snapshot { connections, events, .. }) => tracing::info!(
                connections = snapshot::summary(&connections),
                events = snapshot::summary(&events),
                "counted by the programs since they were loaded"
            ),
            Err(error) => {
                tracing::warn!(error = crate::telemetry::chain(&error), "the counters cannot be read");
            }
        }
        attached.detach();
        if let Some(file) = &self.args.ready_file {
            remove(file);
        }
        tracing::info!("stopped");
        result
    }

    /// Sends nobody here any more, and waits for those who are.
    async fn going(&self, server: &Server, stop: &mut Stop, heartbeat: Heartbeat) {
        // An old heartbeat is how the hooks know that there is no agent: connections go to their base.
        drop(heartbeat);
        if let Err(error) = self.maps.beat(0) {
            tracing::warn!(%error, "cannot tell the hooks that the agent is going");
        }
        // A connect that was rewritten just before needs a moment to get through its handshake and to our accept.
        tokio::time::sleep(SETTLE).await;
        let patience = self.args.drain_timeout;
        tracing::info!(?patience, "draining; a second signal ends it at once");
        let forced = tokio::select! {
            left = server.drain(patience) => left,
            () = stop.requested(&self.reload) => server.drain(Duration::ZERO).await,
        };
        if forced > 0 {
            tracing::warn!(connections = forced, "connections were reset at the end of the drain");
        }
    }

    /// Waits for those that were routed with a header and have not sent yet. A second signal ends that too.
    async fn last_headers(&self, stop: &mut Stop) {
        let grace = self.args.header_grace;
        let left = tokio::select! {
            left = leave::waited(grace, || self.maps.enrolled()) => left,
            () = stop.requested(&self.reload) => self.maps.enrolled(),
        };
        if left > 0 {
            tracing::warn!(
                sockets = left,
                ?grace,
                "sockets were still enrolled when the programs went: what they send first has no header"
            );
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            header_timeout: self.args.header_timeout,
            connect_timeout: self.args.connect_timeout,
            max_connections: self.args.max_connections,
            max_connections_per_workload: self.args.max_connections_per_workload,
        }
    }
}

/// Says when the agent is ready and when it is not: programs proven by the canary, workloads looked at once.
struct Ready<'a> {
    file: Option<PathBuf>,
    routes: RouteHandle,
    pins: Option<&'a Pins>,
}

impl Ready<'_> {
    /// Ends only with an error: at start, if interception cannot be proven.
    async fn keep(
        &self,
        mut canary_rx: watch::Receiver<Report>,
        mut settled_rx: watch::Receiver<bool>,
        root: &Cgroup,
    ) -> Result<()> {
        let proven = async {
            loop {
                if canary_rx.borrow_and_update().interception == Status::Live {
                    return;
                }
                if canary_rx.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        if timeout(PROOF, proven).await.is_err() {
            let why = match &canary_rx.borrow().interception {
                Status::Dead(why) => why.clone(),
                _ => "the canary gave no answer".to_owned(),
            };
            bail!(
                "interception is not live although the programs are attached to {}: {why}; is this the cgroup v2 tree \
                 of the host, and is no other program overriding connects there?",
                root.dir.display()
            );
        }
        // From the first moment on, connections take the path they will take later.
        if settled_rx.wait_for(|settled| *settled).await.is_err() {
            std::future::pending::<()>().await;
        }
        // Ours are proven: those of another build, which came first until now, may go.
        if let Some(pins) = self.pins {
            pins.retire_others()?;
        }
        let mut was = None;
        loop {
            let live = canary_rx.borrow_and_update().interception == Status::Live;
            if was != Some(live) {
                self.tell(live)?;
                was = Some(live);
            }
            if canary_rx.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn tell(&self, live: bool) -> Result<()> {
        let version = self.routes.load().version();
        if live {
            tracing::info!(routes = version, "ready");
        } else {
            tracing::warn!("not ready: interception is not live");
        }
        match &self.file {
            Some(file) if live => {
                fs::write(file, format!("{}\n", std::process::id()))
                    .with_context(|| format!("cannot write ready file {}", file.display()))?;
            }
            Some(file) => remove(file),
            None => {}
        }
        Ok(())
    }
}

fn remove(file: &Path) {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, file = %file.display(), "cannot remove the ready file");
        }
        _ => {}
    }
}

/// Reconciles on a timer and at each new table.
async fn reconcile(mut reconciler: Reconciler, routes: RouteHandle) {
    let mut changes = routes.subscribe();
    let mut tick = tokio::time::interval(workloads::RESYNC);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let table = Arc::clone(&changes.borrow_and_update());
        if let Err(error) = reconciler.round(&table).await {
            tracing::error!(
                error = crate::telemetry::chain(&error),
                "workloads cannot be brought in step; retrying"
            );
        }
        tokio::select! {
            _ = tick.tick() => {}
            Ok(()) = changes.changed() => {}
        }
    }
}

/// Puts a table in effect in the kernel, and returns how many entries it has there.
fn sync_routes(maps: &Maps, table: &RouteTable, fixed: &[(RouteKey, Route)]) -> Result<usize> {
    maps::check_routes(table::count(table)? + fixed.len())?;
    let mut entries = table::entries(table)?;
    entries.extend_from_slice(fixed);
    maps.switch_routes(&entries)?;
    Ok(entries.len())
}

/// The signals that end the agent, and the one that reloads.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Returns when the agent is to stop; a SIGHUP meanwhile asks for a reload.
    async fn requested(&mut self, reload: &Notify) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => reload.notify_one(),
            }
        }
    }
}

fn check_capabilities() -> Result<()> {
    let effective = capabilities::effective().context("cannot tell which capabilities this process has")?;
    let missing = capabilities::missing(effective);
    if !missing.is_empty() {
        let list: Vec<_> = missing.iter().map(|c| format!("{} ({})", c.name, c.purpose)).collect();
        bail!("missing capabilities: {}; run as root, or give these to the container", list.join(", "));
    }
    Ok(())
}

/// Two descriptors a connection: as many as the hard limit lets.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}
