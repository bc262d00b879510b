//! The maps. Layouts and sizes, with their reasons, are in `picop_common::maps`; who writes and who deletes is in
//! ARCHITECTURE.md.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, SkStorage, SockHash},
    macros::btf_map,
};
use picop_common::{
    addr::Endpoint,
    connect::Reason,
    maps::{
        AgentConf, COUNTERS_MAX, Flow, ORIGINALS_MAX, Original, OriginalKey, SERVICES_MAX, Service,
        WORKLOADS_MAX, Workload,
    },
};

/// One entry, written by the agent.
#[btf_map]
pub static AGENT: Array<AgentConf, 1> = Array::new();

/// One entry: when the agent last said that it lives, `CLOCK_MONOTONIC` nanoseconds.
#[btf_map]
pub static HEARTBEAT: Array<u64, 1> = Array::new();

/// Written by the agent's reconciler; not preallocated, as most nodes have a few hundred.
#[btf_map]
pub static WORKLOADS: HashMap<u64, Workload, WORKLOADS_MAX, 1> = HashMap::new();

/// Written by the agent at each new route table; not preallocated.
#[btf_map]
pub static SERVICES: HashMap<Endpoint, Service, SERVICES_MAX, 1> = HashMap::new();

/// Written by `connect`, read by everything that meets the socket later.
#[btf_map]
pub static FLOWS: SkStorage<Flow> = SkStorage::new();

/// Written by `sock_ops`, taken by the agent at accept. LRU only as the backstop for connections that are never
/// accepted, as when their listener is closed: an insert must not fail because of leftovers.
#[btf_map]
pub static ORIGINALS: LruHashMap<OriginalKey, Original, ORIGINALS_MAX> = LruHashMap::new();

/// Connections by [`Reason`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, COUNTERS_MAX> = PerCpuArray::new();

/// For [`crate::probe`] alone: sockets `picop doctor` made itself.
#[btf_map]
pub static PROBED: SockHash<u32, 16> = SockHash::new();

/// Counts a connection.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(slot) = COUNTERS.get_ptr_mut(reason as u32) {
        // SAFETY: the slot is this CPU's, and lives as long as the map; a program that interrupts this one on the same
        // CPU could lose one increment, which a counter can bear.
        unsafe { *slot += 1 }
    }
}
