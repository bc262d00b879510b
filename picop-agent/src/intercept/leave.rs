//! The end of interception, for connections that were routed with a header and have not sent yet.
//!
//! The hooks go in two steps: those of `connect` first, so that nobody comes after; then, when nobody is enrolled in `SOCKS`
//! any more, the rest, which writes the headers and takes the sockets out again. Who is silent for longer than the grace
//! loses its header: it is counted, and said.

use std::{
    thread,
    time::{Duration, Instant},
};

/// For handshakes that were under way when the connect hooks went: their sockets are enrolled only at the end of it. One
/// over a network takes a round trip.
const SETTLE: Duration = Duration::from_millis(100);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// Whether there is nothing more to wait for, so long after the connect hooks went.
fn is_over(waited: Duration, enrolled: usize, grace: Duration) -> bool {
    waited >= grace || (enrolled == 0 && waited >= SETTLE)
}

/// Waits until nobody is enrolled, for `grace` at most, and returns how many then are.
pub fn wait(grace: Duration, enrolled: impl Fn() -> usize) -> usize {
    let start = Instant::now();
    loop {
        // Looked at after the clock: who is counted had all of the grace.
        let waited = start.elapsed();
        let left = enrolled();
        if is_over(waited, left, grace) {
            return left;
        }
        thread::sleep(LOOK.min(grace.saturating_sub(waited)));
    }
}

/// The same on a runtime. Dropping it ends the wait.
pub async fn waited(grace: Duration, enrolled: impl Fn() -> usize) -> usize {
    let start = Instant::now();
    loop {
        let waited = start.elapsed();
        let left = enrolled();
        if is_over(waited, left, grace) {
            return left;
        }
        tokio::time::sleep(LOOK.min(grace.saturating_sub(waited))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_waited_for() {
        let ms = Duration::from_millis;
        for (waited, enrolled, grace, over) in [
            (0, 0, 2000, false), // A handshake may be under way.
            (99, 0, 2000, false),
            (100, 0, 2000, true),
            (100, 1, 2000, false),
            (1999, 1, 2000, false),
            (2000, 1, 2000, true),
            (0, 7, 0, true),
            (50, 0, 50, true),
        ] {
            assert_eq!(is_over(ms(waited), enrolled, ms(grace)), over, "{waited} ms, {enrolled}, {grace} ms");
        }
    }

    #[test]
    fn who_leaves_in_time_is_not_counted() {
        let left = Cell::new(3);
        let count = || left.replace(left.get() - 1);
        // Longer than any machine takes for four looks.
        assert_eq!(wait(Duration::from_mins(1), || if left.get() == 0 { 0 } else { count() }), 0);
        assert_eq!(wait(Duration::ZERO, || 5), 5);
    }

    #[tokio::test]
    async fn the_same_on_a_runtime() {
        assert_eq!(waited(Duration::from_mins(1), || 0).await, 0);
        assert_eq!(waited(Duration::from_millis(1), || 2).await, 2);
    }
}
