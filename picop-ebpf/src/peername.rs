//! `cgroup/getpeername4|6`: an application that asks whom it is connected to gets the address it asked for.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use picop_common::{addr::Endpoint, connect::Event, maps::FLOW_NONE};

use crate::{
    ctx::{set_user_v4, set_user_v6, user_v4, user_v6},
    maps::{FLOWS, happened},
};

/// The only value these hooks may return.
const PROCEED: i32 = 1;

/// `getpeername(2)` of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(original) = original(&ctx, user_v4(ctx.sock_addr)) {
        set_user_v4(ctx.sock_addr, &original);
    }
    PROCEED
}

/// `getpeername(2)` of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(original) = original(&ctx, user_v6(ctx.sock_addr)) {
        set_user_v6(ctx.sock_addr, &original);
    }
    PROCEED
}

/// What the application asked for, if `peer` is what it was sent to instead. A socket may have been connected anew since,
/// without being rewritten.
#[inline(always)]
fn original(ctx: &SockAddrContext, peer: Endpoint) -> Option<Endpoint> {
    // SAFETY: the helper checks the context's socket itself and only looks up.
    let flow = unsafe { FLOWS.get_ptr_mut(ctx) };
    if flow.is_null() {
        return None;
    }
    // SAFETY: not null, and the socket is held by the system call.
    let flow = unsafe { *flow };
    if flow.state == FLOW_NONE || flow.target != peer {
        return None;
    }
    happened(Event::PeerName);
    Some(flow.original)
}
