use serde_json::json;

use super::*;

fn connect(relay_low: f64) -> Value {
    let variant = |ratio: [f64; 3]| {
        json!({
            "p50_us": 100.0 * ratio[1], "p99_us": 200.0, "cpu_us_per_conn": 80.0, "per_second": 9000.0,
            "ratio_p50": ratio, "added_cpu_us_per_conn": [1.0, 2.0, 3.0],
        })
    };
    json!({
        "suite": "connect", "commit": "abc", "kernel": "6.18", "machine": "2 x CPU", "when": "2026-11-26T00:00:00Z",
        "variants": {
            "none": variant([1.0, 1.0, 1.0]),
            "passthrough": variant([0.99, 1.01, 1.02]),
            "relay": variant([relay_low, 2.5, 2.6]),
        },
    })
}

fn relay(haproxy_p50: f64, haproxy_rate: f64) -> Value {
    let variant = |p50: f64, rate: f64| {
        json!({
            "p50_us": p50, "p99_us": 300.0, "per_second": rate, "proxy_cpu_us_per_conn": 30.0, "cpu_us_per_conn": 90.0,
            "added_p50_us": [1.0, 2.0, 3.0], "keepalive": { "1": { "p50_us": 50.0, "p99_us": 60.0, "per_second": rate } },
            "gb_per_s": { "up": 2.0, "down": 2.0 }, "cpu_s_per_gb": { "up": 0.5, "down": 0.5 }, "rss_per_conn": 800.0,
            "pss_per_conn": 700.0,
        })
    };
    json!({
        "suite": "relay", "commit": "abc", "kernel": "6.18", "machine": "2 x CPU", "when": "2026-11-26T00:10:00Z",
        "variants": {
            "none": variant(100.0, 9000.0), "relay": variant(200.0, 5000.0), "haproxy": variant(haproxy_p50, haproxy_rate),
        },
    })
}

#[test]
fn a_report_says_what_it_is_of_and_what_it_lacks() {
    let all = BTreeMap::from([("connect", connect(2.4)), ("relay", relay(250.0, 4000.0))]);
    let text = Book::of(&all).expect("a report").markdown(false);
    assert!(
        text.contains(
            "- commit abc, Linux 6.18, 2 x CPU: connect (2026-11-26T00:00:00Z), relay (2026-11-26T00:10:00Z)"
        ),
        "{text}"
    );
    assert!(
        text.contains("Not measured yet: delay, gateway, consumption, reduction, scale, counts."),
        "{text}"
    );
    assert!(
        text.contains("| relay | 250.0 | 200.0 | 2.500 [2.400, 2.600] | 9000 | 80.0 | 2.0 [1.0, 3.0] |"),
        "{text}"
    );
    assert!(text.contains("| haproxy | 2.00 | 2.00 | 0.500 | 0.500 |"), "{text}");
}

#[test]
fn losses_are_told_whoever_wins_otherwise() {
    let losses = |connect_low, haproxy_p50, haproxy_rate| {
        let all =
            BTreeMap::from([("connect", connect(connect_low)), ("relay", relay(haproxy_p50, haproxy_rate))]);
        Book::of(&all).expect("a report").losses.join("\n")
    };
    let none = losses(0.9, 250.0, 4000.0);
    assert_eq!(none, "", "better everywhere, or alike");
    let slower = losses(2.4, 150.0, 4000.0);
    assert!(slower.contains("relayed 2.500 [2.400, 2.600]") && !slower.contains("left alone"), "{slower}");
    assert!(
        slower.contains(
            "the median of a connection is longer: 1 at once: relay 200 us against haproxy 150 us."
        ),
        "{slower}"
    );
    assert!(!slower.contains("fewer"), "{slower}");
    let fewer = losses(0.9, 250.0, 6000.0);
    assert!(
        fewer.contains("fewer connections a second: 1 at once: relay 5000/s against haproxy 6000/s."),
        "{fewer}"
    );
    assert!(
        fewer.contains("fewer requests a second over lasting connections: 1 connection: relay 5000/s"),
        "{fewer}"
    );
}

#[test]
fn the_report_of_stored_results_is_written_with_its_plots() {
    let directory = tempfile::tempdir().expect("a directory");
    let results = Results::at(directory.path());
    assert!(write(&results).is_err(), "nothing to report");
    results.store(Extent::Whole, connect(2.4)).expect("stored");
    results.store(Extent::Quick, relay(1.0, 1.0)).expect("stored");
    write(&results).expect("a report");
    let text = std::fs::read_to_string(directory.path().join("report.md")).expect("a report");
    assert!(text.contains("Not measured yet: relay"), "quick results are no report's: {text}");
}

#[test]
fn a_result_of_another_version_is_an_error_that_says_what_to_do() {
    let mut old = connect(2.4);
    old["suite"] = json!("delay");
    let error = format!("{:#}", Book::of(&BTreeMap::from([("delay", old)])).expect_err("no points"));
    assert!(error.contains("measure again"), "{error}");
}
