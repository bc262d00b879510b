//! What is remembered of a socket whose `connect(2)` was rewritten, and where.
//!
//! | where | of whom | gone |
//! | --- | --- | --- |
//! | `FLOW_SLOTS`, a slot chosen by the socket's cookie | all but the others | when TCP closes the socket: the state callback |
//! | `FLOWS`, socket storage | who is to be enrolled for a graft; whose slot another connection has; all, before Linux 6.12 | with the socket |
//!
//! Storage is what every hook can reach without more. But it is two allocations per socket, freed after a grace period:
//! most of what a direct connection would cost. Cookies are handed out in sequence, so slots next to each other are used one
//! after the other, and are in the CPU's cache (those of a hash would not be). A socket that has storage, from an earlier
//! connect, keeps it.
//!
//! Every hook that is here has the socket locked; so nobody else is in its slot.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_setsockopt, bpf_skc_to_tcp_sock},
    programs::{SkMsgContext, SockAddrContext, SockOpsContext},
};
use picop_common::{
    addr::Endpoint,
    maps::{FLOW_INJECT, FLOW_NONE, FLOW_RELAY_GRAFT, FLOW_SLOTS_MAX, Flow, FlowSlot},
};

use crate::{
    atomic,
    ctx::{flow_of, socket},
    maps::{FLOW_SLOTS, FLOWS},
};

const IPPROTO_TCP: i32 = 6;
/// `TCP_BPF_SOCK_OPS_CB_FLAGS` of linux/bpf.h (6.12).
const SOCK_OPS_CB_FLAGS: i32 = 1008;

/// Where this kernel's `sock_common` has a socket's cookie, for which sk_msg has no helper. The agent reads it from the
/// kernel's BTF and fills it in before loading; 0 is unknown, and who is to have a header written has storage.
#[unsafe(no_mangle)]
static COOKIE_AT: Global<u32> = Global::new(0);

/// Remembers a rewritten connect. False: there is no memory for it.
#[inline(always)]
pub fn remember(ctx: &SockAddrContext, flow: &Flow) -> bool {
    // SAFETY: the helper checks the context's socket itself and only looks up.
    let stored = unsafe { FLOWS.get_ptr_mut(ctx) };
    if !stored.is_null() {
        // SAFETY: not null; the storage belongs to the socket that this connect holds locked.
        unsafe { *stored = *flow };
        return true;
    }
    let finds_slots = flow.state != FLOW_RELAY_GRAFT && (flow.state != FLOW_INJECT || COOKIE_AT.load() != 0);
    if finds_slots && remember_in_slot(ctx, flow) {
        return true;
    }
    give_back(cookie(ctx));
    let mut flow = *flow;
    // SAFETY: as above; with the flag it is made, and the value copied in.
    !unsafe { FLOWS.get_or_insert_ptr_mut(ctx, Some(&mut flow)) }.is_null()
}

/// The same in a slot. False: it is somebody else's, or nobody would free it.
#[inline(always)]
fn remember_in_slot(ctx: &SockAddrContext, flow: &Flow) -> bool {
    let cookie = cookie(ctx);
    let Some(slot) = slot(cookie) else { return false };
    if !is_owner(slot, cookie) {
        // First, so that a slot that was taken is given back. Stays on a socket that finds its slot taken: harmless.
        let mut flags = BPF_SOCK_OPS_STATE_CB_FLAG;
        // SAFETY: the helper takes this hook's context (5.8), and reads four bytes.
        let watched = unsafe {
            bpf_setsockopt(ctx.as_ptr(), IPPROTO_TCP, SOCK_OPS_CB_FLAGS, (&raw mut flags).cast(), 4) == 0
        };
        if !watched || !pass_on(slot, 0, cookie) {
            return false;
        }
    }
    // SAFETY: the slot is this socket's, which this connect holds locked.
    unsafe { (*slot).flow = *flow };
    true
}

/// A connect that is left alone: what was remembered of an earlier one of the same socket is void. (Its header, above all,
/// is not to be written to whoever is at the other end this time.)
#[inline(always)]
pub fn forget(ctx: &SockAddrContext) {
    // SAFETY: as in `remember`.
    let stored = unsafe { FLOWS.get_ptr_mut(ctx) };
    if !stored.is_null() {
        // SAFETY: as in `remember`.
        unsafe { (*stored).state = FLOW_NONE };
        return;
    }
    give_back(cookie(ctx));
}

/// What the application asked for, if `peer` is what it was sent to instead. A socket may have been connected anew since,
/// without being rewritten.
#[inline(always)]
pub fn recall(ctx: &SockAddrContext, peer: Endpoint) -> Option<Endpoint> {
    // SAFETY: as in `remember`.
    let mut flow = unsafe { FLOWS.get_ptr_mut(ctx) };
    if flow.is_null() {
        flow = in_slot(cookie(ctx));
    }
    if flow.is_null() {
        return None;
    }
    // SAFETY: not null, and the socket is locked by the system call.
    let flow = unsafe { *flow };
    (flow.state != FLOW_NONE && flow.target == peer).then_some(flow.original)
}

/// What a TCP event's socket is remembered for, or null; and which callbacks it must keep to its end.
#[inline(always)]
pub fn of_event(ctx: &SockOpsContext) -> (*mut Flow, u32) {
    // SAFETY: the hook's own context; null unless the socket is a full one.
    let sk = unsafe { socket(ctx.ops) };
    let stored = flow_of(sk);
    if !stored.is_null() || sk.is_null() {
        return (stored, 0);
    }
    // SAFETY: the helper takes this hook's context.
    (in_slot(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }), BPF_SOCK_OPS_STATE_CB_FLAG)
}

/// What a message's socket is remembered for, or null.
#[inline(always)]
pub fn of_message(ctx: &SkMsgContext) -> *mut Flow {
    // SAFETY: the hook's own context; tested for null in `flow_of`.
    let sk: *mut bpf_sock = unsafe { (*ctx.msg).__bindgen_anon_3.sk };
    let stored = flow_of(sk);
    let at = COOKIE_AT.load() as usize;
    if !stored.is_null() || sk.is_null() || at == 0 {
        return stored;
    }
    // SAFETY: the helper takes any socket, and answers null for one that is not TCP.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) }.cast::<u8>();
    if tcp.is_null() {
        return stored;
    }
    #[expect(clippy::cast_ptr_alignment, reason = "the kernel's own place of this field")]
    // SAFETY: inside the kernel's struct, at the place its own BTF names; the verifier checks it. The connect hook has had
    // the cookie made.
    let cookie = unsafe { tcp.add(at).cast::<u64>().read_volatile() };
    in_slot(cookie)
}

/// A closed socket's slot is for the next one.
#[inline(always)]
pub fn closed(ctx: &SockOpsContext) {
    // SAFETY: the helper takes this hook's context.
    give_back(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) });
}

/// The slot, if the socket has one, is for another one.
#[inline(always)]
fn give_back(cookie: u64) {
    if let Some(slot) = own_slot(cookie) {
        pass_on(slot, cookie, 0);
    }
}

/// What is in a socket's slot, if it has one; else null.
#[inline(always)]
fn in_slot(cookie: u64) -> *mut Flow {
    match own_slot(cookie) {
        // SAFETY: a map value, which lives as long as the map.
        Some(slot) => unsafe { &raw mut (*slot).flow },
        None => core::ptr::null_mut(),
    }
}

/// A socket's slot, if it is this socket's.
#[inline(always)]
fn own_slot(cookie: u64) -> Option<*mut FlowSlot> {
    slot(cookie).filter(|slot| is_owner(*slot, cookie))
}

#[inline(always)]
fn slot(cookie: u64) -> Option<*mut FlowSlot> {
    FLOW_SLOTS.get_ptr_mut(cookie as u32 & (FLOW_SLOTS_MAX as u32 - 1))
}

#[inline(always)]
fn is_owner(slot: *mut FlowSlot, cookie: u64) -> bool {
    // SAFETY: a map value, which lives as long as the map; an aligned word, read whole.
    unsafe { (&raw const (*slot).owner).read_volatile() == cookie }
}

/// From one owner to the next, or to nobody. False: it is not the first one's.
#[inline(always)]
fn pass_on(slot: *mut FlowSlot, from: u64, to: u64) -> bool {
    // SAFETY: as in `is_owner`. Nobody writes the word otherwise.
    unsafe { atomic::replace(&raw mut (*slot).owner, from, to) }
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this hook's context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}
