//! Memory by mimalloc: the C library's own allocator costs a request of `gateway http` twice as much.
//!
//! Not by the crate `mimalloc`, which asks for an alignment each time. mimalloc takes that for something unusual: of all but small
//! blocks it then takes a larger one, and what is in the middle of it.

use std::{
    alloc::{GlobalAlloc, Layout},
    ffi::c_void,
};

use libmimalloc_sys as mi;

/// For `#[global_allocator]`.
#[derive(Debug)]
pub struct Allocator;

/// How blocks of at least this size are aligned that are asked for without an alignment (`MI_MAX_ALIGN_SIZE`).
const ALIGNED: usize = 16;

const fn is_usual(layout: Layout, size: usize) -> bool {
    layout.align() <= ALIGNED && layout.align() <= size
}

// SAFETY: mimalloc's blocks are distinct, valid until they are freed, of at least the size and of the alignment that is asked for; it
// answers with null if there is no memory, and never unwinds. A block of any of these functions may go to `mi_free`, and to
// `mi_realloc` and `mi_realloc_aligned`, which keep what is in it.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        // SAFETY: any size is taken; the alignment is a power of two, as `Layout` has it.
        let block = unsafe {
            if is_usual(layout, size) {
                mi::mi_malloc(size)
            } else {
                mi::mi_malloc_aligned(size, layout.align())
            }
        };
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        // SAFETY: as above.
        let block = unsafe {
            if is_usual(layout, size) {
                mi::mi_zalloc(size)
            } else {
                mi::mi_zalloc_aligned(size, layout.align())
            }
        };
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller has it from here, and has not freed it yet.
        unsafe { mi::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let old = block.cast::<c_void>();
        // SAFETY: as above; if there is no memory, the old block stays as it was.
        let block = unsafe {
            if is_usual(layout, size) {
                mi::mi_realloc(old, size)
            } else {
                mi::mi_realloc_aligned(old, size, layout.align())
            }
        };
        block.cast()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZES: [usize; 9] = [1, 8, 15, 16, 24, 129, 1025, 8192, 3 << 20];

    proptest! {
        /// Blocks are aligned as asked for, distinct, as large as asked for, and keep what is in them.
        #[test]
        fn blocks_are_as_layouts_say(
            asked in prop::collection::vec((0..SIZES.len(), 0..13_u32, any::<bool>(), 0..SIZES.len()), 1..40),
        ) {
            let mut held = Vec::new();
            for (number, (size, align, is_zeroed, next)) in asked.into_iter().enumerate() {
                let layout = Layout::from_size_align(SIZES[size], 1 << align).expect("a layout");
                let mark = u8::try_from(number + 1).expect("few");
                // SAFETY: the layout is not empty; each block is written to in its own size only, and freed once, with its layout.
                unsafe {
                    let block = if is_zeroed { Allocator.alloc_zeroed(layout) } else { Allocator.alloc(layout) };
                    prop_assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
                    if is_zeroed {
                        prop_assert!(std::slice::from_raw_parts(block, layout.size()).iter().all(|byte| *byte == 0));
                    }
                    block.write_bytes(mark, layout.size());
                    let grown = Layout::from_size_align(SIZES[next], layout.align()).expect("a layout");
                    let block = Allocator.realloc(block, layout, grown.size());
                    prop_assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
                    let kept = layout.size().min(grown.size());
                    prop_assert!(std::slice::from_raw_parts(block, kept).iter().all(|byte| *byte == mark));
                    block.write_bytes(mark, grown.size());
                    held.push((block, grown, mark));
                }
            }
            for (block, layout, mark) in held {
                // SAFETY: as above.
                unsafe {
                    let all = std::slice::from_raw_parts(block, layout.size());
                    prop_assert!(all.iter().all(|byte| *byte == mark));
                    Allocator.dealloc(block, layout);
                }
            }
        }
    }
}
