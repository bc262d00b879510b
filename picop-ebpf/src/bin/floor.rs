//! The least that a program can do to a socket's first bytes: enter it into a sockhash when the handshake is done, see its
//! first message, take it out at the ACK. No table, no state, no header. `cargo xtask bench connect` measures it beside picop's
//! own programs: what it costs is the kernel's price of the mechanism. An object of its own; no agent loads it.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "of what aya's macros write; the programs have theirs")]
#![expect(clippy::needless_pass_by_value, reason = "the signature aya's macros ask for")]

#[path = "../object.rs"]
mod object;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, sk_action,
    },
    helpers::generated::{bpf_get_socket_cookie, bpf_map_delete_elem, bpf_sock_ops_cb_flags_set},
    macros::{map, sk_msg, sock_ops},
    maps::{Array, SockHash},
    programs::{SkMsgContext, SockOpsContext},
};

/// As large as picop's own.
#[map]
static SOCKS: SockHash<u64> = SockHash::with_max_entries(65_536, 0);
/// Messages seen: that the sockets were enrolled.
#[map]
static SEEN: Array<u64> = Array::with_max_entries(1, 0);

/// Enrols whoever connects, and takes out at the first ACK that measures a round trip.
#[sock_ops]
pub fn enrol(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        // SAFETY: the helper takes this hook's context.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        // SAFETY: the context belongs to this hook. What cannot be enrolled is not seen, and the benchmark counts.
        let enrolled = SOCKS.update(cookie, unsafe { &mut *ctx.ops }, 0).is_ok();
        if enrolled {
            // SAFETY: as above.
            unsafe { bpf_sock_ops_cb_flags_set(ctx.ops, BPF_SOCK_OPS_RTT_CB_FLAG.cast_signed()) };
        }
    } else if op == BPF_SOCK_OPS_RTT_CB {
        // SAFETY: as above; `sock_ops` may delete from a sockhash.
        unsafe {
            let cookie = bpf_get_socket_cookie(ctx.as_ptr());
            bpf_map_delete_elem(&raw const SOCKS as *mut _, (&raw const cookie).cast());
            bpf_sock_ops_cb_flags_set(ctx.ops, 0);
        }
    }
    1
}

/// Lets every message through.
#[sk_msg]
pub fn pass(_ctx: SkMsgContext) -> u32 {
    if let Some(seen) = SEEN.get_ptr_mut(0) {
        // SAFETY: a map value lives as long as the map. One client counts, one connection after the other.
        unsafe { *seen += 1 };
    }
    sk_action::SK_PASS
}
