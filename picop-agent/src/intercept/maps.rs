//! The typed view of every map the two sides share.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex},
};

use aya::{
    Ebpf,
    maps::{
        Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues,
        RingBuf, SockHash,
    },
};
use picop_common::{
    addr::{Endpoint, PortBe},
    connect::{EJECTION_NS, Event, Reason},
    maps::{
        AgentConf, Flow, HEADERS_MAX, HeaderBytes, LEVELS_MAX, ORIGINALS_MAX, Original, OriginalKey,
        ROUTES_MAX, SOCKS_MAX, UNHEALTHY_MAX, USAGE_MAX, Usage, UsageKey, WORKLOADS_MAX, Workload,
    },
    route::{Route, RouteKey, header_key},
};

use serde::Serialize;

use super::{flow_slots::FlowSlots, grafts::Grafts};
use crate::sys;

/// A map could not be used.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// The object has no such map, or one of another layout: agent and object are not of one build.
    #[error("the eBPF object has no usable map {name}; rebuild with `cargo xtask build-ebpf`")]
    Missing {
        /// Its name.
        name: &'static str,
        /// What aya says.
        #[source]
        source: Option<MapError>,
    },
    /// A write failed.
    #[error("cannot write map {name}")]
    Write {
        /// Its name.
        name: &'static str,
        /// What the kernel says.
        #[source]
        source: MapError,
    },
    /// More routes than the kernel's map is allowed to hold.
    #[error(
        "the routes come to {entries} entries, of which the kernel's table holds {max}; fewer addresses and endpoints of \
         services with many variants help most"
    )]
    TooManyRoutes {
        /// How many there are.
        entries: usize,
        /// How many fit.
        max: usize,
    },
    /// Two headers have the same key.
    #[error("two contexts have the same key; change one of them by a character")]
    HeaderCollision,
    /// Memory cannot be shared with the programs.
    #[error("cannot map the memory of map {name}")]
    Share {
        /// Its name.
        name: &'static str,
        /// What the kernel says.
        #[source]
        source: std::io::Error,
    },
    /// A read failed.
    #[error("cannot read map {name}")]
    Read {
        /// Its name.
        name: &'static str,
        /// What the kernel says.
        #[source]
        source: MapError,
    },
}

/// How many entries maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Entries {
    /// Of the route table in effect; none if it could not be looked at.
    pub routes: Option<usize>,
    /// Managed cgroups, the canary's included.
    pub workloads: usize,
    /// Headers, those of former workloads included.
    pub headers: usize,
    /// Relayed connections that the agent has not accepted yet.
    pub originals: usize,
    /// Endpoints that did not take a connection; void by their time, though still there.
    pub unhealthy: usize,
    /// Slots of connections that are open: direct ones, and the clients' sides of relayed ones.
    pub flows: usize,
    /// Relayed connections whose client is enrolled for a graft, whether or not it has begun.
    pub grafts: usize,
}

type Routes = HashMap<MapData, RouteKey, Route>;

/// Every map the agent touches. Shared: each map has its own lock, held for one system call or a few.
pub struct Maps {
    agent: Mutex<(Array<MapData, AgentConf>, AgentConf)>,
    heartbeat: Mutex<Array<MapData, u64>>,
    workloads: Mutex<HashMap<MapData, u64, Workload>>,
    routes: Mutex<ArrayOfMaps<MapData, Routes>>,
    shape: MapData,
    headers: Mutex<HashMap<MapData, u64, HeaderBytes>>,
    unhealthy: Mutex<HashMap<MapData, Endpoint, u64>>,
    flow_slots: FlowSlots,
    originals: Mutex<HashMap<MapData, OriginalKey, Original>>,
    /// The same map, for what every relayed connection does: one system call, and no lock.
    originals_fd: OwnedFd,
    socks: Mutex<SockHash<MapData, u64>>,
    counters: PerCpuArray<MapData, u64>,
    events: PerCpuArray<MapData, u64>,
    flows: MapData,
    usage: Mutex<PerCpuHashMap<MapData, UsageKey, Usage>>,
    /// Grafted connections.
    pub grafts: Arc<Grafts>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
}

/// Where maps come from: a loaded object, or a predecessor's pins.
pub trait MapSource {
    /// Gives one out.
    fn map(&mut self, name: &'static str) -> Result<Map, MapsError>;
}

impl MapSource for Ebpf {
    fn map(&mut self, name: &'static str) -> Result<Map, MapsError> {
        self.take_map(name).ok_or(MapsError::Missing { name, source: None })
    }
}

/// The maps the agent uses: what must be pinned for a successor. The programs hold the others.
pub const SHARED: [&str; 20] = [
    "AGENT",
    "HEARTBEAT",
    "WORKLOADS",
    "ROUTES",
    "ROUTES_SHAPE",
    "HEADERS",
    "UNHEALTHY",
    "FLOW_SLOTS",
    "ORIGINALS",
    "SOCKS",
    "COUNTERS",
    "EVENTS",
    "TOLD",
    "SLOTS",
    "FREE_SLOTS",
    "SOURCES",
    "TARGETS",
    "TARGET_OF",
    "FLOWS",
    "USAGE",
];

fn shape(map: Map) -> Result<MapData, MapsError> {
    match map {
        Map::HashMap(data) => Ok(data),
        _ => Err(MapsError::Missing { name: "ROUTES_SHAPE", source: None }),
    }
}

pub(super) fn take<T>(source: &mut impl MapSource, name: &'static str) -> Result<T, MapsError>
where
    T: TryFrom<Map, Error = MapError>,
{
    source.map(name)?.try_into().map_err(|source| MapsError::Missing { name, source: Some(source) })
}

fn flows(map: Map) -> Result<MapData, MapsError> {
    match map {
        Map::SkStorage(data) => Ok(data),
        _ => Err(MapsError::Missing { name: "FLOWS", source: None }),
    }
}

/// The map, its sizes checked, and a descriptor of it.
fn originals(
    source: &mut impl MapSource,
) -> Result<(HashMap<MapData, OriginalKey, Original>, OwnedFd), MapsError> {
    const NAME: &str = "ORIGINALS";
    let missing = |source| MapsError::Missing { name: NAME, source };
    let Map::LruHashMap(data) = source.map(NAME)? else { return Err(missing(None)) };
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(|e| missing(Some(e.into())))?;
    Ok((Map::LruHashMap(data).try_into().map_err(|e| missing(Some(e)))?, fd))
}

impl Maps {
    /// Takes the maps out of their source.
    pub fn take(source: &mut impl MapSource) -> Result<Self, MapsError> {
        let (originals, originals_fd) = originals(source)?;
        let agent: Array<MapData, AgentConf> = take(source, "AGENT")?;
        let written = agent.get(&0, 0).map_err(|source| MapsError::Read { name: "AGENT", source })?;
        Ok(Self {
            agent: Mutex::new((agent, written)),
            heartbeat: Mutex::new(take(source, "HEARTBEAT")?),
            workloads: Mutex::new(take(source, "WORKLOADS")?),
            routes: Mutex::new(take(source, "ROUTES")?),
            shape: shape(source.map("ROUTES_SHAPE")?)?,
            headers: Mutex::new(take(source, "HEADERS")?),
            unhealthy: Mutex::new(take(source, "UNHEALTHY")?),
            flow_slots: FlowSlots::take(source)?,
            originals: Mutex::new(originals),
            originals_fd,
            socks: Mutex::new(take(source, "SOCKS")?),
            counters: take(source, "COUNTERS")?,
            events: take(source, "EVENTS")?,
            flows: flows(source.map("FLOWS")?)?,
            usage: Mutex::new(take(source, "USAGE")?),
            grafts: Arc::new(Grafts::take(source)?),
        })
    }

    /// Takes the ring buffer of connections the kernel decided by itself.
    pub fn take_told(source: &mut impl MapSource) -> Result<RingBuf<MapData>, MapsError> {
        take(source, "TOLD")
    }

    /// The depths at which the hooks look for workloads.
    pub fn levels(&self) -> [u32; LEVELS_MAX] {
        lock(&self.agent).1.levels
    }

    /// Removes all workloads but those named: what a predecessor managed and nobody does now.
    pub fn retain_workloads(&self, keep: impl Fn(u64) -> bool) -> Result<usize, MapsError> {
        let mut map = lock(&self.workloads);
        let stale: Vec<u64> = map.keys().filter_map(Result::ok).filter(|id| !keep(*id)).collect();
        for id in &stale {
            removed(map.remove(id)).map_err(write("WORKLOADS"))?;
        }
        Ok(stale.len())
    }

    /// Changes what the hooks must know of the agent.
    pub fn set_agent(&self, change: impl FnOnce(&mut AgentConf)) -> Result<(), MapsError> {
        let (map, written) = &mut *lock(&self.agent);
        let mut conf = *written;
        change(&mut conf);
        if conf != *written {
            map.set(0, conf, 0).map_err(write("AGENT"))?;
            *written = conf;
        }
        Ok(())
    }

    /// Says that the agent lives at `now_ns` (`CLOCK_MONOTONIC`). 0 says that it is going.
    pub fn beat(&self, now_ns: u64) -> Result<(), MapsError> {
        lock(&self.heartbeat).set(0, now_ns, 0).map_err(write("HEARTBEAT"))
    }

    /// Adds or changes a workload.
    pub fn put_workload(&self, cgroup_id: u64, workload: Workload) -> Result<(), MapsError> {
        lock(&self.workloads).insert(cgroup_id, workload, 0).map_err(write("WORKLOADS"))
    }

    /// Removes a workload; one that is not there is as good as removed.
    pub fn remove_workload(&self, cgroup_id: u64) -> Result<(), MapsError> {
        removed(lock(&self.workloads).remove(&cgroup_id)).map_err(write("WORKLOADS"))
    }

    /// Puts a whole new version of the routes in effect, at once. Connections that are being decided keep the old one, which
    /// the kernel frees after them. On an error the old one stays.
    pub fn switch_routes(&self, entries: &[(RouteKey, Route)]) -> Result<(), MapsError> {
        check_routes(entries.len())?;
        // Sized to what it holds: its buckets, unlike its entries, are allocated at once.
        let capacity = u32::try_from(entries.len().next_power_of_two().max(64)).expect("checked above");
        let version =
            sys::map_like(self.shape.fd().as_fd(), capacity).map_err(|e| write("ROUTES")(e.into()))?;
        let mut version = MapData::from_fd(version)
            .and_then(Map::from_map_data)
            .and_then(Routes::try_from)
            .map_err(write("ROUTES"))?;
        for (key, route) in entries {
            version.insert(key, route, 0).map_err(write("ROUTES"))?;
        }
        lock(&self.routes).set(0, &version, 0).map_err(write("ROUTES"))
    }

    /// The routes in effect, as the kernel has them. Takes CAP_SYS_ADMIN: they are known by their id only.
    pub fn routes_in_effect(&self) -> Result<RoutesInEffect, MapsError> {
        let map = lock(&self.routes).get(&0, 0);
        Ok(RoutesInEffect(map.map_err(|source| MapsError::Read { name: "ROUTES", source })?))
    }

    /// What the kernel knows of a workload.
    pub fn workload(&self, cgroup_id: u64) -> Result<Option<Workload>, MapsError> {
        match lock(&self.workloads).get(&cgroup_id, 0) {
            Ok(workload) => Ok(Some(workload)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(MapsError::Read { name: "WORKLOADS", source }),
        }
    }

    /// The storage that the connect hook leaves with a socket.
    pub fn flows(&self) -> BorrowedFd<'_> {
        self.flows.fd().as_fd()
    }

    /// Has the kernel know a header, and returns its key. Headers stay: a connection may have been routed with one and not
    /// have sent yet.
    pub fn put_header(&self, wire: &[u8]) -> Result<u64, MapsError> {
        let header = HeaderBytes::new(wire).expect("a header");
        let key = header_key(wire);
        let mut map = lock(&self.headers);
        match map.get(&key, 0) {
            Ok(known) if known == header => return Ok(key),
            Ok(_) => return Err(MapsError::HeaderCollision),
            Err(MapError::KeyNotFound) => {}
            Err(source) => return Err(MapsError::Read { name: "HEADERS", source }),
        }
        map.insert(key, header, 0).map_err(write("HEADERS"))?;
        Ok(key)
    }

    /// Has an endpoint that did not take a connection passed over for a while, where there are others.
    pub fn eject(&self, endpoint: SocketAddr, now_ns: u64) -> Result<(), MapsError> {
        lock(&self.unhealthy)
            .insert(Endpoint::from(endpoint), now_ns + EJECTION_NS, 0)
            .map_err(write("UNHEALTHY"))
    }

    /// When the agent last said that it lives (`CLOCK_MONOTONIC` nanoseconds); 0 when it does not any more, or not yet.
    pub fn last_beat(&self) -> Result<u64, MapsError> {
        lock(&self.heartbeat).get(&0, 0).map_err(|source| MapsError::Read { name: "HEARTBEAT", source })
    }

    /// Bits `AGENT_*` in effect.
    pub fn agent_flags(&self) -> u32 {
        lock(&self.agent).1.flags
    }

    /// What the maps hold at present.
    pub fn entries(&self) -> Entries {
        // Takes CAP_SYS_ADMIN: the map in effect is known by its id only.
        let routes = match lock(&self.routes).get(&0, 0) {
            Ok(version) => Some(count(version.keys(), ROUTES_MAX)),
            Err(MapError::KeyNotFound) => Some(0),
            Err(_) => None,
        };
        Entries {
            routes,
            workloads: count(lock(&self.workloads).keys(), WORKLOADS_MAX),
            headers: count(lock(&self.headers).keys(), HEADERS_MAX),
            originals: count(lock(&self.originals).keys(), ORIGINALS_MAX),
            unhealthy: count(lock(&self.unhealthy).keys(), UNHEALTHY_MAX),
            flows: self.flow_slots.count(),
            grafts: self.grafts.taken(),
        }
    }

    /// Whether an endpoint is to be passed over.
    pub fn is_ejected(&self, endpoint: SocketAddr, now_ns: u64) -> bool {
        lock(&self.unhealthy).get(&Endpoint::from(endpoint), 0).is_ok_and(|until| now_ns < until)
    }

    /// What is remembered of the socket with this cookie, if it has a slot.
    pub fn flow(&self, cookie: u64) -> Option<Flow> {
        self.flow_slots.of(cookie)
    }

    /// How many sockets are enrolled.
    pub fn enrolled(&self) -> usize {
        count(lock(&self.socks).keys(), SOCKS_MAX)
    }

    /// Where a connection accepted on `listener` from `client` wanted to go. Once: it takes the record out.
    pub fn take_original(
        &self,
        netns_cookie: u64,
        client: SocketAddr,
        listener_port: u16,
    ) -> Result<Option<Original>, MapsError> {
        let key = OriginalKey {
            netns_cookie,
            client: client.into(),
            listener: PortBe::from_host(listener_port),
            pad: 0,
        };
        sys::take_out(self.originals_fd.as_fd(), &key)
            .map_err(|error| MapsError::Read { name: "ORIGINALS", source: error.into() })
    }

    /// Forgets what was recorded for connections that were never accepted at listeners of a namespace.
    pub fn sweep_originals(&self, netns_cookie: u64, listener_ports: &[u16]) -> Result<usize, MapsError> {
        let ports: Vec<_> = listener_ports.iter().map(|port| PortBe::from_host(*port)).collect();
        let mut map = lock(&self.originals);
        // An iteration over a map others write to may miss or repeat; what it misses the LRU evicts some day.
        let keys: Vec<_> = map
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.netns_cookie == netns_cookie && ports.contains(&key.listener))
            .collect();
        for key in &keys {
            removed(map.remove(key)).map_err(write("ORIGINALS"))?;
        }
        Ok(keys.len())
    }

    /// Connections counted per reason since the programs were loaded, summed over CPUs.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>, MapsError> {
        Reason::ALL.iter().map(|r| Ok((*r, sum(&self.counters, *r as u32, "COUNTERS")?))).collect()
    }

    /// What happened to connections since the programs were loaded, summed over CPUs.
    pub fn events(&self) -> Result<Vec<(Event, u64)>, MapsError> {
        Event::ALL.iter().map(|e| Ok((*e, sum(&self.events, *e as u32, "EVENTS")?))).collect()
    }

    /// Connections that the kernel decided by itself, by what they are, since the programs were loaded.
    pub fn usage(&self) -> Result<Vec<(UsageKey, Usage)>, MapsError> {
        // The hooks add entries meanwhile, and only the agent removes any: an iteration sees each that was there.
        let map = lock(&self.usage);
        let read = |entry: Result<(_, PerCpuValues<Usage>), _>| {
            entry.map(|(key, counts)| (key, counts.iter().copied().sum()))
        };
        let all: Result<Vec<_>, _> = map.iter().map(read).take(USAGE_MAX).collect();
        all.map_err(|source| MapsError::Read { name: "USAGE", source })
    }

    /// Forgets what is counted of some kinds of connections.
    pub fn forget_usage(&self, keys: &[UsageKey]) -> Result<(), MapsError> {
        let mut map = lock(&self.usage);
        keys.iter().try_for_each(|key| removed(map.remove(key))).map_err(write("USAGE"))
    }
}

/// A version of the routes in the kernel.
#[derive(Debug)]
pub struct RoutesInEffect(Routes);

impl RoutesInEffect {
    /// One entry. One that cannot be read is not there, as for the hooks.
    pub fn get(&self, key: &RouteKey) -> Option<Route> {
        self.0.get(key, 0).ok()
    }

    /// All of them. A version is not written to once it is in effect.
    pub fn all(&self) -> Result<std::collections::HashMap<RouteKey, Route>, MapsError> {
        let read = |entry: Result<_, _>| entry.map_err(|source| MapsError::Read { name: "ROUTES", source });
        self.0.iter().map(read).collect()
    }
}

/// Whether the kernel's table may hold so many entries.
pub fn check_routes(entries: usize) -> Result<(), MapsError> {
    if entries > ROUTES_MAX { Err(MapsError::TooManyRoutes { entries, max: ROUTES_MAX }) } else { Ok(()) }
}

/// How many keys a map has. An iteration begins anew when its last key is deleted meanwhile: it ends at `max`, which the
/// map holds at most.
pub fn count<K>(keys: impl Iterator<Item = Result<K, MapError>>, max: usize) -> usize {
    keys.filter_map(Result::ok).take(max).count()
}

fn sum(map: &PerCpuArray<MapData, u64>, index: u32, name: &'static str) -> Result<u64, MapsError> {
    let values = map.get(&index, 0).map_err(|source| MapsError::Read { name, source })?;
    Ok(values.iter().sum())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while one was held leaves the kernel's map as consistent as ever: each write is one system call.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write(name: &'static str) -> impl Fn(MapError) -> MapsError {
    move |source| MapsError::Write { name, source }
}

/// Removing what is not there is no failure.
pub(super) fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
