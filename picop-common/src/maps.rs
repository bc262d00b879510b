//! Keys and values of the maps both sides use. Sizes are asserted, padding is explicit: the kernel compares keys byte by
//! byte, and the agent reads values the programs wrote.

use crate::addr::{Endpoint, PortBe};

/// Most workloads a node manages. Kubernetes supports 110 pods a node, OpenShift 500 and more.
pub const WORKLOADS_MAX: usize = 8192;
/// Most service addresses: 10,000 services of several ports, both families.
pub const SERVICES_MAX: usize = 65_536;
/// Most connections between their handshake with the agent's listener and the agent's accept. An accept queue holds
/// `net.core.somaxconn` (4096) at most, so this outlives sixteen full ones.
pub const ORIGINALS_MAX: usize = 65_536;
/// At how many depths of the cgroup tree workloads may sit at once.
pub const LEVELS_MAX: usize = 4;
/// Slots of the counter array: at least [`crate::connect::Reason::COUNT`].
pub const COUNTERS_MAX: usize = 32;

/// What the hooks must know of the agent. One entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AgentConf {
    /// The agent's own cgroup: never intercepted (the first loop guard).
    pub agent_cgroup: u64,
    /// Depths at which workloads' cgroups sit, deepest first, zeroes after the last: the most specific workload wins.
    /// A depth is what `bpf_get_current_ancestor_cgroup_id` calls ancestor level; 0 is the root, which no workload can be.
    pub levels: [u32; LEVELS_MAX],
}

/// A managed cgroup. Key: cgroup id (its kernfs inode number).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Workload {
    /// The network namespace the listeners are in (`SO_NETNS_COOKIE`): a process of this cgroup in another one cannot
    /// reach them.
    pub netns_cookie: u64,
    /// The agent's listener on 127.0.0.1 there, or none.
    pub listener_v4: PortBe,
    /// The agent's listener on ::1 there, or none.
    pub listener_v6: PortBe,
    /// Bits `WORKLOAD_*`.
    pub flags: u32,
}

/// [`Workload::flags`]: leave this workload's connections alone.
pub const WORKLOAD_BYPASS: u32 = 1;

/// A service address. Key: [`Endpoint`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// Where a connection goes when the agent cannot be asked; [`Endpoint::NONE`]: to the service's address itself.
    pub base: Endpoint,
    /// Bits, none yet.
    pub flags: u32,
}

/// What a socket carries from its `connect` on, in `BPF_MAP_TYPE_SK_STORAGE`: freed with the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The destination the application asked for.
    pub original: Endpoint,
    /// One of `FLOW_*`.
    pub state: u32,
}

/// [`Flow::state`]: this connect was not rewritten (an earlier one of the same socket may have been).
pub const FLOW_NONE: u32 = 0;
/// [`Flow::state`]: rewritten to the agent's listener.
pub const FLOW_RELAY: u32 = 1;
/// [`Flow::state`]: rewritten straight to a backend.
pub const FLOW_DIRECT: u32 = 2;

/// Identifies a connection at the agent's listener, from the side that accepts it. Addresses alone repeat between
/// network namespaces, hence the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct OriginalKey {
    /// `SO_NETNS_COOKIE` of the namespace.
    pub netns_cookie: u64,
    /// The client's own address and port.
    pub client: Endpoint,
    /// The listener's port.
    pub listener: PortBe,
    /// Always zero.
    pub pad: u16,
}

/// Where a connection at the listener really wanted to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Original {
    /// The client socket's cookie (`SO_COOKIE`).
    pub client_cookie: u64,
    /// The destination the application asked for.
    pub destination: Endpoint,
    /// Always zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<AgentConf>() == 24);
const _: () = assert!(size_of::<Workload>() == 16);
const _: () = assert!(size_of::<Service>() == 24);
const _: () = assert!(size_of::<Flow>() == 24);
const _: () = assert!(size_of::<OriginalKey>() == 32);
const _: () = assert!(size_of::<Original>() == 32);
