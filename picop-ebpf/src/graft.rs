//! The graft: see `picop_common::graft`.
//!
//! `graft` (sk_msg of SOURCES) runs for every message of an enrolled application socket, and redirects it into the agent's
//! socket on the other side, or passes it. Sources are enrolled in `sock_ops` of the pods' cgroup, by the functions here.
//! `agent_ops` is `sock_ops` of the agent's own cgroup: it follows what the targets' peers acknowledge.

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{
        BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_TCP_CLOSE, BPF_TCP_CLOSE_WAIT, BPF_TCP_FIN_WAIT1, bpf_sock, sk_action,
    },
    helpers::{
        bpf_ktime_get_ns,
        generated::{
            bpf_getsockopt, bpf_map_delete_elem, bpf_setsockopt, bpf_sk_storage_get, bpf_skc_to_tcp_sock,
        },
    },
    macros::{sk_msg, sock_ops},
    programs::{SkMsgContext, SockOpsContext},
};
use picop_common::{
    addr::PortBe,
    connect::Event,
    graft::{
        DOWN, Direction, Facts, OFF, Pairing, Slot, Source, Target, UP, WAITING, Why, decide, is_pass_lowat,
        pass_lowat,
    },
    maps::OriginalKey,
};

use crate::{
    ctx::{local_port, netns_cookie, remote, socket},
    maps::{
        EXPECTED, EXPECTING, FREE_SLOTS, ORIGINALS, SLOTS, SOURCE_OF, SOURCES, TARGET_OF, TARGETS, happened,
    },
    sock_ops::{cookie, set_callbacks},
};

const PROCEED: u32 = 1;

/// Where `write_seq` is in this kernel's `tcp_sock`, and `icsk_ulp_ops` in the `inet_connection_sock` it begins with. The
/// agent reads it from the kernel's BTF and fills it in before loading; 0 is unknown, and nothing is redirected.
#[unsafe(no_mangle)]
static WRITE_SEQ_AT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static ULP_OPS_AT: Global<u32> = Global::new(0);

/// Every message of a source.
#[sk_msg]
pub fn graft(ctx: SkMsgContext) -> u32 {
    // SAFETY: the hook's own context; tested for null below.
    let sk = unsafe { (*ctx.msg).__bindgen_anon_3.sk };
    let source = source_of(sk);
    if source.is_null() {
        return sk_action::SK_PASS;
    }
    // SAFETY: not null, and the socket is locked by the send this runs in.
    let source = unsafe { &mut *source };
    let Some(direction) = direction(source.slot, source.side) else { return sk_action::SK_PASS };
    // SAFETY: a map value lives as long as the map. Words are read volatile, as the agent writes them meanwhile; those from
    // `redirected` on are this socket's as long as it is the direction's source.
    unsafe {
        if source.left != 0 || (&raw const (*direction).source).read_volatile() != source.cookie {
            return sk_action::SK_PASS;
        }
        let why = match redirect(&ctx, sk, source, direction) {
            Ok(size) => {
                source.ledger.add(size);
                (&raw mut (*direction).redirected).write_volatile(source.ledger.redirected);
                (*direction).redirects += 1;
                return sk_action::SK_PASS;
            }
            Err(why) => why,
        };
        let slot = match why {
            Why::NotOn => &raw mut (*direction).passes[0],
            Why::Unsettled => &raw mut (*direction).passes[1],
            Why::OverBudget => &raw mut (*direction).passes[2],
            Why::NoTarget => &raw mut (*direction).passes[3],
            Why::KernelTls => &raw mut (*direction).passes[4],
        };
        *slot += 1;
        // With this one: exact again at the next message, should the kernel take only a part of it.
        let passed = (&raw const (*direction).passed).read_volatile();
        (&raw mut (*direction).passed).write_volatile(passed + u64::from(ctx.size()));
    }
    sk_action::SK_PASS
}

/// Has the message redirected, and answers its size; or says why not. (That a redirected message is to be redirected the
/// kernel remembers by itself; the program's verdict is SK_PASS either way. Where the target is gone, it then passes, while
/// the helper's own verdict, SK_DROP, would show the application EACCES.)
#[inline(always)]
#[expect(clippy::cast_ptr_alignment, reason = "the kernel's own places of these fields")]
#[expect(clippy::cast_sign_loss, reason = "a verdict, 0 or 1")]
unsafe fn redirect(
    ctx: &SkMsgContext,
    sk: *mut bpf_sock,
    source: &mut Source,
    direction: *mut Direction,
) -> Result<u64, Why> {
    // SAFETY: the helper takes any socket, and answers null for one that is not TCP.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) }.cast::<u8>();
    let (write_seq_at, ulp_ops_at) = (WRITE_SEQ_AT.load() as usize, ULP_OPS_AT.load() as usize);
    if tcp.is_null() || write_seq_at == 0 || ulp_ops_at == 0 {
        return Err(Why::NotOn);
    }
    // SAFETY: inside the kernel's struct, at the places its own BTF names; the verifier checks them.
    let (write_seq, ulp) = unsafe {
        (
            tcp.add(write_seq_at).cast::<u32>().read_volatile(),
            tcp.add(ulp_ops_at).cast::<u64>().read_volatile(),
        )
    };
    // SAFETY: see `graft`.
    unsafe {
        // Before anything else of the agent's: what it read of the source it had written out by then.
        let relayed = (&raw const (*direction).relayed).read_volatile();
        let passed = write_seq.wrapping_sub(source.first);
        let size = u64::from(ctx.size());
        let stream = (&raw const (*direction).offset)
            .read_volatile()
            .wrapping_add(relayed)
            .wrapping_add(source.ledger.redirected);
        let acked = (&raw const (*direction).acked).read_volatile();
        let relay_overhead = (&raw const (*direction).relay_overhead).read_volatile();
        let facts = Facts {
            state: (&raw const (*direction).state).read_volatile(),
            has_ulp: ulp != 0,
            passed,
            relayed,
            outstanding: source.ledger.outstanding(stream, acked, relay_overhead),
            size,
        };
        // For the agent's eyes: 64 bits again.
        let ahead = u64::from(passed.wrapping_sub(relayed as u32));
        (&raw mut (*direction).passed).write_volatile(relayed.wrapping_add(ahead));
        if let Some(why) = decide(&facts) {
            return Err(why);
        }
        let target = (&raw const (*direction).target).read_volatile();
        // The slot may have become another connection's meanwhile, and the target its.
        if (&raw const (*direction).source).read_volatile() != source.cookie {
            return Err(Why::NotOn);
        }
        if TARGETS.redirect_msg(ctx, target, 0) as u32 == sk_action::SK_PASS {
            Ok(size)
        } else {
            Err(Why::NoTarget)
        }
    }
}

/// ACTIVE_ESTABLISHED of a client whose connection may be grafted: enrols it. Answers its slot and one, or 0.
#[inline(always)]
pub fn client_established(ctx: &SockOpsContext) -> u32 {
    let Ok(Some(slot)) = FREE_SLOTS.pop() else {
        happened(Event::GraftFailed);
        return 0;
    };
    // SAFETY: the hook's own context. `bytes_acked` counts the SYN, and what it carried: the first byte is behind that.
    let first = unsafe {
        let una = (&raw const (*ctx.ops).snd_una).read_volatile();
        let acked = (&raw const (*ctx.ops).bytes_acked).read_volatile();
        una.wrapping_sub(acked as u32).wrapping_add(1)
    };
    if enrol(ctx, slot, UP, first) {
        happened(Event::GraftClient);
        slot + 1
    } else {
        // Nobody knows of it. If it cannot be put back, the agent finds it by its age.
        if FREE_SLOTS.push(slot, 0).is_err() {
            happened(Event::GraftFailed);
        }
        0
    }
}

/// PASSIVE_ESTABLISHED of any socket: the server's of a graft, if the agent said so a moment ago.
#[inline(always)]
pub fn server_established(ctx: &SockOpsContext) {
    if EXPECTING.get(0).is_none_or(|expecting| *expecting == 0) {
        return;
    }
    // SAFETY: the hook's own context.
    let (ours, theirs) = unsafe {
        ((&raw const (*ctx.ops).snd_nxt).read_volatile(), (&raw const (*ctx.ops).rcv_nxt).read_volatile())
    };
    let key = Pairing { active: theirs, passive: ours };
    // SAFETY: copied at once.
    let Some(slot) = (unsafe { EXPECTED.get(key).copied() }) else { return };
    // An LRU: what cannot be removed is reused some day.
    let _ = EXPECTED.remove(key);
    if enrol(ctx, slot, DOWN, ours) {
        happened(Event::GraftServer);
    }
}

#[inline(always)]
fn enrol(ctx: &SockOpsContext, slot: u32, side: u32, first: u32) -> bool {
    let key = cookie(ctx);
    let mut source = Source { cookie: key, slot, side, first, ..Source::default() };
    // SAFETY: the context's socket, null unless a full one; the helper tests it. The map's values are `Source`.
    let stored = unsafe {
        let sk = socket(ctx.ops);
        if sk.is_null() {
            return false;
        }
        bpf_sk_storage_get(
            &raw const SOURCE_OF as *mut _,
            sk.cast(),
            (&raw mut source).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    }
    .cast::<Source>();
    if stored.is_null() {
        return false;
    }
    // SAFETY: not null; the socket is locked during this callback. A copy that came with a listener's clone is replaced.
    unsafe { *stored = source };
    let Some(direction) = direction(slot, side) else { return false };
    // Before enrolling, so that there is always a way out again.
    if !set_callbacks(ctx, BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG) {
        return false;
    }
    // SAFETY: see `graft`. A slot is nobody else's between being taken and being given back.
    unsafe {
        (&raw mut (*direction).source).write_volatile(key);
        if side == UP
            && let Some(slot) = SLOTS.get_ptr_mut(slot)
        {
            (&raw mut (*slot).taken_ns).write_volatile(bpf_ktime_get_ns());
        }
    }
    limit(ctx);
    // SAFETY: the context belongs to this hook.
    if SOURCES.update(key, unsafe { &mut *ctx.ops }, 0).is_ok() {
        return true;
    }
    happened(Event::GraftFailed);
    // SAFETY: as above.
    unsafe { (&raw mut (*direction).source).write_volatile(0) };
    unlimit(ctx);
    set_callbacks(ctx, 0);
    false
}

/// RTT and STATE callbacks of a source, or of any other socket that has them.
#[inline(always)]
pub fn followed(ctx: &SockOpsContext, op: u32) {
    // SAFETY: the hook's own context.
    let source = source_of(unsafe { socket(ctx.ops) });
    if source.is_null() {
        return;
    }
    // SAFETY: not null, and the socket is locked during this callback.
    let source = unsafe { &mut *source };
    let to = ctx.arg(1);
    let leave = if op == BPF_SOCK_OPS_RTT_CB {
        direction(source.slot, source.side).is_none_or(|direction| {
            // SAFETY: see `graft`.
            unsafe {
                (&raw const (*direction).source).read_volatile() != source.cookie
                    || (&raw const (*direction).state).read_volatile() == OFF
            }
        })
    } else if op == BPF_SOCK_OPS_STATE_CB {
        // A blocking read may answer EAGAIN from there on.
        to == BPF_TCP_FIN_WAIT1 || to == BPF_TCP_CLOSE_WAIT || to == BPF_TCP_CLOSE
    } else {
        false
    };
    if leave && source.left == 0 {
        source.left = 1;
        // SAFETY: `sock_ops` may delete from a sockhash. The agent or, at TCP_CLOSE, the kernel may have done so already.
        unsafe { bpf_map_delete_elem(&raw const SOURCES as *mut _, (&raw const source.cookie).cast()) };
        unlimit(ctx);
        set_callbacks(ctx, 0);
        happened(Event::GraftLeft);
    }
}

const IPPROTO_TCP: i32 = 6;
const TCP_NOTSENT_LOWAT: i32 = 25;

/// Sets TCP_NOTSENT_LOWAT, if nobody else has. (Without it the way back into the graft is longer, that is all.)
#[inline(always)]
fn limit(ctx: &SockOpsContext) {
    // SAFETY: the hook's own context.
    let mut lowat = pass_lowat(unsafe { (&raw const (*ctx.ops).mss_cache).read_volatile() });
    if lowat_of(ctx) == Some(0) {
        set_lowat(ctx, &mut lowat);
    }
}

/// Takes it back, if nobody else has set it since.
#[inline(always)]
fn unlimit(ctx: &SockOpsContext) {
    let mut none = 0;
    if lowat_of(ctx).is_some_and(is_pass_lowat) {
        set_lowat(ctx, &mut none);
    }
}

#[inline(always)]
fn lowat_of(ctx: &SockOpsContext) -> Option<u32> {
    let mut lowat = 0_u32;
    // SAFETY: the helper takes this hook's context, and a buffer of four bytes on the stack.
    let read =
        unsafe { bpf_getsockopt(ctx.as_ptr(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, (&raw mut lowat).cast(), 4) };
    (read == 0).then_some(lowat)
}

#[inline(always)]
fn set_lowat(ctx: &SockOpsContext, lowat: &mut u32) {
    // SAFETY: as above.
    unsafe { bpf_setsockopt(ctx.as_ptr(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, (&raw mut *lowat).cast(), 4) };
}

/// `sock_ops` of the agent's own cgroup: its sockets of connections that may be grafted.
#[sock_ops]
pub fn agent_ops(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op == BPF_SOCK_OPS_RTT_CB {
        acknowledged(&ctx);
    } else if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
        upstream_established(&ctx);
    } else if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        accepted(&ctx);
    }
    PROCEED
}

/// An ACK that measured a round trip. One that did not is made up for by the next; until then the target seems fuller than
/// it is.
#[inline(always)]
fn acknowledged(ctx: &SockOpsContext) {
    // SAFETY: the hook's own context.
    let target = target_of(unsafe { socket(ctx.ops) });
    if target.is_null() {
        return;
    }
    // SAFETY: not null, and the socket is locked during this callback.
    let Target { cookie, acked_before, slot, side, .. } = unsafe { *target };
    let Some(direction) = direction(slot, side) else { return };
    // SAFETY: the hook's own context; for the map value see `graft`. A slot that has become another connection's has
    // another target.
    unsafe {
        let acked = (&raw const (*ctx.ops).bytes_acked).read_volatile();
        if (&raw const (*direction).target).read_volatile() == cookie {
            (&raw mut (*direction).acked).write_volatile(acked.wrapping_sub(acked_before));
        }
    }
}

/// The agent's upstream socket. The agent has put its storage there; the server's end of the handshake is still to come.
#[inline(always)]
fn upstream_established(ctx: &SockOpsContext) {
    // SAFETY: the hook's own context.
    let target = target_of(unsafe { socket(ctx.ops) });
    if target.is_null() {
        return;
    }
    // SAFETY: not null, and the socket is locked during this callback; the rest is the hook's own context.
    unsafe {
        (*target).acked_before = (&raw const (*ctx.ops).bytes_acked).read_volatile();
        let ours = (&raw const (*ctx.ops).snd_nxt).read_volatile();
        let theirs = (&raw const (*ctx.ops).rcv_nxt).read_volatile();
        if (*target).expect != 0 {
            // Before there is something to be found.
            if let Some(expecting) = EXPECTING.get_ptr_mut(0) {
                expecting.write_volatile(1);
            }
            let pairing = Pairing { active: ours, passive: theirs };
            if EXPECTED.insert(pairing, (*target).slot, 0).is_err() {
                happened(Event::GraftFailed);
            }
        }
    }
    set_callbacks(ctx, BPF_SOCK_OPS_RTT_CB_FLAG);
}

/// A connection at one of the agent's listeners: of an enrolled client, if its record says so.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let key = OriginalKey {
        netns_cookie: netns_cookie(ctx),
        client: remote(ctx.ops),
        listener: PortBe::from_host(local_port(ctx.ops)),
        pad: 0,
    };
    // SAFETY: copied at once.
    let Some(graft) = (unsafe { ORIGINALS.get(key).map(|original| u32::from(original.graft)) }) else {
        return;
    };
    if graft == 0 {
        return;
    }
    let own = cookie(ctx);
    // SAFETY: the hook's own context.
    let acked_before = unsafe { (&raw const (*ctx.ops).bytes_acked).read_volatile() };
    let mut target = Target { cookie: own, acked_before, slot: graft - 1, side: DOWN, expect: 0, pad: 0 };
    // SAFETY: see `enrol`.
    let stored = unsafe {
        let sk = socket(ctx.ops);
        if sk.is_null() {
            return;
        }
        bpf_sk_storage_get(
            &raw const TARGET_OF as *mut _,
            sk.cast(),
            (&raw mut target).cast(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    };
    let Some(direction) = direction(graft - 1, DOWN) else { return };
    if !stored.is_null() {
        // SAFETY: see `graft`. Nobody redirects there yet.
        unsafe { (&raw mut (*direction).target).write_volatile(own) };
        set_callbacks(ctx, BPF_SOCK_OPS_RTT_CB_FLAG);
    }
}

#[inline(always)]
fn direction(slot: u32, side: u32) -> Option<*mut Direction> {
    let slot: *mut Slot = SLOTS.get_ptr_mut(slot)?;
    // SAFETY: a map value lives as long as the map.
    Some(unsafe { if side == UP { &raw mut (*slot).up } else { &raw mut (*slot).down } })
}

#[inline(always)]
fn source_of(sk: *mut bpf_sock) -> *mut Source {
    if sk.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: `sk` is the context's non-null socket, the map a socket storage of `Source`; without the create flag the
    // helper only looks up.
    unsafe { bpf_sk_storage_get(&raw const SOURCE_OF as *mut _, sk.cast(), core::ptr::null_mut(), 0) }.cast()
}

#[inline(always)]
fn target_of(sk: *mut bpf_sock) -> *mut Target {
    if sk.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: as above, of `Target`.
    unsafe { bpf_sk_storage_get(&raw const TARGET_OF as *mut _, sk.cast(), core::ptr::null_mut(), 0) }.cast()
}

const _: () = assert!(WAITING == 0, "a slot of zeroes waits");
