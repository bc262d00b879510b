//! From what single attempts found to what is believed.

use super::Status;

/// How many times in a row there may be no answer in time before that means something: on a busy machine nobody is fast, and
/// moving connections to another path would only make it busier. A wrong answer counts at once.
const SLOW_MAX: u32 = 3;

/// One status out of many attempts.
#[derive(Debug)]
pub(super) struct Steady {
    status: Status,
    slow: u32,
}

impl Steady {
    /// Nothing is known.
    pub(super) const fn new() -> Self {
        Self { status: Status::Unknown, slow: 0 }
    }

    /// What is believed after another attempt.
    pub(super) fn take(&mut self, found: Status) -> Status {
        if let Status::Slow(why) = found {
            self.slow += 1;
            if self.slow >= SLOW_MAX {
                self.status = Status::Dead(format!("{why} ({} times in a row)", self.slow));
            }
        } else {
            *self = Self { status: found, slow: 0 };
        }
        self.status.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_when_it_lasts_and_a_wrong_answer_at_once() {
        let (slow, wrong) = (|| Status::of("slow: late"), || Status::of("refused"));
        let dead = |why: &str| Status::Dead(why.to_owned());
        let mut steady = Steady::new();
        for (found, status) in [
            (slow(), Status::Unknown),
            (Status::of("ok"), Status::Live),
            (slow(), Status::Live),
            (slow(), Status::Live),
            (Status::of("ok"), Status::Live),
            (wrong(), dead("refused")),
            (slow(), dead("refused")),
            (Status::of("ok"), Status::Live),
            (slow(), Status::Live),
            (slow(), Status::Live),
            (slow(), dead("late (3 times in a row)")),
            (slow(), dead("late (4 times in a row)")),
            (Status::of("ok"), Status::Live),
        ] {
            assert_eq!(steady.take(found), status);
        }
    }
}
