//! `sk_msg` for `picop doctor`: what this kernel does to a message when asked, on sockets the doctor made itself.
//!
//! The first byte of a message says what to try; the doctor reads the result at the other end of the connection.

use aya_ebpf::{
    bindings::sk_action,
    helpers::generated::{bpf_msg_pop_data, bpf_msg_pull_data, bpf_msg_push_data},
    macros::sk_msg,
    programs::SkMsgContext,
};
use picop_common::probe::{MARK, PUSH, PUSH_POP, REDIRECT, TARGET};

use crate::maps::PROBED;

/// Does what the message's first byte asks for.
#[sk_msg]
pub fn probe(ctx: SkMsgContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + 1 > end {
        return sk_action::SK_PASS;
    }
    // SAFETY: inside the message's bounds, just checked.
    let ask = unsafe { *(data as *const u8) };
    if ask == REDIRECT {
        // As `graft` does it: the verdict is to pass, whatever becomes of it.
        PROBED.redirect_msg(&ctx, TARGET, 0);
        return sk_action::SK_PASS;
    }
    if ask != PUSH && ask != PUSH_POP {
        return sk_action::SK_PASS;
    }
    let len = MARK.len() as u32;
    // SAFETY: the helper takes this hook's context; all pointers into the message are void afterwards.
    if unsafe { bpf_msg_push_data(ctx.msg, 0, len, 0) } != 0 {
        return sk_action::SK_PASS;
    }
    if ask == PUSH_POP {
        // SAFETY: as above.
        unsafe { bpf_msg_pop_data(ctx.msg, 0, len, 0) };
        return sk_action::SK_PASS;
    }
    // SAFETY: as above.
    if unsafe { bpf_msg_pull_data(ctx.msg, 0, len, 0) } == 0 {
        let (data, end) = (ctx.data(), ctx.data_end());
        if data + MARK.len() <= end {
            // SAFETY: inside the message's bounds, just checked again after push and pull.
            unsafe { core::ptr::copy_nonoverlapping(MARK.as_ptr(), data as *mut u8, MARK.len()) };
        }
    }
    sk_action::SK_PASS
}
