//! The thread that follows the cluster: from updates to tables in effect.
use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kube::{Api, Client};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep_until, timeout_at},
};

use super::{
    Built, OpenError, Options, State, Update, build, client,
    crd::{Environment, ServicePolicy},
    follow::Follow,
    objects::{Objects, Seconds, Slice},
    problem::Problem,
    status::{self, Wanted},
    used, wire,
};
use crate::{
    route::{InEffect, NotInstalled, RouteHandle, RouteTable},
    source::file::Summary,
    telemetry::chain,
};

/// How long the cluster must be quiet before its objects are made a table: one deed of a user's is several changes.
const QUIET: Duration = Duration::from_millis(20);

/// How long that is put off in a cluster that is never quiet.
const UNQUIET: Duration = Duration::from_millis(200);

/// How long a kind may not be followed before the agent is not ready: servers restart.
const GRACE: Duration = Duration::from_secs(10);

/// Updates that may wait.
const WAITING: usize = 1024;

/// What the thread talks to the others by.
pub(super) struct Settler {
    pub handle: RouteHandle,
    pub lost: watch::Sender<Option<String>>,
    pub asked: mpsc::Receiver<()>,
}

/// The kinds, and what is known of each.
#[derive(Debug, Default)]
struct Kinds {
    /// Those seen whole at least once.
    seen: BTreeSet<&'static str>,
    /// Those that are not followed at present, since when, and why.
    failing: BTreeMap<&'static str, (Instant, String)>,
}

/// Runs the thread.
pub(super) fn thread(
    options: Options,
    settler: Settler,
    first: oneshot::Sender<Result<RouteTable, OpenError>>,
    go: oneshot::Receiver<()>,
) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(settler.run(options, first, go)),
        // Whoever waits may have gone.
        Err(error) => drop(first.send(Err(OpenError::Thread(error)))),
    }
}

impl Settler {
    async fn run(
        mut self,
        options: Options,
        first: oneshot::Sender<Result<RouteTable, OpenError>>,
        go: oneshot::Receiver<()>,
    ) {
        let mut translation = options.translation.clone();
        let client = match client::connect(&options).await {
            Ok(client) => client,
            Err(error) => return drop(first.send(Err(error.into()))),
        };
        let (out, mut updates) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        let (wanted, wanted_rx) = watch::channel(Arc::new(Wanted::default()));
        if let Some(namespace) = options.lease_namespace {
            tasks.spawn(used::run(client.clone(), options.used, wanted_rx.clone()));
            tasks.spawn(status::run(client.clone(), namespace, options.node.clone(), wanted_rx));
        }
        let kinds = follow_all(&mut tasks, &client, options.node, &out);
        drop(out);
        let mut state =
            Following { objects: Objects::default(), kinds: Kinds::default(), problems: BTreeSet::new() };
        while state.kinds.seen.len() < kinds {
            tokio::select! {
                Some(update) = updates.recv() => drop(state.take(update)),
                // Whoever waited for the first table has gone.
                _ = self.asked.recv() => return,
            }
        }
        let built = build(&state.objects, now(), (*translation.borrow_and_update()).into());
        wanted.send_replace(Arc::new(status::wanted(&state.objects, &built, now())));
        let Built { table, problems, mut again_at, .. } = built;
        state.tell(problems);
        let table = match table {
            Ok(table) => table,
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "the cluster's objects make no table: none of them is routed"
                );
                RouteTable::default()
            }
        };
        if first.send(Ok(table)).is_err() || go.await.is_err() {
            return;
        }
        loop {
            self.say_lost(state.kinds.lost());
            let changed = tokio::select! {
                Some(update) = updates.recv() => state.take(update),
                asked = self.asked.recv() => {
                    if asked.is_none() {
                        return;
                    }
                    true
                }
                () = at(again_at) => true,
                Ok(()) = translation.changed() => true,
                () = state.kinds.next_lost() => false,
            };
            if !changed {
                continue;
            }
            let latest = Instant::now() + UNQUIET;
            while let Ok(Some(update)) =
                timeout_at((Instant::now() + QUIET).min(latest).into(), updates.recv()).await
            {
                state.take(update);
            }
            let built = build(&state.objects, now(), (*translation.borrow_and_update()).into());
            wanted.send_replace(Arc::new(status::wanted(&state.objects, &built, now())));
            again_at = built.again_at;
            state.tell(built.problems);
            self.settle(built.table.map_err(|error| chain(&error)));
        }
    }

    /// Puts a table in effect, or says why not.
    fn settle(&self, table: Result<RouteTable, String>) {
        let refused = match table {
            Ok(table) if table.same_routes(&self.handle.load()) => return self.handle.confirm(),
            Ok(table) => replace(&self.handle, table).err().map(|error| chain(&error)),
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            let version = self.handle.status().version;
            tracing::error!(version, error, "routes refused; those of this version stay in effect");
            self.handle.reject(error);
        }
    }

    fn say_lost(&self, lost: Option<String>) {
        self.lost.send_if_modified(|said| {
            let changed = said.is_some() != lost.is_some();
            match &lost {
                Some(why) if changed => {
                    tracing::warn!(why, "the cluster is not followed; its last known state holds");
                }
                None if changed => tracing::info!("the cluster is followed again"),
                _ => {}
            }
            *said = lost;
            changed
        });
    }
}

/// Puts a table in effect, and says so.
pub(super) fn replace(handle: &RouteHandle, table: RouteTable) -> Result<(), NotInstalled> {
    let summary = Summary::from(&table);
    let InEffect { version, entries } = handle.replace(table)?;
    tracing::info!(source = "kubernetes", version, ?summary, entries, "routes in effect");
    Ok(())
}

/// How many kinds are followed.
const KINDS: usize = 6;

/// Starts to follow every kind; says how many there are.
fn follow_all(tasks: &mut JoinSet<()>, client: &Client, node: String, out: &mpsc::Sender<Update>) -> usize {
    let node_pods = format!("spec.nodeName={node}");
    tasks.spawn({
        let (api, out) = (client.clone(), out.clone());
        async move {
            // Before any slice is looked at: what is kept of them depends on where this node is.
            let node = client::node(&api, &node).await;
            Follow {
                api: Api::<wire::EndpointSlice>::all(api),
                fields: None,
                kind: "EndpointSlice",
                optional: false,
                keep: Box::new(move |slice| Slice::new(slice, &node)),
                update: Update::Slices,
            }
            .run(out)
            .await;
        }
    });
    macro_rules! follow {
        ($kind:ty, $name:literal, $update:ident, $fields:expr, $optional:literal) => {{
            let follow = Follow {
                api: Api::<$kind>::all(client.clone()),
                fields: $fields,
                kind: $name,
                optional: $optional,
                keep: Box::new(|object: &$kind| Some(object.into())),
                update: Update::$update,
            };
            tasks.spawn(follow.run(out.clone()));
        }};
    }
    follow!(wire::Service, "Service", Services, None, false);
    follow!(wire::Pod, "Pod", Pods, Some(node_pods), false);
    follow!(wire::Namespace, "Namespace", Namespaces, None, false);
    follow!(Environment, "Environment", Environments, None, true);
    follow!(ServicePolicy, "ServicePolicy", Policies, None, true);
    KINDS
}

/// What is known of the cluster.
struct Following {
    objects: Objects,
    kinds: Kinds,
    problems: BTreeSet<Problem>,
}

impl Following {
    /// Takes an update in; says whether anything is different.
    fn take(&mut self, update: Update) -> bool {
        let objects = &mut self.objects;
        macro_rules! change {
            ($kind:literal, $change:expr, $to:ident) => {{
                if matches!($change, super::objects::Change::All(_)) {
                    self.kinds.seen.insert($kind);
                }
                $change.apply(&mut objects.$to)
            }};
        }
        match update {
            Update::Services(change) => change!("Service", change, services),
            Update::Slices(change) => change!("EndpointSlice", change, slices),
            Update::Pods(change) => change!("Pod", change, pods),
            Update::Namespaces(change) => change!("Namespace", change, namespaces),
            Update::Environments(change) => change!("Environment", change, environments),
            Update::Policies(change) => change!("ServicePolicy", change, policies),
            Update::State(kind, state) => {
                self.kinds.note(kind, state);
                false
            }
        }
    }

    /// Says what is new among the problems, and what is gone.
    fn tell(&mut self, problems: BTreeSet<Problem>) {
        for problem in problems.difference(&self.problems) {
            tracing::warn!(
                kind = problem.kind,
                object = %problem.object,
                reason = problem.reason.as_str(),
                problem = problem.message,
                "an object asks for what is not done"
            );
        }
        for gone in self.problems.difference(&problems) {
            tracing::info!(kind = gone.kind, object = %gone.object, reason = gone.reason.as_str(), "settled");
        }
        self.problems = problems;
    }
}

impl Kinds {
    fn note(&mut self, kind: &'static str, state: State) {
        match state {
            State::Live | State::Absent => {
                if state == State::Absent && self.seen.contains(kind) && !self.failing.contains_key(kind) {
                    tracing::debug!(kind, "the cluster does not know the kind");
                }
                if self.failing.remove(kind).is_some() {
                    tracing::info!(kind, "followed again");
                }
            }
            State::Failing(why) => {
                let since = self.failing.get(kind).map_or_else(Instant::now, |(since, _)| *since);
                match self.failing.get(kind) {
                    Some((_, said)) if *said == why => {}
                    _ => tracing::warn!(
                        kind,
                        error = why,
                        "cannot follow the cluster's objects of a kind; trying again"
                    ),
                }
                self.failing.insert(kind, (since, why));
            }
        }
    }

    /// Why what is known is not what is: kinds that have not been followed for longer than the grace.
    fn lost(&self) -> Option<String> {
        let lost = self.failing.iter().filter(|(_, (since, _))| since.elapsed() >= GRACE);
        let texts: Vec<_> = lost.map(|(kind, (_, why))| format!("{kind}: {why}")).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// Returns when the grace of another kind is over.
    async fn next_lost(&self) {
        let ends = self.failing.values().map(|(since, _)| *since + GRACE).filter(|end| *end > Instant::now());
        match ends.min() {
            Some(end) => sleep_until(end.into()).await,
            None => pending().await,
        }
    }
}

fn now() -> Seconds {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(now.as_secs()).unwrap_or(Seconds::MAX)
}

async fn at(time: Option<Seconds>) {
    let Some(time) = time else { return pending().await };
    let wait = u64::try_from(time.saturating_sub(now())).unwrap_or_default();
    // The clock may be set meanwhile: looked at again every minute.
    tokio::time::sleep(Duration::from_secs(wait.clamp(1, 60))).await;
}
