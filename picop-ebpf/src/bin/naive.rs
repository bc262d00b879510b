//! Naive ways to carry payload past a proxy, each with its known fault: the tests of the graft must see them fail. An
//! object of its own; no agent loads it.
//!
//! `A` is the client's socket, `P1` and `P2` the proxy's, `B` the server's, as in `picop_common::graft`. One connection at a
//! time, known by its ports.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "of what aya's macros write; the programs have theirs")]
#![expect(clippy::needless_pass_by_value, reason = "the signature aya's macros ask for")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "verdicts are words")]

#[path = "../object.rs"]
mod object;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_INGRESS, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, sk_action,
    },
    macros::{map, sk_msg, sock_ops, stream_verdict},
    maps::{Array, SockHash},
    programs::{SkBuffContext, SkMsgContext, SockOpsContext},
};

/// Keys of sockets in the maps.
const A: u64 = 1;
const B: u64 = 2;
const P2: u64 = 4;

/// Where the proxy and the server listen.
const PROXY: u32 = 7000;
const SERVER: u32 = 9000;

/// Values of `KIND`: what `A` sends goes into the send queue of `P2`, however full, or
const EGRESS: u32 = 1;
/// into the receive queue of `B`.
const INGRESS: u32 = 2;

/// Sockets with `redirect`.
#[map]
static SENDERS: SockHash<u64> = SockHash::with_max_entries(16, 0);
/// Sockets with `splice`.
#[map]
static RECEIVERS: SockHash<u64> = SockHash::with_max_entries(16, 0);
#[map]
static KIND: Array<u32> = Array::with_max_entries(1, 0);

fn kind() -> u32 {
    KIND.get(0).copied().unwrap_or(0)
}

/// Enrols `A` and `B`.
#[sock_ops]
pub fn enrol(ctx: SockOpsContext) -> u32 {
    let (op, local) = (ctx.op(), ctx.local_port());
    // SAFETY: the hook's own context. In network byte order.
    let remote = u32::from_be(unsafe { (&raw const (*ctx.ops).remote_port).read_volatile() });
    let key = if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && remote == PROXY {
        A
    } else if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB && local == SERVER && kind() == INGRESS {
        B
    } else {
        return 1;
    };
    if kind() != 0 {
        // What is not enrolled is not redirected, and the control that expects a failure tells.
        // SAFETY: the context belongs to this hook.
        let _ = SENDERS.update(key, unsafe { &mut *ctx.ops }, 0);
    }
    1
}

/// Redirects every message of `A`, with no thought of room, order or ends.
#[sk_msg]
pub fn redirect(ctx: SkMsgContext) -> u32 {
    // SAFETY: the hook's own context. In network byte order.
    let remote = u32::from_be(unsafe { (&raw const (*ctx.msg).remote_port).read_volatile() });
    if remote != PROXY {
        return sk_action::SK_PASS;
    }
    match kind() {
        EGRESS => SENDERS.redirect_msg(&ctx, P2, 0) as u32,
        INGRESS => SENDERS.redirect_msg(&ctx, B, u64::from(BPF_F_INGRESS)) as u32,
        _ => sk_action::SK_PASS,
    }
}

/// Redirects everything that `P1` receives into the send queue of `P2`: the textbook's splice.
#[stream_verdict]
pub fn splice(ctx: SkBuffContext) -> u32 {
    // SAFETY: the hook's own context.
    let local = unsafe { (*ctx.as_ptr().cast::<aya_ebpf::bindings::__sk_buff>()).local_port };
    if local != PROXY {
        return sk_action::SK_PASS;
    }
    RECEIVERS.redirect_skb(&ctx, P2, 0) as u32
}
