//! The yardstick against itself: how far anything can be trusted.

use super::report::table::interval;

/// How far the interval of a ratio may miss 1 and still be 1.00: hundreds of rounds see differences of two parts in a thousand,
/// which are none between things that are the same.
const ROUNDED: f64 = 0.005;

/// Whether a ratio, of which this is the interval, is 1.00.
pub fn is_one(low: f64, high: f64) -> bool {
    low < 1.0 + ROUNDED && high >= 1.0 - ROUNDED
}

/// What is to be said of it, from (where, ratio of it to itself).
///
/// Of twenty intervals of 95%, one does not hold the true value by chance. So each is said that does not, and it is a warning
/// when there are more than one in ten.
pub fn sentence(points: impl IntoIterator<Item = (String, [f64; 3])>) -> String {
    let points: Vec<_> = points.into_iter().collect();
    if points.is_empty() {
        return "Noise: none against none was not measured, so nothing says how far the ratios can be trusted.".to_owned();
    }
    let off: Vec<_> = points.iter().filter(|(_, [low, _, high])| !is_one(*low, *high)).collect();
    let width = points.iter().map(|(_, [low, _, high])| (high - low) / 2.0 * 100.0).fold(0.0, f64::max);
    if off.is_empty() {
        return format!(
            "Noise: none against none is 1.00 within its interval at all {} points; the widest interval is +-{width:.0}%.",
            points.len()
        );
    }
    let said: Vec<_> = off.iter().map(|(at, ratio)| format!("{at}: {}", interval(*ratio, 2))).collect();
    let warning = if off.len() * 10 > points.len() {
        "WARNING: something else than the variants differed; measure again on a quieter machine, and trust no difference as \
         small as these. "
    } else {
        ""
    };
    format!(
        "{warning}Noise: none against none is not 1.00 at {} of {} points ({}); one in twenty is expected by chance.",
        off.len(),
        points.len(),
        said.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty_is_chance_and_more_is_not() {
        assert!(is_one(0.98, 1.03) && is_one(0.998, 0.9995) && is_one(1.001, 1.003));
        assert!(!is_one(0.98, 0.99) && !is_one(1.006, 1.02));
        let good = ("here".to_owned(), [0.99, 1.0, 1.02]);
        let bad = ("there".to_owned(), [1.01, 1.02, 1.03]);
        let mut points = vec![good; 19];
        assert!(sentence(points.clone()).contains("at all 19 points"));
        points.push(bad.clone());
        let one = sentence(points.clone());
        assert!(!one.contains("WARNING") && one.contains("there: 1.02 [1.01, 1.03]"), "{one}");
        points.extend([bad.clone(), bad]);
        assert!(sentence(points).contains("WARNING"));
        assert!(sentence([]).contains("not measured"));
    }
}
