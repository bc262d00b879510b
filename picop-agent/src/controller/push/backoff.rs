//! Longer and longer pauses.
use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);

/// Pauses that double, each with chance in it: many controllers lose the same proxy at the same time.
#[derive(Debug)]
pub struct Backoff {
    pause: Duration,
    most: Duration,
}

impl Backoff {
    /// From a tenth of a second on, up to `most`.
    pub fn up_to(most: Duration) -> Self {
        Self { pause: FIRST.min(most), most }
    }

    /// Between half of the pause and all of it.
    #[expect(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.most);
        let chance = u32::try_from(RandomState::new().hash_one(0) % 1001).unwrap_or_default();
        pause / 2 + pause / 2000 * chance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most() {
        let mut backoff = Backoff::up_to(Duration::from_secs(1));
        for pause in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            let next = backoff.next();
            assert!(pause / 2 <= next && next <= pause, "{next:?} for {pause:?}");
        }
        assert!(Backoff::up_to(Duration::from_millis(10)).next() <= Duration::from_millis(10));
    }
}
