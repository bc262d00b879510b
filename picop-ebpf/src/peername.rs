//! `cgroup/getpeername4|6`: an application that asks whom it is connected to gets the address it asked for.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use picop_common::{addr::Endpoint, connect::Event};

use crate::{
    ctx::{set_user_v4, set_user_v6, user_v4, user_v6},
    flows,
    maps::happened,
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

#[inline(always)]
fn original(ctx: &SockAddrContext, peer: Endpoint) -> Option<Endpoint> {
    let original = flows::recall(ctx, peer)?;
    happened(Event::PeerName);
    Some(original)
}
