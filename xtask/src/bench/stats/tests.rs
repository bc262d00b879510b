use super::*;

#[test]
fn medians_and_percentiles_are_the_textbooks() {
    assert_eq!(median(&mut []), None);
    assert_eq!(median(&mut [7.0]), Some(7.0));
    assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
    assert_eq!(percentile(&mut [1.0, 2.0, 3.0, 4.0, 5.0], 0.0), Some(1.0));
    assert_eq!(percentile(&mut [1.0, 2.0, 3.0, 4.0, 5.0], 100.0), Some(5.0));
    assert_eq!(percentile(&mut [10.0, 20.0, 30.0], 75.0), Some(25.0));
}

#[test]
fn numbers_come_from_the_seed_and_stay_below_their_bound() {
    let draw = |seed| {
        let mut random = Random::new(seed);
        (0..1000).map(|_| random.below(7)).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    for value in 0..7 {
        let seen = draw(1).into_iter().filter(|n| *n == value).count();
        assert!((100..200).contains(&seen), "{value} came {seen} times of 1000");
    }
    let mut items: Vec<u32> = (0..50).collect();
    Random::new(1).shuffle(&mut items);
    assert_ne!(items, (0..50).collect::<Vec<_>>());
    items.sort_unstable();
    assert_eq!(items, (0..50).collect::<Vec<_>>());
}

/// Evenly spread over 1.0 +- `spread`, in no order.
fn around_one(count: u32, spread: f64, seed: u64) -> Vec<f64> {
    let mut samples: Vec<_> =
        (0..count).map(|n| 1.0 - spread + 2.0 * spread * f64::from(n) / f64::from(count - 1)).collect();
    Random::new(seed).shuffle(&mut samples);
    samples
}

#[test]
fn an_interval_holds_the_median_and_narrows_with_more_samples() {
    let few = Estimate::of(&around_one(20, 0.1, 3)).expect("samples");
    let many = Estimate::of(&around_one(2000, 0.1, 3)).expect("samples");
    for estimate in [few, many] {
        assert!((estimate.median - 1.0).abs() < 1e-9, "{estimate:?}");
        assert!(holds(&estimate, estimate.median) && holds(&estimate, 1.0), "{estimate:?}");
    }
    // Of uniform samples the median's deviation is spread / sqrt(n): a tenth for a hundred times as many.
    let ratio = (few.high - few.low) / (many.high - many.low);
    assert!((5.0..20.0).contains(&ratio), "{ratio}");
    let theory = 2.0 * 1.96 * 0.1 / 2000_f64.sqrt();
    assert!((0.7..1.3).contains(&((many.high - many.low) / theory)), "{many:?}");
}

#[test]
fn an_interval_is_the_same_in_each_run_and_one_outlier_does_not_move_it() {
    let mut samples = around_one(60, 0.05, 9);
    let before = Estimate::of(&samples).expect("samples");
    assert_eq!(Estimate::of(&samples), Some(before));
    samples[0] = 100.0;
    let after = Estimate::of(&samples).expect("samples");
    assert!((after.median - before.median).abs() < 0.01 && after.high < 1.1, "{after:?}");
    assert_eq!(Estimate::of(&[]), None);
}

#[test]
fn an_interval_misses_what_it_should_miss_and_covers_what_it_should_cover() {
    let shifted: Vec<_> = around_one(60, 0.05, 5).iter().map(|r| r * 1.05).collect();
    assert!(!holds(&Estimate::of(&shifted).expect("samples"), 1.0));
    // Of 50 experiments of 41 uniform samples, about 47 intervals cover the true median.
    let mut random = Random::new(42);
    let mut unit = || f64::from(u32::try_from(random.below(1 << 30)).expect("30 bits")) / f64::from(1 << 30);
    let covered = (0..50)
        .filter(|_| {
            Estimate::of(&(0..41).map(|_| unit()).collect::<Vec<_>>()).is_some_and(|e| holds(&e, 0.5))
        })
        .count();
    assert!((42..50).contains(&covered), "{covered} of 50");
}

fn holds(estimate: &Estimate, value: f64) -> bool {
    estimate.low <= value && value <= estimate.high
}
