//! What other threads ask of a loop.

use std::{
    future::Future,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::write,
};

use super::tasks::Key;

/// A task's future. It stays on the thread it begins on.
pub type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

pub(super) enum Message {
    Spawn(Box<dyn FnOnce() -> LocalFuture + Send>),
    Wake(Key),
    WakeAll,
    Stop,
}

/// Messages, and the descriptor by which a waiting loop learns of them.
#[derive(Debug)]
pub struct Mailbox {
    messages: Mutex<Vec<Message>>,
    /// Whether the loop was told since it last looked.
    told: AtomicBool,
    event: OwnedFd,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spawn(_) => "Spawn",
            Self::Wake(_) => "Wake",
            Self::WakeAll => "WakeAll",
            Self::Stop => "Stop",
        })
    }
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { messages: Mutex::default(), told: AtomicBool::new(false), event })
    }

    /// Begins a task. Its future is made on the loop's thread; if the loop has ended, never.
    pub fn spawn(&self, begin: impl FnOnce() -> LocalFuture + Send + 'static) {
        self.send(Message::Spawn(Box::new(begin)));
    }

    /// Has every task look again at what it waits for.
    pub fn wake_all(&self) {
        self.send(Message::WakeAll);
    }

    /// Ends the loop.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }

    pub(super) fn send(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        if !self.told.swap(true, Ordering::AcqRel) {
            // Fails only at 2^64 - 1 tellings that nobody has read, and the loop is told then.
            let _ = write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Takes what has come.
    pub(super) fn take(&self) -> Vec<Message> {
        // Before looking: what is sent after this is told of again.
        self.told.store(false, Ordering::Release);
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
