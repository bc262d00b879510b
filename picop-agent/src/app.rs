//! Where everything is put together: the life of `picop run`.

mod asked;
mod ending;
mod kernel;
mod process;
mod ready;
mod signals;
mod steady;
mod used;

use std::{net::TcpListener, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use tokio::sync::{Notify, mpsc, watch};

pub use self::signals::Stop;

use self::{kernel::Kernel, ready::Ready};
use crate::{
    admin::http::Access,
    cli::RunArgs,
    intercept::{
        canary::{Canary, Report, Status},
        cgroup::{Cgroup, CgroupMount},
        graft_probe,
        heartbeat::{self, Heartbeat},
        logs::{self, LogLevel},
        maps::{self, Maps},
        netns::NetnsThread,
        pins::Pins,
        programs::Attached,
        table, told, upkeep,
        workloads::Reconciler,
    },
    relay::{Limits, server::Server, threads::DataThreads},
    route::RouteHandle,
    source::{Opened, kubernetes::used::Used},
    telemetry::{
        hub::Hub,
        logs::LogControl,
        metrics::labels,
        spans::{self, Spans},
    },
};

/// How long the last spans may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Runs the agent until it is told to stop.
pub async fn run(args: RunArgs, logs: LogControl) -> Result<()> {
    // Before anything is touched: a signal from here on is an orderly stop.
    let mut stop = Stop::new()?;
    process::raise_descriptor_limit();
    process::check_capabilities()?;

    if let Some(file) = &args.ready_file {
        // A predecessor that was killed left it.
        ready::remove(file);
    }
    let mount = CgroupMount::find()?;
    let root = match &args.cgroup {
        Some(path) => mount.cgroup(path)?,
        None => mount.default_attach_point()?,
    };
    let own = mount.own()?;

    let routes = RouteHandle::new();
    let reload = Arc::new(Notify::new());
    let (used_tx, used_rx) = watch::channel(Used::new());
    let (translation_tx, translation_rx) = watch::channel(false);
    let source = tokio::select! {
        source = Opened::open(args.source.origin(used_rx, translation_rx), routes.clone()) => source?,
        // A cluster that does not answer is waited for.
        () = stop.requested(&reload) => return Ok(()),
    };
    let spans = if spans::are_wanted() { Some(Spans::start()?) } else { None };
    let hub = Hub::new(labels::Limits { pairs: args.metrics_max_pairs }, spans);
    let tcp = asked::listen(&args)?;
    // Before anything is touched: a table that is too large for this node.
    maps::check_routes(table::count(source.table())?)?;

    let netns = NetnsThread::spawn().context("cannot start the network namespace thread")?;
    let pins = args.pin_dir.as_deref().map(|dir| Pins::new(dir, &root)).transpose()?;
    let Kernel { maps, told, attached, pins, own: _own_ops } =
        Kernel::take_over_or_make(pins, &root, &own, args.ebpf_log)?;
    maps.grafts.reset()?;

    let agent =
        Agent { args, mount, root, own, routes, reload, maps: Arc::new(maps), netns, pins, hub, logs, tcp };
    agent.serve(source, Told { used: used_tx, translation: translation_tx }, attached, told, &mut stop).await
}

/// What sources are told of the node.
struct Told {
    used: watch::Sender<Used>,
    /// Whether another program may rewrite connects before ours see them.
    translation: watch::Sender<bool>,
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
    hub: Hub,
    logs: LogControl,
    /// Where it answers besides the admin socket.
    tcp: Vec<(TcpListener, Access)>,
}

impl Agent {
    async fn serve(
        mut self,
        source: Opened,
        sources: Told,
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
            move |table| steady::sync_routes(&maps, table, &fixed)
        });
        let lost = source.lost();
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
            self.hub.clone(),
        ));
        let unknown = Report { interception: Status::Unknown, injection: Status::Unknown };
        let (canary_tx, canary_rx) = watch::channel(unknown);

        let heartbeat = Heartbeat::start(Arc::clone(&self.maps), threads.alive())
            .context("cannot start the heartbeat")?;
        let serving = tokio::spawn({
            let server = Arc::clone(&server);
            async move { server.serve(event_rx).await }
        });
        let reader = told::Reader {
            registry: reconciler.registry(),
            routes: self.routes.clone(),
            hub: self.hub.clone(),
            log: self.args.log_direct,
            sampled: self.args.trace_direct,
        };
        let telling = tokio::spawn(reader.run(told));
        let admin = self.admin(reconciler.registry(), canary_rx.clone(), own_programs.clone())?;
        let reconciling = tokio::spawn(steady::reconcile(reconciler, self.routes.clone()));
        let (settled_tx, settled_rx) = watch::channel(false);
        let logging = tokio::spawn(self.logging(own_programs.clone()));
        let counting = tokio::spawn(steady::make_room(Arc::clone(&self.maps), self.routes.clone()));
        let using = tokio::spawn(used::note(
            Arc::clone(&self.maps),
            self.routes.clone(),
            self.hub.clone(),
            sources.used,
        ));
        let watching = tokio::spawn(source.run(Arc::clone(&self.reload)));
        let tell = upkeep::Tell { settled: settled_tx, translation: sources.translation };
        let upkeep = tokio::spawn(self.upkeep(own_programs, canary_rx.clone(), tell));

        let result = {
            let watch = canary.run(canary_tx);
            let ready = Ready {
                file: self.args.ready_file.clone(),
                routes: self.routes.clone(),
                pins: self.pins.as_ref(),
            };
            tokio::select! {
                () = watch => Ok(()),
                result = ready.keep(canary_rx, settled_rx, lost, &self.root) => result,
                () = stop.requested(&self.reload) => Ok(()),
            }
        };

        self.going(&server, stop, heartbeat).await;
        for task in [logging, counting, using, watching, telling, upkeep, reconciling, serving] {
            task.abort();
        }
        drop(admin);
        if let Some(spans) = self.hub.spans() {
            spans.finish(LAST_SPANS);
        }
        canary.stop().await;
        // `picop uninstall` may have removed the pins meanwhile.
        if self.pins.as_ref().is_some_and(Pins::are_whole) {
            tracing::info!("the programs stay, with the last routes (`picop uninstall` removes them)");
        } else {
            attached.detach_connect();
            self.last_headers(stop).await;
        }
        self.say_what_was_counted();
        attached.detach();
        if let Some(file) = &self.args.ready_file {
            ready::remove(file);
        }
        tracing::info!("stopped");
        result
    }

    /// Has what the kernel programs log in this log, if they do.
    fn logging(&self, programs: Vec<u32>) -> impl Future<Output = ()> + use<> {
        let wanted = self.args.ebpf_log != LogLevel::Off;
        async move {
            if wanted {
                logs::forward(programs).await;
            }
        }
    }

    fn upkeep(
        &self,
        programs: Vec<u32>,
        canary: watch::Receiver<Report>,
        tell: upkeep::Tell,
    ) -> impl Future<Output = ()> + use<> {
        upkeep::run(Arc::clone(&self.maps), self.root.clone(), programs, self.always(), canary, tell)
    }

    fn always(&self) -> upkeep::Always {
        upkeep::Always {
            flags: graft_probe::flags(&self.maps.grafts),
            tell: self.args.log_direct,
            sampled: self.sampled(),
            listeners: self.hub.events().listeners(),
        }
    }

    /// Of how many direct connections in 2^32 to hear, for their spans.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number from 0 to 2^32")]
    fn sampled(&self) -> u32 {
        let share = self.args.trace_direct.clamp(0.0, 1.0) * f64::from(u32::MAX);
        if self.hub.spans().is_some() { share as u32 } else { 0 }
    }

    fn limits(&self) -> Limits {
        Limits {
            header_timeout: self.args.header_timeout,
            connect_timeout: self.args.connect_timeout,
            variant_wait: self.args.variant_wait,
            max_connections: self.args.max_connections,
            max_connections_per_workload: self.args.max_connections_per_workload,
        }
    }
}
