//! A gate that closes when the process is to end: nothing is made behind the back of whoever cleans up.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Result, ensure};

static CLOSED: RwLock<bool> = RwLock::new(false);

/// Held while something that cleaning up must know of is being made. Not to be held twice by one thread.
pub(crate) fn enter() -> Result<RwLockReadGuard<'static, bool>> {
    let closed = CLOSED.read().unwrap_or_else(PoisonError::into_inner);
    ensure!(!*closed, "the testbed is being removed");
    Ok(closed)
}

/// Lets what is being made be finished, and nothing be made from here on.
pub(crate) fn close() {
    *CLOSED.write().unwrap_or_else(PoisonError::into_inner) = true;
}
