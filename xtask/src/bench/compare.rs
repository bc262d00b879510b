//! Two results of a suite beside each other.

use serde_json::Value;

use super::doc::Section;
use super::report::table::ratio;
use super::stats::Estimate;

/// What has changed from an earlier result to a later one.
///
/// Microseconds of two runs are those of two states of the machine; what can be compared is how each stood to its own
/// yardstick. A variant counts as slower or faster if the two intervals of that ratio do not meet.
pub fn section(then: &Value, now: &Value) -> Section {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("unknown").to_owned();
    let mut section = Section::new(format!(
        "{}: commit {} beside {} of {}",
        text(now, "suite"),
        text(now, "commit"),
        text(then, "commit"),
        text(then, "when")
    ));
    for key in ["machine", "kernel"] {
        if then[key] != now[key] {
            section.text(format!(
                "The {key} is another one: {}, and was {}.",
                text(now, key),
                text(then, key)
            ));
        }
    }
    let empty = serde_json::Map::new();
    let variants = now["variants"].as_object().unwrap_or(&empty);
    let rows = variants.iter().filter_map(|(name, now)| row(name, then["variants"].get(name)?, now));
    section.table(
        "now/then, and each beside its own yardstick",
        ["", "p50", "p99", "CPU", "p50 to yardstick, then", "now", ""],
        rows,
    );
    let new: Vec<_> = variants.keys().filter(|name| then["variants"].get(name).is_none()).cloned().collect();
    if !new.is_empty() {
        section.text(format!("Not measured then: {}.", new.join(", ")));
    }
    section
}

fn row(name: &str, then: &Value, now: &Value) -> Option<[String; 7]> {
    let times = |key: &str| {
        let (then, now) = (then[key].as_f64()?, now[key].as_f64()?);
        (then > 0.0).then(|| format!("{:.2}", now / then))
    };
    let (before, after) = (estimate(then), estimate(now));
    let known = [times("p50_us"), times("p99_us"), times("cpu_us_per_conn")];
    if known.iter().all(Option::is_none) {
        return None;
    }
    let [p50, p99, cpu] = known.map(Option::unwrap_or_default);
    let verdict = match (before, after) {
        (Some(before), Some(after)) if after.low > before.high => "slower",
        (Some(before), Some(after)) if after.high < before.low => "faster",
        _ => "",
    };
    let shown = |estimate: Option<Estimate>| estimate.map(ratio).unwrap_or_default();
    Some([name.to_owned(), p50, p99, cpu, shown(before), shown(after), verdict.to_owned()])
}

/// A variant's ratio to the yardstick.
fn estimate(variant: &Value) -> Option<Estimate> {
    let triple = variant["ratio_p50"].as_array()?;
    let at = |n: usize| triple.get(n)?.as_f64();
    Some(Estimate { low: at(0)?, median: at(1)?, high: at(2)? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(relay: [f64; 3], p50: f64) -> Value {
        json!({ "suite": "connect", "commit": "abc", "kernel": "6.18", "machine": "m", "when": "then", "variants": {
            "none": { "p50_us": 100.0, "p99_us": 200.0, "cpu_us_per_conn": 50.0, "ratio_p50": [1.0, 1.0, 1.0] },
            "relay": { "p50_us": p50, "p99_us": 400.0, "cpu_us_per_conn": 100.0, "ratio_p50": relay },
            "memory": { "rss": 7 },
        } })
    }

    #[test]
    fn a_variant_is_slower_only_if_the_intervals_do_not_meet() {
        let then = result([1.9, 2.0, 2.1], 200.0);
        let plain = |now: &Value| section(&then, now).plain();
        let slower = plain(&result([2.2, 2.3, 2.4], 230.0));
        assert!(slower.contains("1.15") && slower.contains("2.300 [2.200, 2.400]   slower"), "{slower}");
        assert!(plain(&result([1.5, 1.6, 1.7], 160.0)).contains("faster"));
        let same = plain(&result([2.05, 2.2, 2.4], 400.0));
        assert!(!same.contains("slower") && !same.contains("faster"), "{same}");
        assert!(!same.contains("memory"), "nothing of it can be compared");
        assert!(!same.contains("another one"));
    }

    #[test]
    fn another_machine_and_new_variants_are_said() {
        let then = result([1.9, 2.0, 2.1], 200.0);
        let mut now = then.clone();
        now["machine"] = json!("other");
        now["variants"]["graft"] = json!({ "p50_us": 1.0 });
        let text = section(&then, &now).plain();
        assert!(text.contains("The machine is another one: other, and was m."), "{text}");
        assert!(text.contains("Not measured then: graft."), "{text}");
    }
}
