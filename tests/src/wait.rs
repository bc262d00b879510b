//! Waiting for something to become true, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Whether this machine is an emulated one, where all takes ten to thirty times as long (`PICOP_EMULATED=1`).
pub fn emulated() -> bool {
    std::env::var_os("PICOP_EMULATED").is_some_and(|value| value == "1")
}

/// How long to wait for what should be there in `real` time on a real machine.
pub fn patience(real: Duration) -> Duration {
    if emulated() { real * 6 } else { real }
}

/// Polls `condition` until it holds or `deadline` (from now) has passed; says whether it held.
pub fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Polls `probe` until it yields a value.
///
/// # Errors
/// Names `what` when `deadline` (from now) passes first.
pub fn wait_until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let mut found = None;
    if eventually(deadline, || {
        found = probe();
        found.is_some()
    }) && let Some(value) = found
    {
        return Ok(value);
    }
    bail!("{what}: not within {deadline:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_at_the_deadline_and_not_before() {
        let start = Instant::now();
        assert!(!eventually(Duration::from_millis(30), || false));
        assert!(start.elapsed() >= Duration::from_millis(30));
        let mut left = 3;
        let value = wait_until("three tries", Duration::from_secs(5), || {
            left -= 1;
            (left == 0).then_some(7)
        });
        assert_eq!(value.ok(), Some(7));
    }
}
