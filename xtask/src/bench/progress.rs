//! How far a suite is.

use std::time::{Duration, Instant};

/// So often a line, at most.
const TICK: Duration = Duration::from_secs(10);

/// Counts turns.
#[derive(Debug)]
pub struct Progress {
    total: usize,
    done: usize,
    /// The end of the first turn: what comes before is preparation.
    began: Option<Instant>,
    said: Instant,
}

impl Progress {
    /// Of so many.
    pub fn new(total: usize) -> Self {
        Self { total, done: 0, began: None, said: Instant::now() }
    }

    /// One more is done.
    pub fn step(&mut self) {
        self.done += 1;
        let began = *self.began.get_or_insert_with(Instant::now);
        if self.said.elapsed() >= TICK {
            self.said = Instant::now();
            eprintln!("    {}", line(self.done, self.total, began.elapsed()));
        }
    }
}

fn line(done: usize, total: usize, elapsed: Duration) -> String {
    let share = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let left = elapsed / share(done - 1).max(1) * share(total.saturating_sub(done));
    format!("{done} of {total} turns in {}, about {} left", short(elapsed), short(left))
}

fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {:02} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was() {
        assert_eq!(line(11, 41, Duration::from_secs(30)), "11 of 41 turns in 30 s, about 1 min 30 s left");
        assert_eq!(line(40, 40, Duration::from_secs(61)), "40 of 40 turns in 1 min 01 s, about 0 s left");
    }
}
