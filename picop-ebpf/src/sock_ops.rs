//! `sock_ops`: when a rewritten connection's handshake is done, tells the agent where it really wants to go.
//!
//! At ACTIVE_ESTABLISHED the client's port is known, and the agent's accept cannot have returned yet: the client's last
//! ACK is still to be sent.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::sock_ops,
    programs::SockOpsContext,
};
use picop_common::{
    addr::PortBe,
    connect::Reason,
    maps::{FLOW_RELAY, Original, OriginalKey},
};

use crate::{
    ctx::{flow_of, local},
    maps::{ORIGINALS, count},
};

/// Lets the kernel use `reply`, which stays as it was. 0 would make the callback answer -1.
const PROCEED: u32 = 1;

/// Every TCP event of the cgroup; only one is of interest.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    if ctx.op() == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        established(&ctx);
    }
    PROCEED
}

#[inline(always)]
fn established(ctx: &SockOpsContext) {
    // SAFETY: the hook's own context; null unless the socket is a full one.
    let flow = flow_of(unsafe { (*ctx.ops).__bindgen_anon_2.sk });
    if flow.is_null() {
        return;
    }
    // SAFETY: not null, and the socket is locked by its owner during this callback.
    let flow = unsafe { *flow };
    if flow.state != FLOW_RELAY {
        return;
    }
    let key = OriginalKey {
        // SAFETY: the helper takes this hook's context (kernel 5.15).
        netns_cookie: unsafe { bpf_get_netns_cookie(ctx.as_ptr()) },
        client: local(ctx.ops),
        // A network-order word.
        listener: PortBe::from_host(u32::from_be(ctx.remote_port()) as u16),
        pad: 0,
    };
    let original = Original {
        // SAFETY: the helper takes this hook's context.
        client_cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        destination: flow.original,
        pad: 0,
    };
    if ORIGINALS.insert(key, original, 0).is_err() {
        count(Reason::NoOriginal);
    }
}
