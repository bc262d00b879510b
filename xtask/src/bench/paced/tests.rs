use super::*;

/// Turns of a hundred requests, in which they take `us` and a bit more from turn to turn, and one in a hundred ten times as
/// long.
pub fn series(us: u32, missed: u64) -> Series {
    let mut series = Series::default();
    for turn in 0..10 {
        let ns = us * (1000 + 20 * turn);
        let mut whole = vec![ns; 98];
        whole.extend([ns * 10; 2]);
        let met = Paced { whole, late: vec![5000; 100], missed, elapsed: 1_000_000_000 };
        series.push(Turn {
            met,
            cpu_ns: u64::from(ns) * 50,
            proxy_ns: u64::from(ns) * 10,
            server_ns: u64::from(ns) * 20,
        });
    }
    series
}

fn near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 0.03, "{found}, not {expected}");
}

#[test]
fn a_point_is_beside_the_yardstick_turn_by_turn() {
    let point = Point::of(&series(300, 0), &series(100, 0)).expect("a point");
    let ratio = point.ratio_p50;
    assert!(ratio.iter().all(|r| (r - 3.0).abs() < 1e-3), "the drift is in both: {ratio:?}");
    near(point.p50_us, 327.0);
    near(point.p99_us, 3270.0);
    near(point.mean_us, 327.0 * 1.18);
    near(point.added_p50_us[1], 218.0);
    near(point.per_second, 100.0);
    // 50 times a request's time, for a hundred requests.
    near(point.cpu_us, 327.0 / 2.0);
    near(point.proxy_cpu_us, 32.7);
    near(point.server_cpu_us, 65.4);
    near(point.proxy_cpu_s_per_s, 32.7e-6 * 100.0);
    near(point.added_cpu_us[1], 109.0);
    near(point.added_cpu_s_per_s[1], 109e-6 * 100.0);
    near(point.late_p99_us, 5.0);
}

#[test]
fn what_fell_behind_is_told_from_what_did_not() {
    let point = |missed| Point::of(&series(100, missed), &series(100, 0)).expect("a point");
    assert!(!point(0).saturated(1000));
    assert!(!point(1).saturated(1000), "ten turns with one each");
    assert!(point(2).saturated(1000));
    let nothing = Series::default();
    assert!(Point::of(&nothing, &nothing).is_err());
}

#[test]
fn a_point_survives_being_stored() {
    let point = Point::of(&series(300, 1), &series(100, 0)).expect("a point");
    let text = serde_json::to_string(&point).expect("JSON");
    assert_eq!(serde_json::from_str::<Point>(&text).expect("a point"), point);
}
