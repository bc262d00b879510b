//! Keys and values of the maps both sides use. Sizes are asserted, padding is explicit: the kernel compares keys byte by
//! byte, and the agent reads values the programs wrote.

use crate::addr::{Endpoint, Ip, PortBe};

/// Most workloads a node manages. Kubernetes supports 110 pods a node, OpenShift 500 and more.
pub const WORKLOADS_MAX: usize = 8192;
/// Most entries of a route table: 10,000 services of two addresses and 100,000 variants of a few endpoints each come to
/// a tenth of it. An entry takes about 100 bytes of kernel memory, allocated as it is written.
pub const ROUTES_MAX: usize = 4_194_304;
/// Most headers. A workload has one, and a header is kept for as long as connections may want it.
pub const HEADERS_MAX: usize = 65_536;
/// Most endpoints known not to work at one time; an LRU, as each entry is void in seconds.
pub const UNHEALTHY_MAX: usize = 65_536;
/// Most sockets enrolled at once: those between their handshake and the acknowledgement of their first bytes.
pub const SOCKS_MAX: usize = 65_536;
/// From how many on no more are sent where a header would have to be written: what is on its way to its handshake then
/// still finds room.
pub const SOCKS_FULL: usize = SOCKS_MAX - 16_384;
/// Most connections between their handshake with the agent's listener and the agent's accept. An accept queue holds
/// `net.core.somaxconn` (4096) at most, so this outlives sixteen full ones.
pub const ORIGINALS_MAX: usize = 65_536;
/// Most kinds of connections that are counted by the kernel: services by environments by reasons, as they are used on one
/// node. Those beyond are counted by reason only.
pub const USAGE_MAX: usize = 16_384;
/// Slots for what is remembered of sockets: 4 MiB. A power of two, as a socket's cookie chooses one; who finds it taken has
/// socket storage.
pub const FLOW_SLOTS_MAX: usize = 65_536;
/// At how many depths of the cgroup tree workloads may sit at once.
pub const LEVELS_MAX: usize = 4;
/// Slots of the counter array: at least [`crate::connect::Reason::COUNT`].
pub const COUNTERS_MAX: usize = 32;
/// Slots of the event array: at least [`crate::connect::Event::COUNT`].
pub const EVENTS_MAX: usize = 32;

/// What the hooks must know of the agent. One entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AgentConf {
    /// The agent's own cgroup: never intercepted (the first loop guard).
    pub agent_cgroup: u64,
    /// Depths at which workloads' cgroups sit, deepest first, zeroes after the last: the most specific workload wins.
    /// A depth is what `bpf_get_current_ancestor_cgroup_id` calls ancestor level; 0 is the root, which no workload can be.
    pub levels: [u32; LEVELS_MAX],
    /// Bits `AGENT_*`.
    pub flags: u32,
    /// With [`AGENT_TELL`]: of how many in 2^32 connections. `u32::MAX` is all of them.
    pub tell_share: u32,
}

/// [`AgentConf::flags`]: headers can be written by the kernel; the agent has proven it.
pub const AGENT_INJECT: u32 = 1;
/// [`AgentConf::flags`]: another program may have translated a service's address to one of its endpoints already.
pub const AGENT_REVERSE: u32 = 2;
/// [`AgentConf::flags`]: nearly [`SOCKS_MAX`] sockets are enrolled.
pub const AGENT_FULL: u32 = 4;
/// [`AgentConf::flags`]: tell the agent of connections to services that are not relayed: see [`AgentConf::tell_share`].
pub const AGENT_TELL: u32 = 8;
/// [`AgentConf::flags`]: relayed connections can be grafted here.
pub const AGENT_GRAFT: u32 = 16;
/// [`AgentConf::flags`]: and no application can tell.
pub const AGENT_GRAFT_AUTO: u32 = 32;

/// A managed cgroup. Key: cgroup id (its kernfs inode number).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Workload {
    /// Its own key, for [`Told`].
    pub id: u64,
    /// The network namespace the listeners are in (`SO_NETNS_COOKIE`): a process of this cgroup in another one cannot
    /// reach them.
    pub netns_cookie: u64,
    /// The environment it belongs to, as [`crate::route::environment_key`]; 0 for none.
    pub environment: u64,
    /// Its header in the map of headers; 0 for none.
    pub header: u64,
    /// The agent's listener on 127.0.0.1 there, or none.
    pub listener_v4: PortBe,
    /// The agent's listener on ::1 there, or none.
    pub listener_v6: PortBe,
    /// Bits `WORKLOAD_*`.
    pub flags: u32,
}

/// [`Workload::flags`]: leave this workload's connections alone.
pub const WORKLOAD_BYPASS: u32 = 1;
/// [`Workload::flags`]: its connections may carry a header of their own, which the agent must read.
pub const WORKLOAD_HEADER: u32 = 2;
/// [`Workload::flags`]: relay all its connections to services, whatever the kernel could do.
pub const WORKLOAD_RELAY: u32 = 4;

/// A whole header, ready to be written. Key: [`crate::route::header_key`], a hash of its bytes and their number, so that a
/// connection which has yet to send keeps the header it was routed by, whatever its workload has become meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HeaderBytes {
    /// The bytes in their order, eight at a time, as memory has them; zeroes after the header.
    pub words: [u64; HEADER_WORDS],
}

impl HeaderBytes {
    /// None if there is no room for it: nothing that the codec makes.
    pub fn new(wire: &[u8]) -> Option<Self> {
        let mut words = [0; HEADER_WORDS];
        if wire.len() > size_of_val(&words) {
            return None;
        }
        for (word, bytes) in words.iter_mut().zip(wire.chunks(size_of::<u64>())) {
            let mut whole = [0; size_of::<u64>()];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        Some(Self { words })
    }
}

/// Room for the longest header, [`crate::header::MAX_LEN`].
pub const HEADER_WORDS: usize = 34;

/// What is remembered of a socket from its `connect` on: in a slot, or in `BPF_MAP_TYPE_SK_STORAGE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The destination the application asked for.
    pub original: Endpoint,
    /// Where the connection was sent instead. A socket that is connected elsewhere was connected anew, and this is stale.
    pub target: Endpoint,
    /// The header to be written, in the map of headers; 0 for none.
    pub header: u64,
    /// The workload's environment: [`crate::route::environment_tag`].
    pub environment: u32,
    /// One of `FLOW_*`.
    pub state: u8,
    /// Not 0: whether the endpoint takes the connection is worth knowing, as there are others. Of one that is ending:
    /// [`crate::carried::mark`].
    pub watch: u8,
    /// Why it was sent there, a [`crate::connect::Reason`].
    pub reason: u16,
}

impl Flow {
    /// From the bytes of its value in a map; none if they are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let offset = core::mem::offset_of!(Self, header);
        Some(Self {
            original: endpoint_at(bytes, 0)?,
            target: endpoint_at(bytes, size_of::<Endpoint>())?,
            header: long_at(bytes, offset)?,
            environment: word_at(bytes, offset + 8)?,
            state: *bytes.get(offset + 12)?,
            watch: *bytes.get(offset + 13)?,
            reason: half_at(bytes, offset + 14)?,
        })
    }
}

fn half_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// A [`Flow`] in a map of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowSlot {
    /// The cookie of the socket whose slot it is; 0 for nobody's.
    pub owner: u64,
    /// What is remembered of it. A slot is a line of the cache.
    pub flow: Flow,
}

impl FlowSlot {
    /// From its bytes; none if they are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let offset = core::mem::offset_of!(Self, flow);
        Some(Self { owner: long_at(bytes, 0)?, flow: Flow::from_bytes(bytes.get(offset..)?)? })
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn long_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

fn endpoint_at(bytes: &[u8], at: usize) -> Option<Endpoint> {
    let word = |i: usize| word_at(bytes, at + 4 * i);
    let ip = Ip::from_v6_be([word(0)?, word(1)?, word(2)?, word(3)?]);
    let port = u16::from_ne_bytes(bytes.get(at + 16..at + 18)?.try_into().ok()?);
    Some(Endpoint::new(ip, PortBe::from_user_port(u32::from(port))))
}

/// [`Flow::state`]: nothing was done about this socket's last connect.
pub const FLOW_NONE: u8 = 0;
/// [`Flow::state`]: rewritten to the agent's listener.
pub const FLOW_RELAY: u8 = 1;
/// [`Flow::state`]: rewritten straight to a backend, and nothing is left to do.
pub const FLOW_DIRECT: u8 = 2;
/// [`Flow::state`]: on its way to a backend that is to be sent a header first.
pub const FLOW_INJECT: u8 = 3;
/// [`Flow::state`]: the header is in front of the first bytes sent; the socket is enrolled until they are acknowledged.
pub const FLOW_INJECTED: u8 = 4;
/// [`Flow::state`]: the socket could not be enrolled, so that nothing could write the header.
pub const FLOW_FAILED: u8 = 5;
/// [`Flow::state`]: rewritten to the agent's listener, to be grafted perhaps. It is [`FLOW_GRAFT`] once it is enrolled for
/// that, and [`FLOW_RELAY`] if it is not.
pub const FLOW_RELAY_GRAFT: u8 = 6;
/// [`Flow::state`]: enrolled for a graft.
pub const FLOW_GRAFT: u8 = 7;
/// [`Flow::state`]: as [`FLOW_DIRECT`]; its first write has not returned though the header is acknowledged, and still passes the
/// message program.
pub const FLOW_LINGERS: u8 = 8;

/// What the hooks tell of a connection they decided themselves, when [`AGENT_TELL`] is set. In a ring buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Told {
    /// The workload's key.
    pub workload: u64,
    /// The environment the workload was of: [`crate::route::environment_key`], or 0.
    pub environment: u64,
    /// The destination the application asked for.
    pub original: Endpoint,
    /// Where it was sent.
    pub target: Endpoint,
    /// The [`crate::connect::Reason`].
    pub reason: u32,
    /// One of `TOLD_*`.
    pub verdict: u32,
}

impl Told {
    /// From the bytes of a ring buffer's entry; none if they are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            workload: long_at(bytes, 0)?,
            environment: long_at(bytes, 8)?,
            original: endpoint_at(bytes, 16)?,
            target: endpoint_at(bytes, 36)?,
            reason: word_at(bytes, 56)?,
            verdict: word_at(bytes, 60)?,
        })
    }
}

/// What connections that the kernel decided by itself are counted by. The service is known by its address: names would have
/// to be given numbers, which a restarted agent would have to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct UsageKey {
    /// The destination the application asked for.
    pub original: Endpoint,
    /// The workload's environment: [`crate::route::environment_tag`].
    pub environment: u32,
    /// The [`crate::connect::Reason`].
    pub reason: u16,
    /// One of `TOLD_*`.
    pub verdict: u16,
    /// Always zero.
    pub pad: u32,
}

/// What is counted of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Usage {
    /// Connections.
    pub opened: u64,
    /// Those whose end the kernel's programs have seen (direct ones, Linux 6.12).
    pub closed: u64,
    /// Payload bytes of these to the server.
    pub up: u64,
    /// And to the client.
    pub down: u64,
}

impl core::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            opened: sum.opened + it.opened,
            closed: sum.closed + it.closed,
            up: sum.up + it.up,
            down: sum.down + it.down,
        })
    }
}

/// [`Told::verdict`]: on its way to the destination it asked for.
pub const TOLD_PASSED: u32 = 0;
/// [`Told::verdict`]: on its way to a backend.
pub const TOLD_DIRECT: u32 = 1;
/// [`Told::verdict`]: the same, and a header will be written.
pub const TOLD_INJECT: u32 = 2;
/// [`Told::verdict`]: refused.
pub const TOLD_REFUSED: u32 = 3;

/// Bytes of the ring buffer: room for 3,000 connections between two looks of the agent. A power of two of pages.
pub const TOLD_BYTES: usize = 256 * 1024;

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
    /// If the client's socket is enrolled for a graft, its slot ([`crate::graft::Slot`]) and one; else 0.
    pub graft: u16,
    /// Why it was relayed: a [`crate::connect::Reason`].
    pub reason: u16,
}

const _: () = assert!(size_of::<AgentConf>() == 32);
const _: () = assert!(size_of::<Workload>() == 40);
const _: () = assert!(size_of::<HeaderBytes>() == 272);
const _: () = assert!(size_of::<HeaderBytes>() >= crate::header::MAX_LEN);
const _: () = assert!(size_of::<Flow>() == 56);
const _: () = assert!(size_of::<FlowSlot>() == 64);
const _: () = assert!(FLOW_SLOTS_MAX.is_power_of_two());
const _: () = assert!(size_of::<Told>() == 64);
const _: () = assert!(size_of::<UsageKey>() == 32);
const _: () = assert!(size_of::<Usage>() == 32);
const _: () = assert!(size_of::<OriginalKey>() == 32);
const _: () = assert!(size_of::<Original>() == 32);
const _: () = assert!(crate::graft::SLOTS < u16::MAX as usize);

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use super::*;

    #[test]
    fn a_flow_is_read_as_it_is_laid_out() {
        let mut bytes = [0_u8; size_of::<Flow>()];
        bytes[..18].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1, 0, 80]);
        let target = core::mem::offset_of!(Flow, target);
        bytes[target] = 0xfd;
        bytes[target + 17] = 81;
        bytes[core::mem::offset_of!(Flow, header)] = 7;
        bytes[core::mem::offset_of!(Flow, environment)] = 5;
        bytes[core::mem::offset_of!(Flow, state)] = 2;
        bytes[core::mem::offset_of!(Flow, watch)] = 1;
        bytes[core::mem::offset_of!(Flow, reason)] = 9;
        let flow = Flow::from_bytes(&bytes).unwrap();
        assert_eq!(flow.environment.to_le_bytes()[0], 5);
        assert_eq!((flow.header.to_le_bytes()[0], flow.state, flow.watch, flow.reason), (7, 2, 1, 9));
        assert_eq!(SocketAddr::from(flow.original).to_string(), "10.0.0.1:80");
        assert_eq!(SocketAddr::from(flow.target).to_string(), "[fd00::]:81");
        assert_eq!(Flow::from_bytes(&bytes[..55]), None);
    }

    #[test]
    fn told_is_read_as_it_is_laid_out() {
        let mut bytes = [0_u8; size_of::<Told>()];
        bytes[core::mem::offset_of!(Told, workload)] = 7;
        bytes[core::mem::offset_of!(Told, environment)] = 8;
        bytes[core::mem::offset_of!(Told, reason)] = 9;
        bytes[core::mem::offset_of!(Told, verdict)] = 3;
        let original = core::mem::offset_of!(Told, original);
        bytes[original..original + 18]
            .copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1, 0, 80]);
        let target = core::mem::offset_of!(Told, target);
        bytes[target] = 0xfd;
        bytes[target + 17] = 81;
        let told = Told::from_bytes(&bytes).unwrap();
        assert_eq!((told.reason, told.verdict), (9, 3));
        assert_eq!(told.workload, u64::from_ne_bytes([7, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(told.environment, u64::from_ne_bytes([8, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(SocketAddr::from(told.original).to_string(), "10.0.0.1:80");
        assert_eq!(SocketAddr::from(told.target).to_string(), "[fd00::]:81");
        assert_eq!(Told::from_bytes(&bytes[..60]), None);
    }

    #[test]
    fn a_slot_is_read_as_it_is_laid_out() {
        let mut bytes = [0_u8; size_of::<FlowSlot>()];
        bytes[core::mem::offset_of!(FlowSlot, owner)] = 7;
        bytes[core::mem::offset_of!(FlowSlot, flow) + core::mem::offset_of!(Flow, state)] = 3;
        let slot = FlowSlot::from_bytes(&bytes).unwrap();
        assert_eq!((slot.owner, slot.flow.state), (u64::from_ne_bytes([7, 0, 0, 0, 0, 0, 0, 0]), 3));
        assert_eq!(FlowSlot::from_bytes(&bytes[..63]), None);
    }
}
