//! Keeps what is managed in step with the cgroup tree and the route table.
//!
//! Every round compares what is with what should be ([`plan`], pure) and acts on the difference. A workload that cannot
//! be managed yet (no process to take the network namespace from, no loopback) is tried again next round.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use picop_common::{
    addr::PortBe,
    maps::{LEVELS_MAX, WORKLOAD_BYPASS, WORKLOAD_HEADER, WORKLOAD_RELAY, Workload},
    route::environment_key,
};
use tokio::sync::mpsc;

use super::{
    cgroup::{Cgroup, CgroupMount},
    maps::{Maps, MapsError},
    netns::{Listeners, Netns, NetnsError, NetnsId, NetnsThread},
};
use crate::{
    protocol::Context,
    route::{Cgroups, ContextSource, PathChoice, PodUid, RouteTable, WorkloadSpec},
};

/// How often the cgroup tree is looked at. A pod's first connection comes later than this after its cgroup appears:
/// its images' processes have yet to start.
pub const RESYNC: Duration = Duration::from_millis(200);

/// A managed workload, as those who serve its connections see it.
#[derive(Debug)]
pub struct ManagedWorkload {
    /// Its cgroup's id: its key in the kernel.
    pub id: u64,
    /// Its name in logs: what the table calls it, or its cgroup, relative to the mount.
    pub name: Arc<str>,
    /// What the route table says of it; changes with the table.
    pub spec: ArcSwap<WorkloadSpec>,
    /// Where its upstream sockets are made.
    pub netns: Arc<Netns>,
    /// `SO_NETNS_COOKIE` of that.
    pub netns_cookie: u64,
}

/// What is managed and what is not yet, for whoever asks. A clone is the same registry.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    managed: HashMap<u64, Arc<ManagedWorkload>>,
    pending: Vec<Pending>,
}

/// A workload that is not managed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its cgroup, relative to the mount.
    pub name: String,
    /// Why not.
    pub why: String,
}

impl Registry {
    /// The name of a managed workload.
    pub fn name(&self, id: u64) -> Option<Arc<str>> {
        self.lock().managed.get(&id).map(|workload| Arc::clone(&workload.name))
    }

    /// All that is managed, by name.
    pub fn managed(&self) -> Vec<Arc<ManagedWorkload>> {
        let mut all: Vec<_> = self.lock().managed.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What is not managed yet.
    pub fn pending(&self) -> Vec<Pending> {
        self.lock().pending.clone()
    }

    /// How many are managed, and how many are not yet.
    pub fn counts(&self) -> (usize, usize) {
        let known = self.lock();
        (known.managed.len(), known.pending.len())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the reconciler tells whoever serves connections.
#[derive(Debug)]
pub enum Event {
    /// Accept connections here.
    Added(Arc<ManagedWorkload>, Listeners),
    /// No more connections of this workload; those that run may end by themselves.
    Removed(Arc<ManagedWorkload>),
}

/// Why a workload could not be managed.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// Nobody lives there yet.
    #[error(
        "cgroup {0} has no process to take the network namespace from; waiting for one (or give `netns:`)"
    )]
    NoProcess(String),
    /// It is the agent's own cgroup, or holds it.
    #[error("cgroup {0} is the agent's own; the agent never intercepts itself")]
    Own(String),
    /// Its namespace or listeners cannot be had.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel's map does not take it.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// What one round found to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Cgroup ids to manage.
    pub add: Vec<u64>,
    /// Cgroup ids whose spec changed.
    pub update: Vec<u64>,
    /// Cgroup ids to let go.
    pub remove: Vec<u64>,
}

/// Compares: what is managed (with its spec and network namespace) and what was found. A namespace of `None` is one that
/// cannot be told right now, which is no reason to let go.
pub fn plan(
    managed: &BTreeMap<u64, (WorkloadSpec, NetnsId)>,
    found: &BTreeMap<u64, (WorkloadSpec, Option<NetnsId>)>,
) -> Plan {
    let mut plan = Plan::default();
    for (id, (spec, netns)) in found {
        match managed.get(id) {
            None => plan.add.push(*id),
            // A new sandbox under the old cgroup: the listeners are in the wrong namespace.
            Some((_, was)) if netns.is_some_and(|now| now != *was) => {
                plan.remove.push(*id);
                plan.add.push(*id);
            }
            Some((was, _)) if was != spec => plan.update.push(*id),
            Some(_) => {}
        }
    }
    plan.remove.extend(managed.keys().filter(|id| !found.contains_key(id)));
    plan
}

/// Makes and unmakes workloads.
pub struct Reconciler {
    mount: CgroupMount,
    root: Cgroup,
    own: Cgroup,
    maps: Arc<Maps>,
    netns: NetnsThread,
    event_tx: mpsc::UnboundedSender<Event>,
    managed: BTreeMap<u64, Managed>,
    registry: Registry,
    /// Depths to look at besides the workloads' own.
    fixed_levels: Vec<u32>,
    /// Cgroups that somebody else put into the kernel's workloads.
    fixed_ids: Vec<u64>,
    /// Whether a predecessor's workloads were gone through.
    inherited_gone: bool,
    /// What was last said of each workload that cannot be managed, so that it is said once.
    complaints: HashMap<u64, Pending>,
    /// The node's network namespace.
    host: Option<NetnsId>,
}

struct Managed {
    workload: Arc<ManagedWorkload>,
    level: u32,
    listener_v4: PortBe,
    listener_v6: PortBe,
}

impl Reconciler {
    /// Manages workloads below `root`, the cgroup the programs are attached to.
    pub fn new(
        mount: CgroupMount,
        root: Cgroup,
        own: Cgroup,
        maps: Arc<Maps>,
        netns: NetnsThread,
        event_tx: mpsc::UnboundedSender<Event>,
        fixed: &[(u64, u32)],
    ) -> Self {
        Self {
            mount,
            root,
            own,
            maps,
            netns,
            event_tx,
            managed: BTreeMap::new(),
            registry: Registry::default(),
            fixed_levels: fixed.iter().map(|(_, level)| *level).collect(),
            fixed_ids: fixed.iter().map(|(id, _)| *id).collect(),
            inherited_gone: false,
            complaints: HashMap::new(),
            // The agent's own. If it cannot be told, no process is taken for the node's.
            host: Netns::own().ok().map(|netns| netns.id()),
        }
    }

    /// The names of what is managed.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// One round. Returns how many workloads are managed and how many are waiting.
    pub async fn round(&mut self, table: &RouteTable) -> Result<(usize, usize), MapsError> {
        let cgroups = self.scan(table);
        let found = cgroups
            .iter()
            .map(|(id, (cgroup, spec))| {
                (*id, (spec.clone(), self.netns_of(cgroup, spec).ok().map(|n| n.id())))
            })
            .collect();
        let managed = self
            .managed
            .iter()
            .map(|(id, m)| (*id, (WorkloadSpec::clone(&m.workload.spec.load()), m.workload.netns.id())))
            .collect();
        let Plan { add, update, remove } = plan(&managed, &found);
        for id in remove {
            self.remove(id)?;
        }
        for id in update {
            let (_, spec) = &cgroups[&id];
            self.update(id, spec)?;
        }
        self.complaints.retain(|id, _| cgroups.contains_key(id));
        for id in add {
            let (cgroup, spec) = &cgroups[&id];
            match self.add(cgroup, spec).await {
                Ok(()) => drop(self.complaints.remove(&id)),
                Err(error) => self.complain(cgroup, &error),
            }
        }
        self.set_levels(|_| false)?;
        if !self.inherited_gone {
            // What a predecessor managed and this agent does not. Only when the hooks are told of all that is managed.
            let fixed = self.fixed_ids.clone();
            let gone =
                self.maps.retain_workloads(|id| self.managed.contains_key(&id) || fixed.contains(&id))?;
            if gone > 0 {
                tracing::info!(workloads = gone, "workloads of the last agent are no longer managed");
            }
            self.inherited_gone = true;
        }
        self.registry.lock().pending = self.complaints.values().cloned().collect();
        Ok((self.managed.len(), self.complaints.len()))
    }

    /// Lets go of everything.
    pub fn clear(&mut self) -> Result<(), MapsError> {
        let ids: Vec<_> = self.managed.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.remove(id))
    }

    /// The cgroups the table's entries match. An entry's pattern is expanded by directory, so the cost is that of the
    /// levels it names, not of the whole tree.
    fn scan(&self, table: &RouteTable) -> BTreeMap<u64, (Cgroup, WorkloadSpec)> {
        let mut found = BTreeMap::new();
        let pods = if table.has_pods() { self.root.pods() } else { HashMap::new() };
        for entry in table.workloads() {
            for path in expand(self.mount.path(), &pods, entry) {
                let Ok(cgroup) = self.mount.cgroup(&path) else { continue };
                if !cgroup.dir.starts_with(&self.root.dir) || found.contains_key(&cgroup.id) {
                    continue;
                }
                // Another entry may come first in the file.
                if let Some(spec) = table.workload_for(&cgroup.rel) {
                    found.insert(cgroup.id, (cgroup.clone(), spec.clone()));
                }
            }
        }
        found
    }

    /// The network namespace of a workload.
    fn netns_of(&self, cgroup: &Cgroup, spec: &WorkloadSpec) -> Result<Netns, WorkloadError> {
        if let Some(path) = &spec.netns {
            return Ok(Netns::open(path)?);
        }
        let none = || WorkloadError::NoProcess(cgroup.rel.clone());
        match &spec.cgroup {
            Cgroups::At(_) => Ok(Netns::of_process(cgroup.first_process().ok_or_else(none)?)?),
            Cgroups::Pod(pod) => {
                let mut last = None;
                for pid in cgroup.first_processes() {
                    match Netns::of_process(pid) {
                        Ok(netns) if pod.host_network || Some(netns.id()) != self.host => return Ok(netns),
                        Ok(_) => {}
                        // It has ended meanwhile, or may not be looked at.
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.map_or_else(none, Into::into))
            }
        }
    }

    async fn add(&mut self, cgroup: &Cgroup, spec: &WorkloadSpec) -> Result<(), WorkloadError> {
        if self.own.dir.starts_with(&cgroup.dir) {
            return Err(WorkloadError::Own(cgroup.rel.clone()));
        }
        let netns = Arc::new(self.netns_of(cgroup, spec)?);
        let listeners = self.netns.listen(Arc::clone(&netns)).await?;
        let port = |l: &std::net::TcpListener| {
            l.local_addr().map_or(PortBe::NONE, |addr| PortBe::from_host(addr.port()))
        };
        let managed = Managed {
            workload: Arc::new(ManagedWorkload {
                id: cgroup.id,
                name: spec.name.clone().unwrap_or_else(|| cgroup.rel.as_str().into()),
                spec: ArcSwap::from_pointee(spec.clone()),
                netns,
                netns_cookie: listeners.cookie,
            }),
            level: cgroup.level,
            listener_v4: port(&listeners.v4),
            listener_v6: listeners.v6.as_ref().map_or(PortBe::NONE, port),
        };
        // Somebody accepts before anybody is sent there.
        let added = Event::Added(Arc::clone(&managed.workload), listeners);
        if self.event_tx.send(added).is_err() {
            return Ok(()); // The agent is going.
        }
        let entry = managed.entry(cgroup.id, &self.maps);
        self.registry.lock().managed.insert(cgroup.id, Arc::clone(&managed.workload));
        self.managed.insert(cgroup.id, managed);
        // A predecessor's levels stay until all that it managed was looked at.
        self.set_levels(|level| self.maps.levels().contains(&level))?;
        if let Err(error) = entry.and_then(|entry| self.maps.put_workload(cgroup.id, entry)) {
            self.remove(cgroup.id)?;
            return Err(error.into());
        }
        tracing::info!(
            workload = spec.name.as_deref().unwrap_or(&cgroup.rel),
            cgroup = cgroup.rel,
            environment = spec.environment.as_ref().map(tracing::field::display),
            "managing workload"
        );
        Ok(())
    }

    fn update(&mut self, id: u64, spec: &WorkloadSpec) -> Result<(), MapsError> {
        let Some(managed) = self.managed.get(&id) else { return Ok(()) };
        managed.workload.spec.store(Arc::new(spec.clone()));
        self.maps.put_workload(id, managed.entry(id, &self.maps)?)?;
        tracing::info!(workload = &*managed.workload.name, "workload changed");
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Result<(), MapsError> {
        let Some(managed) = self.managed.remove(&id) else { return Ok(()) };
        self.maps.remove_workload(id)?;
        self.registry.lock().managed.remove(&id);
        tracing::info!(workload = &*managed.workload.name, "workload is gone");
        // Whoever accepts ends with the agent at the latest.
        drop(self.event_tx.send(Event::Removed(managed.workload)));
        Ok(())
    }

    /// Tells the hooks at which depths to look, deepest first: where something is managed, and where `keep` says.
    fn set_levels(&self, keep: impl Fn(u32) -> bool) -> Result<(), MapsError> {
        let mut levels = self.fixed_levels.clone();
        levels.extend(self.managed.values().map(|m| m.level));
        levels.extend(self.maps.levels().into_iter().filter(|level| *level != 0 && keep(*level)));
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels.dedup();
        if levels.len() > LEVELS_MAX {
            tracing::warn!(
                "workloads sit at {} depths of the cgroup tree; only the deepest {LEVELS_MAX} are intercepted",
                levels.len()
            );
        }
        let mut slots = [0; LEVELS_MAX];
        for (slot, level) in slots.iter_mut().zip(levels) {
            *slot = level;
        }
        self.maps.set_agent(|conf| {
            conf.agent_cgroup = self.own.id;
            conf.levels = slots;
        })
    }

    fn complain(&mut self, cgroup: &Cgroup, error: &WorkloadError) {
        let text = crate::telemetry::chain(error);
        if self.complaints.get(&cgroup.id).is_none_or(|said| said.why != text) {
            tracing::warn!(workload = cgroup.rel, error = text, "workload is not managed yet");
            self.complaints.insert(cgroup.id, Pending { name: cgroup.rel.clone(), why: text });
        }
    }
}

impl Managed {
    /// What the hooks must know of it. Its header is in the kernel before anything names it.
    fn entry(&self, id: u64, maps: &Maps) -> Result<Workload, MapsError> {
        let spec = self.workload.spec.load();
        let mut flags = 0;
        if spec.bypass {
            flags |= WORKLOAD_BYPASS;
        }
        if spec.context == ContextSource::Header {
            flags |= WORKLOAD_HEADER;
        }
        if spec.path == PathChoice::Relay {
            flags |= WORKLOAD_RELAY;
        }
        Ok(Workload {
            id,
            netns_cookie: self.workload.netns_cookie,
            environment: spec.environment.as_ref().map_or(0, |e| environment_key(e.as_str().as_bytes())),
            header: spec.own.as_ref().map(Context::wire).map_or(Ok(0), |wire| maps.put_header(wire))?,
            listener_v4: self.listener_v4,
            listener_v6: self.listener_v6,
            flags,
        })
    }
}

fn expand(mount: &Path, pods: &HashMap<PodUid, PathBuf>, entry: &WorkloadSpec) -> Vec<PathBuf> {
    let pattern = match &entry.cgroup {
        Cgroups::At(pattern) => pattern,
        Cgroups::Pod(pod) => return pods.get(&pod.uid).cloned().into_iter().collect(),
    };
    if let Some(path) = pattern.as_path() {
        return vec![mount.join(path)];
    }
    let prefix = glob::Pattern::escape(&mount.to_string_lossy());
    glob::glob(&format!("{prefix}/{}", pattern.as_str()))
        .map(|paths| paths.filter_map(Result::ok).filter(|path| path.is_dir()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
