//! What is remembered of a socket whose `connect(2)` was rewritten, and where.
//!
//! | where | of whom | gone |
//! | --- | --- | --- |
//! | `PEERS`, a slot chosen by the socket's cookie | direct connections with no header to write: only getpeername(2) will ask | when TCP closes the socket: the state callback |
//! | `FLOWS`, socket storage | the others; those whose slot another connection has; all of them before Linux 6.12 | with the socket |
//!
//! Storage is what every hook can reach, sk_msg included, which knows no cookie. But it is two allocations per socket,
//! freed after a grace period: most of what a direct connection would cost. Cookies are handed out in sequence, so slots
//! next to each other are used one after the other, and are in the CPU's cache (those of a hash would not be). A socket that
//! has storage, from an earlier connect, keeps it.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT},
    helpers::generated::{bpf_get_socket_cookie, bpf_setsockopt},
    programs::{SockAddrContext, SockOpsContext},
};
use picop_common::{
    addr::Endpoint,
    maps::{FLOW_DIRECT, FLOW_NONE, Flow, PEERS_MAX, Peer},
};

use crate::{
    atomic,
    maps::{FLOWS, PEERS},
};

const IPPROTO_TCP: i32 = 6;
/// `TCP_BPF_SOCK_OPS_CB_FLAGS` of linux/bpf.h (6.12).
const SOCK_OPS_CB_FLAGS: i32 = 1008;

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
    if flow.state == FLOW_DIRECT && remember_peer(ctx, flow) {
        return true;
    }
    give_back(cookie(ctx));
    let mut flow = *flow;
    // SAFETY: as above; with the flag it is made, and the value copied in.
    !unsafe { FLOWS.get_or_insert_ptr_mut(ctx, Some(&mut flow)) }.is_null()
}

/// The same in a slot. False: it is somebody else's, or nobody would free it.
#[inline(always)]
fn remember_peer(ctx: &SockAddrContext, flow: &Flow) -> bool {
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
    unsafe {
        (*slot).original = flow.original;
        (*slot).target = flow.target;
        (*slot).watch = u32::from(flow.watch);
    }
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
    let stored = unsafe { FLOWS.get_ptr_mut(ctx) };
    if !stored.is_null() {
        // SAFETY: not null, and the socket is held by the system call.
        let flow = unsafe { *stored };
        return (flow.state != FLOW_NONE && flow.target == peer).then_some(flow.original);
    }
    let slot = own_slot(cookie(ctx))?;
    // SAFETY: the slot is this socket's, which this system call holds locked.
    let (original, target) = unsafe { ((*slot).original, (*slot).target) };
    (target == peer).then_some(original)
}

/// The state callback of a socket without storage. Answers the endpoint that did not take a connection, if that is worth
/// knowing.
#[inline(always)]
pub fn changed_state(ctx: &SockOpsContext) -> Option<Endpoint> {
    if ctx.arg(1) != BPF_TCP_CLOSE {
        return None;
    }
    // SAFETY: the helper takes this hook's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let slot = own_slot(cookie)?;
    // SAFETY: the slot is this socket's, which is locked during this callback.
    let (target, watch) = unsafe { ((*slot).target, (*slot).watch) };
    pass_on(slot, cookie, 0);
    (ctx.arg(0) == BPF_TCP_SYN_SENT && watch != 0).then_some(target)
}

/// The slot of an earlier connect of the same socket.
#[inline(always)]
fn give_back(cookie: u64) {
    if let Some(slot) = own_slot(cookie) {
        pass_on(slot, cookie, 0);
    }
}

/// A socket's slot, if it is this socket's.
#[inline(always)]
fn own_slot(cookie: u64) -> Option<*mut Peer> {
    slot(cookie).filter(|slot| is_owner(*slot, cookie))
}

#[inline(always)]
fn slot(cookie: u64) -> Option<*mut Peer> {
    PEERS.get_ptr_mut(cookie as u32 & (PEERS_MAX as u32 - 1))
}

#[inline(always)]
fn is_owner(slot: *mut Peer, cookie: u64) -> bool {
    // SAFETY: a map value, which lives as long as the map; an aligned word, read whole.
    unsafe { (&raw const (*slot).owner).read_volatile() == cookie }
}

/// From one owner to the next, or to nobody. False: it is not the first one's.
#[inline(always)]
fn pass_on(slot: *mut Peer, from: u64, to: u64) -> bool {
    // SAFETY: as in `is_owner`. Nobody writes the word otherwise.
    unsafe { atomic::replace(&raw mut (*slot).owner, from, to) }
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this hook's context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}
