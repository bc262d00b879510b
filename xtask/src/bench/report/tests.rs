use super::super::stats::Random;
use super::*;

/// Rounds in which a connection takes `us` and uses half of that as CPU time, but for a drift all variants share, and noise.
fn measured(name: &str, us: f64, seed: u64) -> Measured {
    let mut random = Random::new(seed);
    let mut measured = Measured::new(name.to_owned());
    for round in 0..60_u32 {
        let drift = 1.0 + f64::from(round) / 30.0;
        let mut time = || {
            let noise = 0.98 + 0.04 * as_float(random.below(1000) as u64) / 1000.0;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds")]
            let ns = (us * drift * noise * 1000.0) as u32;
            ns
        };
        let whole: Vec<_> = (0..50).map(|_| time()).collect();
        let cpu_ns = whole.iter().map(|ns| u64::from(*ns) / 2).sum();
        let elapsed = whole.iter().copied().map(u64::from).sum();
        let times =
            Times { connect: whole.clone(), first_byte: whole.clone(), close: whole.clone(), whole, elapsed };
        measured.add(Round { times, cpu_ns });
    }
    measured
}

fn report(variants: &[Measured]) -> Report {
    let besides = [("direct-strip".to_owned(), "none-again".to_owned())];
    Report::new("connect", variants, &besides, Load::quiet(), "here").expect("a report")
}

#[test]
fn a_difference_of_a_hundredth_is_seen_through_a_drift_of_three() {
    let variants =
        [measured("none", 80.0, 1), measured("none-again", 80.0, 2), measured("direct-strip", 80.8, 3)];
    let json = report(&variants).json();
    let number = |path: &str| json.pointer(path).and_then(Value::as_f64).expect("a number");
    assert!((number("/variants/direct-strip/ratio_p50/1") - 1.01).abs() < 0.002, "{json}");
    assert!(number("/variants/direct-strip/ratio_p50/0") > 1.005, "{json}");
    assert!(number("/variants/none-again/ratio_p50/0") <= 1.0, "{json}");
    assert!(number("/variants/none-again/ratio_p50/2") >= 1.0, "{json}");
    assert!((number("/variants/none/p50_us") - 160.0).abs() < 8.0, "{json}");
    assert!((number("/variants/none/cpu_us_per_conn") - 80.0).abs() < 4.0, "{json}");
    assert!((number("/variants/none/per_second") - 1e6 / 160.0).abs() < 300.0, "{json}");
    assert!(number("/variants/none/p99_us") > 230.0, "{json}");
    assert_eq!(json["suite"], "connect");
    assert!(json["commit"].is_string() && json["kernel"].is_string());
}

#[test]
fn the_verdicts_are_the_intervals() {
    let good =
        [measured("none", 80.0, 1), measured("none-again", 80.0, 2), measured("direct-strip", 80.4, 3)];
    let text = report(&good).text();
    assert!(text.contains("target 1.02: met") && !text.contains("WARNING"), "{text}");
    let bad = [measured("none", 80.0, 1), measured("none-again", 82.0, 2), measured("direct-strip", 84.0, 3)];
    let text = report(&bad).text();
    assert!(text.contains("of none, target 1.02: NOT met") && text.contains("WARNING"), "{text}");
    assert!(text.contains("of none-again, target 1.02"), "{text}");
}

#[test]
fn nothing_is_compared_without_a_yardstick() {
    let none: [(String, String); 0] = [];
    assert!(Report::new("connect", &[measured("relay", 1.0, 1)], &none, Load::quiet(), "here").is_err());
    let empty = [Measured::new("none".to_owned())];
    assert!(Report::new("connect", &empty, &none, Load::quiet(), "here").is_err());
}
