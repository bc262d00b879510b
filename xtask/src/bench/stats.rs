//! Medians, percentiles, and how far a median can be trusted.

/// How often the bootstrap draws anew. The ends of an interval move by a tenth of its width from seed to seed.
const RESAMPLES: usize = 2000;
/// The bootstrap draws the same in each run: the same samples give the same interval.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A median and its 95% confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The interval's lower end.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl Estimate {
    /// The median of `samples`, with its percentile-bootstrap interval. `None` for no samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut random = Random::new(SEED);
        let mut drawn = Vec::with_capacity(samples.len());
        let mut medians = Vec::with_capacity(RESAMPLES);
        for _ in 0..RESAMPLES {
            drawn.clear();
            drawn.extend((0..samples.len()).map(|_| samples[random.below(samples.len())]));
            medians.push(median(&mut drawn)?);
        }
        Some(Self {
            low: percentile(&mut medians, 2.5)?,
            median: median(&mut samples.to_vec())?,
            high: percentile(&mut medians, 97.5)?,
        })
    }
}

/// The median; of an even number of samples the mean of the middle two. Reorders.
pub fn median(samples: &mut [f64]) -> Option<f64> {
    percentile(samples, 50.0)
}

/// A percentile, interpolated between the nearest samples. Reorders.
pub fn percentile(samples: &mut [f64], percent: f64) -> Option<f64> {
    let last = samples.len().checked_sub(1)?;
    let place = percent / 100.0 * f64::from(u32::try_from(last).ok()?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within the samples")]
    let below = place.floor() as usize;
    let (_, &mut low, larger) = samples.select_nth_unstable_by(below, f64::total_cmp);
    let high = larger.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Some(low + (high - low) * place.fract())
}

/// Random numbers from a seed: splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number below `bound`. (Not quite evenly: by 2^-64 times the bound.)
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let scaled = (u128::from(z) * bound as u128) >> 64;
        usize::try_from(scaled).expect("below a usize")
    }

    /// Puts items in any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests;
