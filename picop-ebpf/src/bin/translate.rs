//! What a socket load-balancer does to a connect: the destination it knows is replaced by a backend before anybody else sees it.
//! The tests attach it beside picop's programs, ahead of them. An object of its own; no agent loads it.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "of what aya's macros write; the programs have theirs")]
#![expect(clippy::needless_pass_by_value, reason = "the signature aya's macros ask for")]

#[path = "../object.rs"]
mod object;

use aya_ebpf::{
    macros::{cgroup_sock_addr, map},
    maps::{Array, HashMap},
    programs::SockAddrContext,
};

/// Address and port, as the context has them: both in network byte order, in a word each.
#[map]
static BACKENDS: HashMap<[u32; 2], [u32; 2]> = HashMap::with_max_entries(64, 0);
/// Connects that were translated.
#[map]
static TRANSLATED: Array<u64> = Array::with_max_entries(1, 0);

/// Translates, and lets the connect go on.
#[cgroup_sock_addr(connect4)]
pub fn translate4(ctx: SockAddrContext) -> i32 {
    let to = ctx.sock_addr;
    // SAFETY: the hook's own context; volatile, as the verifier takes its words only one at a time.
    let asked = unsafe {
        [(&raw const (*to).user_ip4).read_volatile(), (&raw const (*to).user_port).read_volatile()]
    };
    // SAFETY: the value is copied at once; the test writes it before it connects.
    if let Some(&[ip, port]) = unsafe { BACKENDS.get(asked) } {
        // SAFETY: as above; both fields are writable in this hook.
        unsafe {
            (&raw mut (*to).user_ip4).write_volatile(ip);
            (&raw mut (*to).user_port).write_volatile(port);
        }
        if let Some(count) = TRANSLATED.get_ptr_mut(0) {
            // SAFETY: a map value lives as long as the map. One client counts, one connection after the other.
            unsafe { *count += 1 };
        }
    }
    1
}
