//! The report as text.

use std::fmt::Write as _;

use super::super::stats::Estimate;
use super::super::{machine, noise};
use super::{AGAIN, Phase, Report, Row, YARDSTICK};

/// At most so much slower than the yardstick: the project's aim for each path that leaves connections to the kernel.
fn target(variant: &str) -> Option<f64> {
    match variant {
        "passthrough" => Some(1.01),
        "direct-strip" | "direct-propagate" => Some(1.02),
        _ => None,
    }
}

/// The same, of variants beside one another.
const FLAT: f64 = 1.02;

impl Report {
    /// All that there is to say.
    pub fn text(&self) -> String {
        let mut text = format!(
            "\n{}: client and server {}; {}, Linux {}, commit {}\n",
            self.suite,
            self.placed,
            machine::describe(),
            self.kernel,
            self.commit
        );
        text.push_str(&self.load.sentence());
        text.push_str("\n\n");
        text.push_str(&aligned(&self.whole()));
        text.push_str("\n  times by phase (median us, and ratio to none):\n");
        text.push_str(&aligned(&self.by_phase()));
        text.push('\n');
        for line in self.verdicts() {
            writeln!(text, "  {line}").expect("a String takes all");
        }
        text
    }

    fn whole(&self) -> Vec<Vec<String>> {
        let heading =
            ["", "p50 us", "p99 us", "ratio of p50 [95%]", "conn/s", "CPU us", "added CPU us [95%]"];
        let mut lines = vec![heading.map(str::to_owned).to_vec()];
        lines.extend(self.rows.iter().map(|row| {
            vec![
                row.name.clone(),
                format!("{:.1}", row.p50_us),
                format!("{:.1}", row.p99_us),
                if row.name == YARDSTICK { "1".to_owned() } else { ratio(row.ratio()) },
                format!("{:.0}", row.per_second),
                format!("{:.1}", row.cpu_us),
                if row.name == YARDSTICK { String::new() } else { added(row.added_cpu_us) },
            ]
        }));
        lines
    }

    fn by_phase(&self) -> Vec<Vec<String>> {
        let phases = &Phase::ALL[1..];
        let mut heading = vec![String::new()];
        heading.extend(phases.iter().map(|phase| phase.name().replace('_', " ")));
        let mut lines = vec![heading];
        lines.extend(self.rows.iter().map(|row| {
            let cell = |(p50, estimate): &(f64, Estimate)| {
                if row.name == YARDSTICK {
                    format!("{p50:.1}")
                } else {
                    format!("{p50:.1}  {}", ratio(*estimate))
                }
            };
            let mut line = vec![row.name.clone()];
            line.extend(row.phases[1..].iter().map(cell));
            line
        }));
        lines
    }

    fn verdicts(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(again) = self.rows.iter().find(|row| row.name == AGAIN) {
            lines.push(noise(again));
        }
        let targets = self.rows.iter().filter_map(|row| Some((row, target(&row.name)?)));
        lines.extend(targets.map(|(row, target)| verdict(&row.name, YARDSTICK, row.ratio(), target)));
        lines.extend(self.besides.iter().map(|(name, other, ratio)| verdict(name, other, *ratio, FLAT)));
        lines
    }
}

/// Whether the yardstick is as long as itself.
fn noise(again: &Row) -> String {
    let estimate = again.ratio();
    let width = (estimate.high - estimate.low) / 2.0 * 100.0;
    // That far they are apart, though nothing differs.
    let width = width.max((estimate.median - 1.0).abs() * 100.0);
    if noise::is_one(estimate.low, estimate.high) {
        format!(
            "noise: none against none is {}: differences below {width:.1}% cannot be seen here",
            ratio(estimate)
        )
    } else {
        format!(
            "WARNING: none against none is {}, which is not 1: something else than picop differed; do not trust the other \
             ratios, and measure again on a quieter machine",
            ratio(estimate)
        )
    }
}

fn verdict(name: &str, other: &str, estimate: Estimate, target: f64) -> String {
    let word = if estimate.high <= target {
        "met"
    } else if estimate.low > target {
        "NOT met"
    } else {
        "open: the interval holds it"
    };
    format!("{name}: {} of {other}, target {target}: {word}", ratio(estimate))
}

/// A ratio and its interval.
pub fn ratio(estimate: Estimate) -> String {
    format!("{:.3} [{:.3}, {:.3}]", estimate.median, estimate.low, estimate.high)
}

/// A value and its interval, as [low, median, high], with so many digits.
pub fn interval([low, median, high]: [f64; 3], digits: usize) -> String {
    format!("{median:.digits$} [{low:.digits$}, {high:.digits$}]")
}

/// A difference and its interval.
pub fn added(estimate: Estimate) -> String {
    format!("{:+.1} [{:+.1}, {:+.1}]", estimate.median, estimate.low, estimate.high)
}

/// Columns; the first one to the left, the others to the right.
pub fn aligned(lines: &[Vec<String>]) -> String {
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            let padded = if column == 0 { format!("  {cell:width$}") } else { format!("   {cell:>width$}") };
            text.push_str(&padded);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}
