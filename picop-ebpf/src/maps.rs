//! The maps. Layouts and sizes, with their reasons, are in `picop_common::maps`; who writes and who deletes is in
//! ARCHITECTURE.md.

use aya_ebpf::{
    btf_maps::{
        Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, Queue, RingBuf, SkStorage,
        SockHash,
    },
    macros::btf_map,
};
use picop_common::{
    addr::Endpoint,
    connect::{Event, Reason},
    graft::{self, Pairing, Slot, Source, Target},
    maps::{
        AgentConf, COUNTERS_MAX, EVENTS_MAX, FLOW_SLOTS_MAX, Flow, FlowSlot, HEADERS_MAX, HeaderBytes,
        ORIGINALS_MAX, Original, OriginalKey, ROUTES_MAX, SOCKS_MAX, TOLD_BYTES, Told, UNHEALTHY_MAX,
        USAGE_MAX, Usage, UsageKey, WORKLOADS_MAX, Workload,
    },
    route::{Route, RouteKey},
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

/// A version of the route table.
pub type Routes = HashMap<RouteKey, Route, ROUTES_MAX, 1>;

/// One entry: the version in effect. The agent fills a map of its own making and puts it here.
#[btf_map]
pub static ROUTES: ArrayOfMaps<Routes, 1> = ArrayOfMaps::new();

/// Never used: what the agent makes versions of [`ROUTES`] like, with the BTF of their keys and values.
#[btf_map]
pub static ROUTES_SHAPE: HashMap<RouteKey, Route, 1, 1> = HashMap::new();

/// Written by the agent; an entry is there before any workload names it.
#[btf_map]
pub static HEADERS: HashMap<u64, HeaderBytes, HEADERS_MAX, 1> = HashMap::new();

/// Endpoints that did not take a connection, and until when (`CLOCK_MONOTONIC` nanoseconds) they are passed over where
/// there are others. Written by `sock_ops` of direct connections and by the agent of relayed ones; nobody deletes: an
/// entry is void by its time, and the LRU reuses it.
#[btf_map]
pub static UNHEALTHY: LruHashMap<Endpoint, u64, UNHEALTHY_MAX> = LruHashMap::new();

/// Sockets on their way to sending a header, by socket cookie. They enter and leave in `sock_ops`; `sk_msg` runs for
/// them as long as this map lives, whoever attached it.
#[btf_map]
pub static SOCKS: SockHash<u64, SOCKS_MAX> = SockHash::new();

/// What is remembered of sockets: see [`crate::flows`]. Written by `connect`, given back by `sock_ops`. The agent maps it, to
/// look. (1 << 10 is BPF_F_MMAPABLE.)
#[btf_map]
pub static FLOW_SLOTS: Array<FlowSlot, FLOW_SLOTS_MAX, { 1 << 10 }> = Array::new();

/// Written by `connect`, read by everything that meets the socket later.
#[btf_map]
pub static FLOWS: SkStorage<Flow> = SkStorage::new();

/// Written by `sock_ops`, taken by the agent at accept. LRU only as the backstop for connections that are never
/// accepted, as when their listener is closed: an insert must not fail because of leftovers.
#[btf_map]
pub static ORIGINALS: LruHashMap<OriginalKey, Original, ORIGINALS_MAX> = LruHashMap::new();

/// Grafted connections. Memory that the agent maps: neither side asks the other anything per message. (1 << 10 is
/// BPF_F_MMAPABLE.)
#[btf_map]
pub static SLOTS: Array<Slot, { graft::SLOTS + 1 }, { 1 << 10 }> = Array::new();

/// Slots that are nobody's. Filled by the agent; first in, first out, so that one rests before it is used again.
#[btf_map]
pub static FREE_SLOTS: Queue<u32, { graft::SLOTS }> = Queue::new();

/// Application sockets that may be grafted, by socket cookie; `sk_msg` program `graft` runs for them.
#[btf_map]
pub static SOURCES: SockHash<u64, { graft::TARGETS_MAX }> = SockHash::new();

/// The agent's sockets that messages may be redirected into, by socket cookie. No program.
#[btf_map]
pub static TARGETS: SockHash<u64, { graft::TARGETS_MAX }> = SockHash::new();

/// What sources carry.
#[btf_map]
pub static SOURCE_OF: SkStorage<Source> = SkStorage::new();

/// What targets carry. Of upstream sockets written by the agent, before they connect.
#[btf_map]
pub static TARGET_OF: SkStorage<Target> = SkStorage::new();

/// Slots of the connections whose server, if it is on this node, is to be enrolled. From one end's ESTABLISHED to the
/// other's; LRU, as most servers are elsewhere.
#[btf_map]
pub static EXPECTED: LruHashMap<Pairing, u32, { graft::EXPECTED_MAX }> = LruHashMap::new();

/// One entry: not 0 from the first time on that there was anything in `EXPECTED`. On a node that grafts nothing, accepting a
/// connection costs no look-up.
#[btf_map]
pub static EXPECTING: Array<u32, 1> = Array::new();

/// Connections by [`Reason`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, COUNTERS_MAX> = PerCpuArray::new();

/// What happened to connections, by [`Event`].
#[btf_map]
pub static EVENTS: PerCpuArray<u64, EVENTS_MAX> = PerCpuArray::new();

/// Connections decided here, by service, environment and reason. An entry is made for the first of its kind; the agent makes
/// room. Preallocated: allocating per-CPU memory in the hook takes the first connection of a kind several microseconds.
#[btf_map]
pub static USAGE: PerCpuHashMap<UsageKey, Usage, USAGE_MAX> = PerCpuHashMap::new();

/// Connections decided here, for the agent to log; empty unless it asks for them.
#[btf_map]
pub static TOLD: RingBuf<Told, TOLD_BYTES> = RingBuf::new();

/// For [`crate::probe`] alone: sockets `picop doctor` made itself.
#[btf_map]
pub static PROBED: SockHash<u32, 16> = SockHash::new();

/// Counts a connection.
#[inline(always)]
pub fn count(reason: Reason) {
    increment(COUNTERS.get_ptr_mut(reason as u32));
}

/// Counts an event.
#[inline(always)]
pub fn happened(event: Event) {
    increment(EVENTS.get_ptr_mut(event as u32));
}

/// Counts a connection by what it is.
#[inline(always)]
pub fn used(key: &UsageKey) {
    if let Some(usage) = USAGE.get_ptr_mut(key) {
        // SAFETY: a map value, which lives as long as the map.
        return increment(Some(unsafe { &raw mut (*usage).opened }));
    }
    // Another CPU may have been faster; then the entry is there, with nothing of this one in it.
    let one = Usage { opened: 1, ..Usage::default() };
    if USAGE.insert(key, one, BPF_NOEXIST).is_err() {
        match USAGE.get_ptr_mut(key) {
            // SAFETY: as above.
            Some(usage) => increment(Some(unsafe { &raw mut (*usage).opened })),
            None => happened(Event::UsageFull),
        }
    }
}

/// Counts what a connection carried, at its end. Nothing if it was not counted when it began.
#[inline(always)]
pub fn ended(key: &UsageKey, up: u64, down: u64) {
    if let Some(usage) = USAGE.get_ptr_mut(key) {
        // SAFETY: as in `increment`.
        unsafe {
            (*usage).closed += 1;
            (*usage).up += up;
            (*usage).down += down;
        }
    }
}

/// `BPF_NOEXIST` of linux/bpf.h.
const BPF_NOEXIST: u64 = 1;

#[inline(always)]
fn increment(slot: Option<*mut u64>) {
    if let Some(slot) = slot {
        // SAFETY: the slot is this CPU's, and lives as long as the map; a program that interrupts this one on the same
        // CPU could lose one increment, which a counter can bear.
        unsafe { *slot += 1 }
    }
}
