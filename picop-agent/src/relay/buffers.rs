//! Copy buffers, borrowed while there is something to copy. An idle connection holds none.

use std::sync::Mutex;

/// Bytes per buffer: what a loopback or TSO segment train brings at once.
pub const SIZE: usize = 64 * 1024;
/// How many are kept for later; more are freed.
const KEPT: usize = 256;

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A borrowed buffer; returns when dropped.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// Borrows one.
    pub fn take() -> Self {
        let kept = POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        Self(kept.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(std::mem::take(&mut self.0));
        }
    }
}
