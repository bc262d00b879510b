//! Counting connections, and refusing those that are too many.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Connections that are open.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU32);

/// A counted connection; uncounted when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Gauge>);

impl Gauge {
    /// Counts one more, unless there are `max` already.
    pub fn admit(self: &Arc<Self>, max: u32) -> Option<Permit> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1))
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_as_many_as_fit() {
        let gauge = Arc::new(Gauge::default());
        let held: Vec<_> = (0..3).map_while(|_| gauge.admit(2)).collect();
        assert_eq!(held.len(), 2);
        assert!(gauge.admit(2).is_none());
        drop(held);
        assert!(gauge.admit(1).is_some());
    }
}
