//! Descriptors that a runtime waits for.

use std::{io, ops::Deref, os::fd::OwnedFd, sync::Arc};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor, registered with the runtime it was made on. Only shared access: what is registered stays what it is.
#[derive(Debug)]
pub struct Watch(AsyncFd<Arc<OwnedFd>>);

impl Watch {
    /// Registers it. A descriptor can be registered once at a time.
    pub fn new(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open, and the same one, as long as it lives; the `Arc` in there keeps it alive, and nobody
        // gets at that mutably.
        let watch = unsafe { AsyncFd::register_with_interest(fd, interest) };
        Ok(Self(watch?))
    }
}

impl Deref for Watch {
    type Target = AsyncFd<Arc<OwnedFd>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
