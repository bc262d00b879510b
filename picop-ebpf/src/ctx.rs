//! What aya does not wrap: context fields read and written one aligned word at a time, and socket storage by `bpf_sock`.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{bpf_sock, bpf_sock_addr, bpf_sock_ops},
    helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get},
    programs::SockOpsContext,
};
use picop_common::{
    addr::{Endpoint, Ip, PortBe},
    maps::Flow,
};

use crate::maps::FLOWS;

/// The socket's flow, or null. For the contexts aya's `SkStorage` does not take (`sock_ops`, `sk_msg`).
#[inline(always)]
pub fn flow_of(sk: *mut bpf_sock) -> *mut Flow {
    if sk.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: `sk` is the context's non-null socket, the map is a socket storage of `Flow`; without the create flag the
    // helper only looks up.
    unsafe { bpf_sk_storage_get(&raw const FLOWS as *mut _, sk.cast(), core::ptr::null_mut(), 0) }.cast()
}

/// The destination in a `connect4` or `getpeername4` context.
#[inline(always)]
pub fn user_v4(ctx: *const bpf_sock_addr) -> Endpoint {
    // SAFETY: `ctx` is the hook's own context; the verifier checks each access. Volatile, as the verifier takes context
    // words only at their own offsets and sizes and LLVM would merge them.
    unsafe {
        Endpoint::new(
            Ip::from_v4_be((&raw const (*ctx).user_ip4).read_volatile()),
            PortBe::from_user_port((&raw const (*ctx).user_port).read_volatile()),
        )
    }
}

/// The destination in a `connect6` or `getpeername6` context; v4-mapped ones come out as IPv4.
#[inline(always)]
pub fn user_v6(ctx: *const bpf_sock_addr) -> Endpoint {
    // SAFETY: as in `user_v4`.
    unsafe {
        let words = &raw const (*ctx).user_ip6;
        let word = |i: usize| words.cast::<u32>().add(i).read_volatile();
        Endpoint::new(
            Ip::from_v6_be([word(0), word(1), word(2), word(3)]),
            PortBe::from_user_port((&raw const (*ctx).user_port).read_volatile()),
        )
    }
}

/// Puts an IPv4 endpoint into a `connect4` or `getpeername4` context.
#[inline(always)]
pub fn set_user_v4(ctx: *mut bpf_sock_addr, to: &Endpoint) {
    // SAFETY: as in `user_v4`; both fields are writable in these hooks.
    unsafe {
        (&raw mut (*ctx).user_ip4).write_volatile(to.ip.v4_be());
        (&raw mut (*ctx).user_port).write_volatile(to.port.to_user_port());
    }
}

/// Puts an endpoint into a `connect6` or `getpeername6` context; IPv4 ones v4-mapped.
#[inline(always)]
pub fn set_user_v6(ctx: *mut bpf_sock_addr, to: &Endpoint) {
    let [a, b, c, d] = to.ip.words_be();
    // SAFETY: as in `set_user_v4`.
    unsafe {
        let words = (&raw mut (*ctx).user_ip6).cast::<u32>();
        words.write_volatile(a);
        words.add(1).write_volatile(b);
        words.add(2).write_volatile(c);
        words.add(3).write_volatile(d);
        (&raw mut (*ctx).user_port).write_volatile(to.port.to_user_port());
    }
}

/// A TCP socket's own address and port.
///
/// Both families' words are read before the family is looked at: from reads in two branches LLVM makes one through a
/// chosen pointer, volatile or not, and the verifier refuses it: "dereference of modified ctx ptr R2 off=60 disallowed".
#[inline(always)]
pub fn local(ctx: *const bpf_sock_ops) -> Endpoint {
    const AF_INET: u32 = 2;
    // SAFETY: `ctx` is the hook's own context; the verifier checks each access.
    let (family, v4, v6, port) = unsafe {
        let words = (&raw const (*ctx).local_ip6).cast::<u32>();
        let word = |i: usize| words.add(i).read_volatile();
        (
            (&raw const (*ctx).family).read_volatile(),
            (&raw const (*ctx).local_ip4).read_volatile(),
            [word(0), word(1), word(2), word(3)],
            (&raw const (*ctx).local_port).read_volatile(),
        )
    };
    // A dual-stack socket connected to 127.0.0.1 has ::ffff:127.0.0.1 as its v6 address: the same key.
    let ip = if family == AF_INET { Ip::from_v4_be(v4) } else { Ip::from_v6_be(v6) };
    // Unlike remote_port, local_port is in host order.
    Endpoint::new(ip, PortBe::from_host(port as u16))
}

/// A TCP socket's peer. As in [`local`].
#[inline(always)]
pub fn remote(ctx: *const bpf_sock_ops) -> Endpoint {
    const AF_INET: u32 = 2;
    // SAFETY: `ctx` is the hook's own context; the verifier checks each access.
    let (family, v4, v6, port) = unsafe {
        let words = (&raw const (*ctx).remote_ip6).cast::<u32>();
        let word = |i: usize| words.add(i).read_volatile();
        (
            (&raw const (*ctx).family).read_volatile(),
            (&raw const (*ctx).remote_ip4).read_volatile(),
            [word(0), word(1), word(2), word(3)],
            (&raw const (*ctx).remote_port).read_volatile(),
        )
    };
    let ip = if family == AF_INET { Ip::from_v4_be(v4) } else { Ip::from_v6_be(v6) };
    // A network-order word.
    Endpoint::new(ip, PortBe::from_host(u32::from_be(port) as u16))
}

/// A TCP socket's own port, in host order.
#[inline(always)]
pub fn local_port(ctx: *const bpf_sock_ops) -> u16 {
    // SAFETY: `ctx` is the hook's own context.
    unsafe { (&raw const (*ctx).local_port).read_volatile() as u16 }
}

/// The network namespace of the socket.
#[inline(always)]
pub fn netns_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes this hook's context (kernel 5.15).
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// The socket of a `sock_ops` context; null unless it is a full one.
///
/// # Safety
/// `ctx` must be the hook's own context.
#[inline(always)]
pub unsafe fn socket(ctx: *const bpf_sock_ops) -> *mut bpf_sock {
    // SAFETY: the caller's promise; the verifier checks the access.
    unsafe { (*ctx).__bindgen_anon_2.sk }
}
