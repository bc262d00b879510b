//! A listener that tokio watches, and that its owner accepts from.

use std::{io, net::TcpListener};

use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyGuard},
};

/// It belongs to the runtime that it was made in.
#[derive(Debug)]
pub struct Watched(AsyncFd<TcpListener>);

impl Watched {
    /// Of a socket that does not block.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        // SAFETY: a TcpListener has one descriptor, open for as long as it lives, and always the same. It stays in here until it is
        // dropped: nobody is given more than a shared reference, by which it cannot be exchanged for another.
        let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        Ok(Self(watched?))
    }

    /// Waits until somebody may be there to be accepted. Whoever finds nobody says so to what is returned.
    pub async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, TcpListener>> {
        self.0.readable().await
    }

    /// The listener.
    pub fn listener(&self) -> &TcpListener {
        self.0.get_ref()
    }
}
