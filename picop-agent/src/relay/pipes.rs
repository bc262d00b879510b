//! Pipes, borrowed while a lot is to be carried: `splice(2)` hands pages from one socket to the other, and copies nothing.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::{
    io::retry_on_intr,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// What a pipe is to hold: as much as an ordinary process may ask for.
pub const SIZE: usize = 1024 * 1024;
/// How many are kept for later; more are closed.
const KEPT: usize = 32;

static POOL: Mutex<Vec<Ends>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A borrowed pipe, and how many bytes are in it. Returns when dropped, unless there are some left.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    len: usize,
}

impl Pipe {
    /// Borrows an empty one.
    pub fn take() -> io::Result<Self> {
        let kept = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let ends = match kept {
            Some(ends) => ends,
            None => Ends::new()?,
        };
        Ok(Self { ends: Some(ends), len: 0 })
    }

    /// How much is in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Moves in what a socket has received. To be called when it is empty: a full pipe and an empty socket answer alike.
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let filled = retry_on_intr(|| splice(&from, None, &self.ends().write, None, SIZE, FLAGS))?;
        self.len += filled;
        Ok(filled)
    }

    /// Moves out what a socket takes.
    pub fn empty(&mut self, to: impl AsFd) -> io::Result<usize> {
        let moved = retry_on_intr(|| splice(&self.ends().read, None, &to, None, self.len, FLAGS))?;
        self.len -= moved;
        Ok(moved)
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("there until it is dropped")
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Ends {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // One of the usual 64 kB does too, in more steps.
        if let Err(error) = fcntl_setpipe_size(&write, SIZE) {
            tracing::debug!(%error, "a pipe stays small");
        }
        Ok(Self { read, write })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if self.len == 0 && pool.len() < KEPT {
            pool.extend(self.ends.take());
        }
    }
}
