//! TCP Fast Open seen before it happens. `connect` runs before the SYN is made, and the socket says already whether the
//! SYN may carry data, but only in its own words.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::generated::bpf_skc_to_tcp_sock, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use picop_common::fastopen::FastOpenLayout;

/// Written by the agent before it loads the programs, and frozen: constants to the verifier, which wants constant offsets.
/// Its name is known to the agent.
#[unsafe(no_mangle)]
static FAST_OPEN: FastOpenLayout = FastOpenLayout::UNKNOWN;

/// Whether a connect is part of a send (`MSG_FASTOPEN`), or may wait for one (`TCP_FASTOPEN_CONNECT`; whether it will is
/// decided after this hook, by whether there is a cookie). False where the kernel's layout is not known.
#[inline(always)]
pub fn is_fast_open(ctx: *const bpf_sock_addr) -> bool {
    let layout = &raw const FAST_OPEN;
    // SAFETY: aligned words of a static. Volatile, as its value is not the one it is compiled with.
    let (request, connect, mask) = unsafe {
        (
            (&raw const (*layout).request).read_volatile(),
            (&raw const (*layout).connect).read_volatile(),
            (&raw const (*layout).connect_mask).read_volatile(),
        )
    };
    if request == 0 {
        return false;
    }
    // SAFETY: the hook's own context. The helper wants a socket that is not null, which it never is in connect hooks.
    let tcp = unsafe { bpf_skc_to_tcp_sock((*ctx).__bindgen_anon_1.sk.cast()) }.cast::<c_void>();
    if tcp.is_null() {
        return false;
    }
    // SAFETY: inside the kernel's tcp_sock, which the verifier checks by the same BTF the offsets come from; the socket is
    // locked by the connect.
    unsafe {
        tcp.byte_add(request as usize).cast::<u64>().read_volatile() != 0
            || u32::from(tcp.byte_add(connect as usize).cast::<u8>().read_volatile()) & mask != 0
    }
}

/// Never attached: the agent loads it to see whether this kernel lets the others look there.
#[cgroup_sock_addr(connect4)]
pub fn probe_fast_open(ctx: SockAddrContext) -> i32 {
    i32::from(is_fast_open(ctx.sock_addr))
}
