//! Connections to the server, kept for the next request of the same environment.
//!
//! A connection begins with a header, and holds for that environment as long as it lives. So there is a shelf for each
//! environment, and one for none; what is on one shelf is never taken for another. A connection is on its shelf while it is idle,
//! and nowhere while a request has it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use foldhash::HashMap;

use super::upstream::Sender;
use crate::protocol::EnvId;

/// The environment of a connection's header; none without one.
pub type Shelf = Option<EnvId>;

/// What is kept, and for how long.
pub struct Pool {
    /// The most that are kept, in total.
    size: usize,
    /// How long each is.
    idle: Duration,
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    /// The longest idle first. One that is empty has a moment: most are not for long.
    kept: HashMap<Shelf, Vec<Kept>>,
    count: usize,
    is_closed: bool,
}

struct Kept {
    sender: Sender,
    since: Instant,
}

impl Pool {
    /// An empty one.
    pub fn new(size: usize, idle: Duration) -> Self {
        Self { size, idle, shelves: Mutex::default() }
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of this environment that was used last, if one still lives and has not been idle too long `now`. One that
    /// many requests may use at once stays where it is.
    pub fn take(&self, environment: &Shelf, now: Instant) -> Option<Sender> {
        let mut shelves = self.shelves();
        let kept = shelves.kept.get_mut(environment)?;
        let (mut taken, mut found) = (0, None);
        while let Some(mut last) = kept.pop() {
            if now.saturating_duration_since(last.since) > self.idle || !last.sender.is_ready(now) {
                taken += 1;
                continue;
            }
            found = last.sender.share();
            if found.is_some() {
                last.since = now;
                kept.push(last);
            } else {
                taken += 1;
                found = Some(last.sender);
            }
            break;
        }
        shelves.count -= taken;
        found
    }

    /// Keeps a connection that is idle `since` now. If there are too many, the one that has been idle longest goes.
    pub fn keep(&self, environment: Shelf, sender: Sender, since: Instant) {
        let mut shelves = self.shelves();
        if shelves.is_closed || self.size == 0 || !sender.is_ready(since) {
            return;
        }
        if shelves.count >= self.size {
            shelves.remove_oldest();
        }
        shelves.kept.entry(environment).or_default().push(Kept { sender, since });
        shelves.count += 1;
    }

    /// Closes those that have been idle too long, and forgets those that the server has closed.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut shelves = self.shelves();
        shelves.kept.retain(|_, kept| {
            kept.retain(|one| {
                one.sender.is_ready(now) && now.saturating_duration_since(one.since) <= self.idle
            });
            !kept.is_empty()
        });
        shelves.count = shelves.kept.values().map(Vec::len).sum();
    }

    /// Closes all, and keeps none from here on.
    pub fn close(&self) {
        let mut shelves = self.shelves();
        shelves.is_closed = true;
        shelves.count = 0;
        shelves.kept.clear();
    }

    /// How many are kept.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.shelves().count
    }
}

impl Shelves {
    fn remove_oldest(&mut self) {
        let oldest =
            self.kept.iter().filter_map(|(environment, kept)| Some((kept.first()?.since, environment)));
        let Some(environment) =
            oldest.min_by_key(|(since, _)| *since).map(|(_, environment)| environment.clone())
        else {
            return;
        };
        if let Some(kept) = self.kept.get_mut(&environment) {
            kept.remove(0);
            self.count -= 1;
        }
    }
}
