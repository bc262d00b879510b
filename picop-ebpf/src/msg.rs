//! `sk_msg`: writes the header in front of the first bytes a socket sends.
//!
//! A transaction. Nothing is sent until this program passes the message; before that, anything that fails drops the whole
//! message: the application's send answers EACCES, and the stream is untouched. (So do its later sends, all of them:
//! `tcp_bpf_send_verdict` keeps the verdict until one succeeds.) Never half a header, never payload without it.
//!
//! What is passed here TCP may still refuse for lack of memory, and then forgets: the header would be gone, or half of it
//! sent. It cannot come to that where the first bytes of a socket are concerned. Before this program runs, TCP has seen that
//! there is room in the send buffer, and taken the memory for the payload. Behind it, with nothing queued, it takes the
//! first segment's memory by force, and up to `tcp_wmem[0]` (4,096) bytes for its content (`tcp_stream_alloc_skb`,
//! `tcp_wmem_schedule`; 6.0). The header is the first of these bytes. What is refused behind it, the application sends
//! again.

use aya_ebpf::{
    bindings::sk_action,
    helpers::generated::{bpf_msg_pull_data, bpf_msg_push_data},
    macros::sk_msg,
    programs::SkMsgContext,
};
use aya_log_ebpf::warn;
use picop_common::{
    connect::Event,
    header::MAX_LEN,
    maps::{FLOW_DIRECT, FLOW_INJECT, FLOW_INJECTED, FLOW_LINGERS, HEADER_WORDS, HeaderBytes},
    route::header_len,
};

use crate::{
    flows,
    maps::{HEADERS, happened},
};

/// Up to which size of a message its first piece is worth a copy. Beyond, a full segment is ready to go anyway.
const MERGED_MAX: u32 = 16 * 1024;

/// Every message of an enrolled socket.
#[sk_msg]
pub fn msg(ctx: SkMsgContext) -> u32 {
    let flow = flows::of_message(&ctx);
    if flow.is_null() {
        return sk_action::SK_PASS;
    }
    // SAFETY: not null, and the socket is locked by the send this runs in.
    let (state, key) = unsafe { ((*flow).state, (*flow).header) };
    if state == FLOW_DIRECT && key != 0 {
        // The socket has left the map, and this write has not returned since: the kernel gives it its messages to the end.
        // Counted once.
        happened(Event::Lingered);
        // SAFETY: as above.
        unsafe { (*flow).state = FLOW_LINGERS };
    }
    if state != FLOW_INJECT {
        return sk_action::SK_PASS;
    }
    // SAFETY: the agent never changes an entry, and removes none that a connection may still want.
    let header = unsafe { HEADERS.get(key) };
    if header.is_none_or(|header| !inject(&ctx, header, header_len(key) as usize)) {
        happened(Event::InjectFailed);
        warn!(&ctx, "a header cannot be written; the send fails");
        return sk_action::SK_DROP;
    }
    // Last: from here on the header is in the message.
    // SAFETY: as above.
    unsafe { (*flow).state = FLOW_INJECTED };
    happened(Event::Injected);
    sk_action::SK_PASS
}

/// Whether the whole header is in front of the message.
#[inline(always)]
fn inject(ctx: &SkMsgContext, header: &HeaderBytes, len: usize) -> bool {
    if len == 0 || len > MAX_LEN {
        return false;
    }
    let small = ctx.size() <= MERGED_MAX;
    // SAFETY: the helper takes this hook's context; every pointer into the message is void afterwards.
    if unsafe { bpf_msg_push_data(ctx.msg, 0, len as u32, 0) } != 0 {
        return false;
    }
    // Pulling makes bytes one piece that can be written to. One byte more than the header takes the first piece of the
    // payload in, and both go out in one segment; in two, Nagle's algorithm holds the payload back until the header is
    // acknowledged.
    // SAFETY: as above. A pull that fails leaves the message as it was.
    let merged = small && unsafe { bpf_msg_pull_data(ctx.msg, 0, len as u32 + 1, 0) } == 0;
    // SAFETY: as above.
    if !merged && unsafe { bpf_msg_pull_data(ctx.msg, 0, len as u32, 0) } != 0 {
        return false;
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    let (whole, mut word) = (len / WORD, 0);
    while word < whole && word < HEADER_WORDS {
        let at = data + word * WORD;
        // The verifier wants each access checked against the message's end.
        if at + WORD > end {
            return false;
        }
        // SAFETY: inside the message's bounds, just checked, and aligned: pulling made it the start of a page. `word` is inside
        // the map value by the loop's bound.
        unsafe { *(at as *mut u64) = header.words[word] };
        word += 1;
    }
    // What follows is payload: not a byte more than the header.
    let (rest, start) = (len % WORD, data + whole * WORD);
    let Some(mut bytes) = header.words.get(whole).copied() else { return rest == 0 };
    let mut i = 0;
    // Two bounds, upwards: 6.1 sees no end of one that counts `rest` down to zero ("the sequence of 8193 jumps is too complex").
    while i < WORD - 1 && i < rest {
        let at = start + i;
        // As a sum: of a range of addresses LLVM makes `at >= end`, which tells the verifier nothing ("invalid access to packet,
        // off=0 size=1 ... R3 offset is outside of the packet").
        if at + 1 > end {
            return false;
        }
        // SAFETY: as above.
        unsafe { *(at as *mut u8) = bytes as u8 };
        bytes >>= 8;
        i += 1;
    }
    true
}

const WORD: usize = size_of::<u64>();
const _: () = assert!(cfg!(target_endian = "little"), "a word's first byte in memory is its lowest");
