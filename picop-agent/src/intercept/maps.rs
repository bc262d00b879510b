//! The typed view of every map the two sides share.

use std::{collections::HashMap, net::SocketAddr, sync::Mutex};

use aya::{
    Ebpf,
    maps::{Array, HashMap as BpfHashMap, MapData, MapError, PerCpuArray},
};
use picop_common::{
    addr::{Endpoint, PortBe},
    connect::Reason,
    maps::{AgentConf, Original, OriginalKey, SERVICES_MAX, Service, Workload},
};

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

/// Every map the agent touches. Shared: each map has its own lock, held for one system call.
pub struct Maps {
    agent: Mutex<Array<MapData, AgentConf>>,
    heartbeat: Mutex<Array<MapData, u64>>,
    workloads: Mutex<BpfHashMap<MapData, u64, Workload>>,
    services: Mutex<Services>,
    originals: Mutex<BpfHashMap<MapData, OriginalKey, Original>>,
    counters: PerCpuArray<MapData, u64>,
}

struct Services {
    map: BpfHashMap<MapData, Endpoint, Service>,
    /// What the kernel's copy holds, so that a new table costs what changed.
    written: HashMap<Endpoint, Service>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
}

macro_rules! take {
    ($ebpf:expr, $name:literal) => {
        $ebpf
            .take_map($name)
            .ok_or(MapsError::Missing { name: $name, source: None })?
            .try_into()
            .map_err(|source| MapsError::Missing { name: $name, source: Some(source) })?
    };
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        Ok(Self {
            agent: Mutex::new(take!(ebpf, "AGENT")),
            heartbeat: Mutex::new(take!(ebpf, "HEARTBEAT")),
            workloads: Mutex::new(take!(ebpf, "WORKLOADS")),
            services: Mutex::new(Services { map: take!(ebpf, "SERVICES"), written: HashMap::new() }),
            originals: Mutex::new(take!(ebpf, "ORIGINALS")),
            counters: take!(ebpf, "COUNTERS"),
        })
    }

    /// Writes what the hooks must know of the agent.
    pub fn set_agent(&self, conf: AgentConf) -> Result<(), MapsError> {
        lock(&self.agent).set(0, conf, 0).map_err(write("AGENT"))
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

    /// Makes the kernel's services those given. Those that do not fit, or cannot be written, stay unrouted: their
    /// connections go where they would without picop. Returns how many of those there are.
    pub fn sync_services(&self, wanted: HashMap<Endpoint, Service>) -> Result<usize, MapsError> {
        let Services { map, written } = &mut *lock(&self.services);
        let gone: Vec<_> = written.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        for key in gone {
            removed(map.remove(&key)).map_err(write("SERVICES"))?;
            written.remove(&key);
        }
        let mut left_out = 0;
        for (key, service) in wanted {
            if written.get(&key) == Some(&service) {
                continue;
            }
            if written.len() >= SERVICES_MAX && !written.contains_key(&key) {
                left_out += 1;
                continue;
            }
            map.insert(key, service, 0).map_err(write("SERVICES"))?;
            written.insert(key, service);
        }
        Ok(left_out)
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
        let mut map = lock(&self.originals);
        match map.get(&key, 0) {
            Ok(original) => {
                removed(map.remove(&key)).map_err(write("ORIGINALS"))?;
                Ok(Some(original))
            }
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(MapsError::Read { name: "ORIGINALS", source }),
        }
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
        Reason::ALL
            .into_iter()
            .map(|reason| {
                let values = self
                    .counters
                    .get(&(reason as u32), 0)
                    .map_err(|source| MapsError::Read { name: "COUNTERS", source })?;
                Ok((reason, values.iter().sum()))
            })
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while one was held leaves the kernel's map as consistent as ever: each write is one system call.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write(name: &'static str) -> impl Fn(MapError) -> MapsError {
    move |source| MapsError::Write { name, source }
}

/// Removing what is not there is no failure.
fn removed(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
