//! The graft: whether a message goes past the agent, and what the two sides tell each other about it.
//!
//! A relayed connection has four sockets: `A` the client's, `P1` the agent's accepted one, `P2` the agent's upstream one,
//! `B` the server's. In the direction *up*, what `A` (the source) sends may be redirected into the send queue of `P2` (the
//! target); in the direction *down*, what `B` sends into that of `P1`. A message that is not redirected is passed: it goes
//! to the agent, which relays it.
//!
//! Two rules make that safe. **Order**: a message is redirected only if the agent has written out every byte that was
//! passed before it; `passed` is exact, as it is the source's own sequence number. **Budget**: it is redirected only if it
//! finds room in the target's send queue for sure. A redirected send that finds none answers EAGAIN from a socket that
//! epoll calls writable, and its application waits for ever.

/// Most grafted connections at a time. Their slots are one block of memory, allocated at start.
pub const SLOTS: usize = 8192;
/// One slot more, of no connection: the counts of all that have ended.
pub const SLOT_OF_ENDED: usize = SLOTS;
/// Most sockets that agents have enrolled as targets.
pub const TARGETS_MAX: usize = 2 * SLOTS;
/// Most upstream connections of grafts between the two ends' ESTABLISHED callbacks.
pub const EXPECTED_MAX: usize = 8192;

/// Send buffer of a target, in the kernel's count (which includes what it needs besides the bytes): twice
/// [`BUDGET`] and more, as a segment on its way may be split into several, each with a head of its own.
pub const SNDBUF: u64 = 8 << 20;
/// Most that may wait in a target for a message to be redirected there: bytes, and [`overhead`].
pub const BUDGET: u64 = 3 << 20;
/// The agent stops relaying into a target that holds more bytes than this, and
pub const RELAY_HIGH: u64 = 1 << 20;
/// gives it this send buffer until it is writable again: TCP calls it so when two thirds of that or less are in use.
pub const RELAY_SNDBUF: u64 = 3 << 19;
/// Window that the agent's socket beside a source offers: what a source can pass before it has to wait. Small, so that the
/// way back into the graft is short.
pub const PASS_WINDOW: u64 = 64 << 10;
/// `TCP_NOTSENT_LOWAT` of a source with segments of at most `mss` bytes, for the same reason: how much it may queue that has not
/// been sent. What an application itself holds back (MSG_MORE, TCP_CORK, Nagle's algorithm) is less than a segment, and must
/// leave it room for the rest, which is what sends it: TCP's timer does only after 200 ms. Epoll counts what is unsent twice.
pub const fn pass_lowat(mss: u32) -> u32 {
    let mss = if mss > SEGMENT_MAX { SEGMENT_MAX } else { mss };
    2 * mss + 1
}

/// Whether [`pass_lowat`] may have set this, for whatever segments: nobody else sets an odd one.
pub const fn is_pass_lowat(lowat: u32) -> bool {
    lowat % 2 == 1 && lowat <= pass_lowat(SEGMENT_MAX)
}

/// Larger segments there are not.
const SEGMENT_MAX: u32 = 64 << 10;

/// What a segment's head may cost, and how many bytes of a message share one for sure (a target whose peer has a window
/// of twice that or more makes no smaller ones).
const HEAD: u64 = 2560;
const SHARE: u64 = 16 << 10;
/// The window that a target's peer must offer.
pub const WINDOW_MIN: u32 = 32 << 10;

/// What a message may take in a send queue besides its bytes.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a program that calls is verified with what it calls")]
pub const fn overhead(size: u64) -> u64 {
    HEAD * (1 + size / SHARE)
}

/// [`Direction::state`]: the agent has not decided, or not begun.
pub const WAITING: u64 = 0;
/// [`Direction::state`]: redirect what may be.
pub const ON: u64 = 1;
/// [`Direction::state`]: never again; the source leaves the map at the next opportunity.
pub const OFF: u64 = 2;

/// Client to server.
pub const UP: u32 = 0;
/// Server to client.
pub const DOWN: u32 = 1;

/// One direction of a grafted connection, in memory that both sides see. Each third is a cache line of one writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Direction {
    /// Cookie of the socket whose messages these are; 0: of none. A program that finds another's keeps its hands off.
    /// Written by the kernel at enrolment, cleared by the agent.
    pub source: u64,
    /// Cookie of the target, and its key in the map of targets.
    pub target: u64,
    /// [`WAITING`], [`ON`], [`OFF`].
    pub state: u64,
    /// Bytes of the source that the agent has written out, or taken out (a header).
    pub relayed: u64,
    /// [`overhead`] of the agent's writes.
    pub relay_overhead: u64,
    /// What to add (wrapping) to bytes relayed and redirected to get the bytes of the target's stream.
    pub offset: u64,
    /// Room.
    pub spare: [u64; 2],

    /// Bytes of the target's stream that its peer has acknowledged. Written by `sock_ops` of the target.
    pub acked: u64,
    /// Room.
    pub spare_acked: [u64; 7],

    /// Bytes redirected. From here on written by `sk_msg` of the source.
    pub redirected: u64,
    /// Messages redirected.
    pub redirects: u64,
    /// Bytes let through to the agent.
    pub passed: u64,
    /// Messages let through, by [`Why`].
    pub passes: [u64; Why::COUNT],
}

/// What both sides know of a grafted connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Slot {
    /// Client to server.
    pub up: Direction,
    /// Server to client.
    pub down: Direction,
    /// When it was taken (`CLOCK_MONOTONIC` nanoseconds), by the kernel.
    pub taken_ns: u64,
    /// Not 0: an agent knows of it and will give it back.
    pub owned: u64,
}

/// What a source carries in socket storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Source {
    /// Its cookie.
    pub cookie: u64,
    /// Its slot.
    pub slot: u32,
    /// [`UP`] or [`DOWN`].
    pub side: u32,
    /// Sequence number of its first byte.
    pub first: u32,
    /// Not 0: it has left the map; a send that began before must not redirect.
    pub left: u32,
    /// What it has put into the target.
    pub ledger: Ledger,
}

/// What an agent's socket carries in socket storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// Its cookie.
    pub cookie: u64,
    /// What `bytes_acked` was when it was established: it counts the SYN of an active socket.
    pub acked_before: u64,
    /// Its slot.
    pub slot: u32,
    /// [`UP`] for the upstream socket, [`DOWN`] for the accepted one.
    pub side: u32,
    /// Not 0: the other end, if it is on this node, is to be enrolled as the source of [`DOWN`].
    pub expect: u32,
    /// Always zero.
    pub pad: u32,
}

/// Identifies a connection from both its ends, whatever addresses they see: the sequence numbers of its first bytes, 64
/// bits that neither end chooses alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Pairing {
    /// Of the connecting side.
    pub active: u32,
    /// Of the accepting side.
    pub passive: u32,
}

/// What is in a target, for sure: bytes, and what they need besides.
///
/// Acknowledgements tell of bytes, not of messages. So overhead is freed in lots: what was there at a mark is gone when
/// all bytes up to the mark are acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ledger {
    /// Bytes redirected.
    pub redirected: u64,
    /// Their overhead.
    pub overhead: u64,
    /// Overhead that is freed, of redirected and relayed bytes together.
    pub freed: u64,
    /// Bytes in the stream at the mark.
    pub mark: u64,
    /// All overhead at the mark.
    pub mark_overhead: u64,
}

impl Ledger {
    /// The most the target may hold, given the bytes of its stream, those acknowledged, and the overhead of relayed ones.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see overhead")]
    pub fn outstanding(&mut self, stream: u64, acked: u64, relay_overhead: u64) -> u64 {
        let all = self.overhead.wrapping_add(relay_overhead);
        if acked >= stream {
            self.mark_overhead = all;
        }
        if acked >= self.mark || acked >= stream {
            self.freed = self.mark_overhead;
            self.mark = stream;
            self.mark_overhead = all;
        }
        stream.saturating_sub(acked) + all.saturating_sub(self.freed)
    }

    /// Puts a redirected message in.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "see overhead")]
    pub fn add(&mut self, size: u64) {
        self.redirected += size;
        self.overhead += overhead(size);
    }
}

macro_rules! whys {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why a message was passed to the agent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Why {
            $($(#[$doc])* $variant,)*
        }

        impl Why {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in logs and metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

whys! {
    /// The agent has not begun to graft, or has ended it.
    NotOn = "not_on",
    /// The agent has yet to write out what was passed before.
    Unsettled = "unsettled",
    /// The target holds too much.
    OverBudget = "over_budget",
    /// The target is gone.
    NoTarget = "no_target",
    /// The source encrypts in the kernel (kTLS): what a program sees is not what it sends.
    KernelTls = "kernel_tls",
}

/// What the program knows of a message. `passed` and `relayed` are compared as 32 bits, as sequence numbers are: they are
/// never as much as 2^32 apart.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// [`Direction::state`].
    pub state: u64,
    /// Whether the source has an upper-layer protocol such as kTLS.
    pub has_ulp: bool,
    /// Bytes of the source let through so far.
    pub passed: u32,
    /// [`Direction::relayed`].
    pub relayed: u64,
    /// [`Ledger::outstanding`].
    pub outstanding: u64,
    /// Bytes of the message.
    pub size: u64,
}

/// Whether a message may be redirected, or why not.
#[inline(always)]
#[expect(clippy::inline_always, reason = "see overhead")]
#[expect(clippy::cast_possible_truncation, reason = "compared as sequence numbers are")]
pub fn decide(facts: &Facts) -> Option<Why> {
    if facts.state != ON {
        return Some(Why::NotOn);
    }
    if facts.has_ulp {
        return Some(Why::KernelTls);
    }
    if facts.passed != facts.relayed as u32 {
        return Some(Why::Unsettled);
    }
    // An empty target takes any message: one send queues at most half a megabyte at once.
    if facts.outstanding + facts.size + overhead(facts.size) > BUDGET {
        return Some(Why::OverBudget);
    }
    None
}

const _: () = assert!(size_of::<Direction>() == 192);
const _: () = assert!(size_of::<Slot>() == 448);
const _: () = assert!(size_of::<Source>() == 64);
const _: () = assert!(size_of::<Target>() == 32);
const _: () = assert!(size_of::<Pairing>() == 8);
const _: () = assert!(Why::COUNT == 5);

#[cfg(test)]
mod tests;
