//! How many requests there may be at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// So many. Nobody waits for one, so this is a number and no more.
#[derive(Debug)]
pub struct Places {
    free: AtomicUsize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// All free.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(count) })
    }

    /// One, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// How many are free.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_each_can_be_had_again() {
        let places = Places::new(2);
        let taken = (places.take(), places.take());
        assert!(taken.0.is_some() && taken.1.is_some() && places.take().is_none());
        drop(taken.0);
        assert!(places.take().is_some());
        assert!(Places::new(0).take().is_none());
    }
}
