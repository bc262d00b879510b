//! What `core` lacks for this target: it has no exchange, and LLVM no atomic loads before `-mcpu=v4`.

use core::arch::asm;

/// Puts `new` in the place of `old`, if that is what is there; tells whether it was. A full barrier. (`BPF_CMPXCHG`, Linux
/// 5.12.)
///
/// # Safety
/// The word is valid, aligned, and written to by atomics only.
#[inline(always)]
pub unsafe fn replace(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's promise. The comparand goes in by r0, and what was found comes out of it.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => found,
            options(nostack),
        );
    }
    found == old
}
