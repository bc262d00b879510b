//! `sock_ops`: what happens to a rewritten connection once its handshake is done.
//!
//! Relayed: tells the agent where it really wants to go. At ACTIVE_ESTABLISHED the client's port is known, and the agent's
//! accept cannot have returned yet: the client's last ACK is still to be sent.
//!
//! Direct, with a header to write: the socket is enrolled in SOCKS (which the kernel allows only here), and taken out as
//! soon as the header is acknowledged, before any reply to it is queued: an enrolled socket is not quite a TCP socket to
//! its application (FIONREAD answers 0 on 6.18.44; a blocking read may answer EAGAIN on all).

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RETRANS_CB,
        BPF_SOCK_OPS_RETRANS_CB_FLAG, BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_CLOSE_WAIT,
        BPF_TCP_CLOSING, BPF_TCP_ESTABLISHED, BPF_TCP_FIN_WAIT1, BPF_TCP_FIN_WAIT2, BPF_TCP_LAST_ACK,
        BPF_TCP_SYN_SENT,
    },
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_socket_cookie, bpf_map_delete_elem, bpf_sock_ops_cb_flags_set},
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::{debug, warn};
use picop_common::{
    addr::{Endpoint, PortBe},
    carried::{mark, payload},
    connect::{EJECTION_NS, Event},
    maps::{
        FLOW_DIRECT, FLOW_FAILED, FLOW_GRAFT, FLOW_INJECT, FLOW_INJECTED, FLOW_NONE, FLOW_RELAY,
        FLOW_RELAY_GRAFT, Flow, Original, OriginalKey, TOLD_DIRECT, TOLD_INJECT, UsageKey,
    },
    route::header_len,
};

use crate::{
    ctx::{local, netns_cookie},
    flows, graft,
    maps::{ORIGINALS, SOCKS, UNHEALTHY, ended, happened},
};

/// Lets the kernel use `reply`, which stays as it was. 0 would make the callback answer -1.
const PROCEED: u32 = 1;

/// Every TCP event of the cgroup that is not off by default, and those switched on per socket.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op == BPF_SOCK_OPS_STATE_CB
        && matches!(ctx.arg(1), BPF_TCP_ESTABLISHED | BPF_TCP_LAST_ACK | BPF_TCP_CLOSING)
    {
        // On the way to what matters. Each callback costs a look-up of what the socket is remembered for.
        return PROCEED;
    }
    if !matches!(
        op,
        BPF_SOCK_OPS_TCP_CONNECT_CB
            | BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
            | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
            | BPF_SOCK_OPS_RTT_CB
            | BPF_SOCK_OPS_RETRANS_CB
            | BPF_SOCK_OPS_STATE_CB
    ) {
        return PROCEED;
    }
    if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        graft::server_established(&ctx);
        return PROCEED;
    }
    let (flow, kept) = flows::of_event(&ctx);
    if flow.is_null() {
        if op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
            // A server that is the source of a graft.
            graft::followed(&ctx, op);
        }
        return PROCEED;
    }
    // SAFETY: not null, and the socket is locked by its owner during this callback.
    let flow = unsafe { &mut *flow };
    if flow.state == FLOW_GRAFT {
        graft::followed(&ctx, op);
        return PROCEED;
    }
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        connecting(&ctx, flow);
    } else if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        established(&ctx, flow, kept);
    } else if op == BPF_SOCK_OPS_RTT_CB {
        acknowledged(&ctx, flow, kept);
    } else if op == BPF_SOCK_OPS_RETRANS_CB {
        retransmitted(&ctx, flow, kept);
    } else {
        changed_state(&ctx, flow, kept);
        if ctx.arg(1) == BPF_TCP_CLOSE {
            // Those in storage have this callback only some of the time: none of them is counted.
            if kept & BPF_SOCK_OPS_STATE_CB_FLAG != 0 {
                carried(&ctx, flow);
            }
            flows::closed(&ctx);
        } else if ctx.arg(1) == BPF_TCP_FIN_WAIT2 {
            // SAFETY: the hook's own context.
            flow.watch = mark(unsafe { (&raw const (*ctx.ops).bytes_received).read_volatile() });
        }
    }
    PROCEED
}

/// Before the SYN. A connection with a choice of endpoints is watched: see `changed_state`.
#[inline(always)]
fn connecting(ctx: &SockOpsContext, flow: &Flow) {
    if flow.watch != 0 {
        set_callbacks(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
    }
}

#[inline(always)]
fn established(ctx: &SockOpsContext, flow: &mut Flow, kept: u32) {
    if flow.state == FLOW_RELAY {
        announce(ctx, flow, 0);
    } else if flow.state == FLOW_RELAY_GRAFT {
        let graft = graft::client_established(ctx);
        flow.state = if graft == 0 { FLOW_RELAY } else { FLOW_GRAFT };
        announce(ctx, flow, graft);
    } else if flow.state == FLOW_INJECT {
        enrol(ctx, flow, kept);
    } else if flow.watch != 0 {
        set_callbacks(ctx, kept);
    }
}

#[inline(always)]
fn announce(ctx: &SockOpsContext, flow: &Flow, graft: u32) {
    let key = OriginalKey {
        netns_cookie: netns_cookie(ctx),
        client: local(ctx.ops),
        // A network-order word.
        listener: PortBe::from_host(u32::from_be(ctx.remote_port()) as u16),
        pad: 0,
    };
    let original = Original {
        client_cookie: cookie(ctx),
        destination: flow.original,
        graft: graft as u16,
        reason: flow.reason,
    };
    if ORIGINALS.insert(key, original, 0).is_err() {
        happened(Event::NoOriginal);
        warn!(ctx, "socket {}: no room for where it wants to go; the agent resets it", cookie(ctx));
    }
}

#[inline(always)]
fn enrol(ctx: &SockOpsContext, flow: &mut Flow, kept: u32) {
    // SAFETY: the hook's own context.
    if unsafe { (*ctx.ops).bytes_acked } > 1 {
        // More than the SYN is acknowledged: it carried data (TCP Fast Open). A header would be in the middle.
        happened(Event::HeaderMissed);
        warn!(ctx, "socket {}: its SYN carried data; there is no header", cookie(ctx));
        flow.state = FLOW_FAILED;
        set_callbacks(ctx, kept);
        return;
    }
    let mut key = cookie(ctx);
    // Before enrolling, so that there is always a way out again.
    let callbacks = set_callbacks(
        ctx,
        BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG,
    );
    // SAFETY: the context belongs to this hook.
    if callbacks && SOCKS.update(&mut key, unsafe { &mut *ctx.ops }, 0).is_ok() {
        happened(Event::Enrolled);
        debug!(ctx, "socket {}: enrolled for its header", cookie(ctx));
    } else {
        flow.state = FLOW_FAILED;
        happened(Event::EnrolFailed);
        warn!(ctx, "socket {}: cannot be enrolled; there is no header", cookie(ctx));
    }
}

/// An ACK that measured a round trip.
#[inline(always)]
fn acknowledged(ctx: &SockOpsContext, flow: &mut Flow, kept: u32) {
    // SAFETY: the hook's own context.
    let acked = unsafe { (*ctx.ops).bytes_acked };
    if flow.state == FLOW_INJECTED {
        // `bytes_acked` counts the SYN as 1.
        if acked > header_len(flow.header) {
            unenrol(ctx, flow, kept, Event::Unenrolled);
        }
    } else if flow.state == FLOW_INJECT && acked > 1 {
        missed(ctx, flow, kept);
    }
}

/// What was sent did not pass `msg`: by a send that began before the socket was enrolled (TCP Fast Open). What follows must
/// not get the header either.
#[inline(always)]
fn missed(ctx: &SockOpsContext, flow: &mut Flow, kept: u32) {
    happened(Event::HeaderMissed);
    warn!(ctx, "socket {}: sent before it was enrolled; there is no header", cookie(ctx));
    unenrol(ctx, flow, kept, Event::Unenrolled);
    flow.state = FLOW_FAILED;
}

/// The acknowledgement of a retransmitted segment may measure nothing (Karn's algorithm), and would never be seen by
/// `acknowledged`. What is retransmitted is in TCP's own queue: the map has done its part.
#[inline(always)]
fn retransmitted(ctx: &SockOpsContext, flow: &mut Flow, kept: u32) {
    if flow.state == FLOW_INJECTED {
        unenrol(ctx, flow, kept, Event::Unenrolled);
    } else if flow.state == FLOW_INJECT {
        // Data of the SYN that the server did not take with it, for one.
        missed(ctx, flow, kept);
    }
}

/// A connect that failed says that the endpoint does not work. (Or that the application gave up early, which is no better
/// a reason to send the next one there while there are others.)
///
/// A blocking read on an enrolled socket may answer EAGAIN once its own side is closed: out of the map by then. One that
/// has yet to send its header stays when only the peer has closed (CLOSE_WAIT): it may still send.
#[inline(always)]
fn changed_state(ctx: &SockOpsContext, flow: &mut Flow, kept: u32) {
    let (from, to) = (ctx.arg(0), ctx.arg(1));
    if from == BPF_TCP_SYN_SENT && to == BPF_TCP_CLOSE {
        if flow.watch != 0 {
            pass_over(&flow.target);
        }
        return;
    }
    if flow.state != FLOW_INJECT && flow.state != FLOW_INJECTED {
        return;
    }
    if to == BPF_TCP_FIN_WAIT1
        || to == BPF_TCP_CLOSE
        || (to == BPF_TCP_CLOSE_WAIT && flow.state == FLOW_INJECTED)
    {
        unenrol(ctx, flow, kept, Event::UnenrolledClosing);
    }
}

/// Counts what a direct connection carried. (What was sent and never acknowledged has not been carried.)
#[inline(always)]
fn carried(ctx: &SockOpsContext, flow: &Flow) {
    let from = ctx.arg(0);
    if from == BPF_TCP_SYN_SENT || flow.state == FLOW_RELAY || flow.state == FLOW_NONE {
        return;
    }
    // SAFETY: the hook's own context.
    let (acked, received) = unsafe {
        (
            (&raw const (*ctx.ops).bytes_acked).read_volatile(),
            (&raw const (*ctx.ops).bytes_received).read_volatile(),
        )
    };
    let verdict = if flow.header == 0 { TOLD_DIRECT } else { TOLD_INJECT };
    let header = if flow.state == FLOW_FAILED { 0 } else { header_len(flow.header) };
    let (up, down) = payload(from, acked, received, flow.watch, header);
    let key = UsageKey {
        original: flow.original,
        environment: flow.environment,
        reason: flow.reason,
        verdict: verdict as u16,
        pad: 0,
    };
    ended(&key, up, down);
}

#[inline(always)]
fn pass_over(endpoint: &Endpoint) {
    // SAFETY: a helper without preconditions.
    let until = unsafe { bpf_ktime_get_ns() } + EJECTION_NS;
    if UNHEALTHY.insert(endpoint, until, 0).is_ok() {
        happened(Event::EndpointFailed);
    }
}

#[inline(always)]
fn unenrol(ctx: &SockOpsContext, flow: &mut Flow, kept: u32, event: Event) {
    flow.state = FLOW_DIRECT;
    let key = cookie(ctx);
    // SAFETY: `sock_ops` may delete from a sockhash. At TCP_CLOSE the kernel may have done so already.
    unsafe { bpf_map_delete_elem(&raw const SOCKS as *mut _, (&raw const key).cast()) };
    set_callbacks(ctx, kept);
    happened(event);
}

/// Which callbacks this socket has besides the default ones.
#[inline(always)]
pub fn set_callbacks(ctx: &SockOpsContext, flags: u32) -> bool {
    // SAFETY: the helper takes this hook's context. It answers with the bits the kernel does not know.
    unsafe { bpf_sock_ops_cb_flags_set(ctx.ops, flags as i32) == 0 }
}

#[inline(always)]
pub fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes this hook's context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}
