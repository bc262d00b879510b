use serde_json::Value;

use super::super::super::load::Times;
use super::super::turn::Turn;
use super::*;

const ONE: Kind = Kind::Connections { clients: 1, count: 100 };
const CROWD: Kind = Kind::Connections { clients: 64, count: 100 };
const KEPT: Kind = Kind::Requests { clients: 64, count: 100 };
const UP: Kind = Kind::Stream { direction: Direction::Up, bytes: 1_000_000_000 };
const DOWN: Kind = Kind::Stream { direction: Direction::Down, bytes: 1_000_000_000 };

/// Turns of 100 connections (or requests, or a GB in 10,000 parts), each of which takes `us`, more from turn to turn for all variants
/// alike, and a fifth of that as the proxy's CPU time.
fn series(kind: Kind, us: u32) -> Series {
    let mut series = Series::default();
    for turn in 0..20 {
        let ns = us * 1000 + turn * 100;
        let (count, times, each) = match kind {
            Kind::Stream { bytes, .. } => (bytes, Times::default(), 10_000),
            Kind::Transfers { .. } => (100, Times::default(), 100),
            Kind::Connections { .. } | Kind::Requests { .. } => {
                let whole = vec![ns; 100];
                let phase = whole.clone();
                (
                    100,
                    Times {
                        connect: phase.clone(),
                        first_byte: phase.clone(),
                        close: phase,
                        whole,
                        elapsed: 0,
                    },
                    100,
                )
            }
        };
        let elapsed_ns = u64::from(ns) * each;
        series.push(Turn {
            count,
            elapsed_ns,
            times: Times { elapsed: elapsed_ns, ..times },
            cpu_ns: elapsed_ns / 2,
            proxy_ns: elapsed_ns / 5,
            busy: 0.5,
        });
    }
    series
}

fn report(variants: &[(Variant, u32)], kinds: &[Kind]) -> Report {
    let names: Vec<_> = variants.iter().map(|(variant, _)| *variant).collect();
    let mut results = Results::new(&names);
    for kind in kinds {
        results.add(variants.iter().map(|(variant, us)| (*variant, *kind, series(*kind, *us))).collect());
    }
    results.idle(Variant::Relay, Memory { connections: 10, rss: 5000.0, pss: 4000.0 });
    Report::new(results, Load::quiet()).expect("a report")
}

#[test]
fn a_graft_is_set_beside_the_relay_size_by_size() {
    let kinds = [4096, 1 << 20].map(|bytes| Kind::Transfers { direction: Direction::Up, bytes, count: 100 });
    let report = report(&[(Variant::None, 10), (Variant::Relay, 100), (Variant::Graft, 50)], &kinds);
    let json = report.json();
    let ratio = |variant: &str, size: &str| {
        json["variants"][variant]["transfers"][format!("{size} up")]["ratio_cpu_to_relay"][1].as_f64()
    };
    for size in ["4096", "1048576"] {
        assert!(ratio("graft", size).is_some_and(|ratio| (0.5..0.51).contains(&ratio)), "{size}: {json}");
    }
    assert_eq!(ratio("relay", "4096"), None);
    assert!(report.text().contains("a connection, by the bytes it carries"));
}

fn number(json: &Value, path: &str) -> f64 {
    json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {json}"))
}

const VARIANTS: [(Variant, u32); 4] =
    [(Variant::None, 100), (Variant::NoneAgain, 100), (Variant::Relay, 150), (Variant::Envoy, 200)];

#[test]
fn what_a_proxy_adds_is_seen_through_a_drift_all_share() {
    let json = report(&VARIANTS, &[ONE, CROWD, KEPT, UP, DOWN]).json();
    let near = |path: &str, value: f64| {
        let found = number(&json, path);
        assert!((found / value - 1.0).abs() < 0.02, "{path}: {found}, not {value}");
    };
    near("/variants/relay/added_p50_us/1", 50.0);
    near("/variants/envoy/added_p50_us/1", 100.0);
    near("/variants/relay/ratio_p50/1", 1.5);
    near("/variants/relay/p99_us", 151.9);
    near("/variants/relay/proxy_cpu_us_per_conn", 30.0);
    near("/variants/relay/cpu_us_per_conn", 75.0);
    near("/variants/relay/busy_us_per_conn", 5000.0);
    near("/variants/relay/clients/64/added_p50_us/1", 50.0);
    near("/variants/relay/per_second", 1e6 / 150.0);
    near("/variants/relay/keepalive/64/per_second", 1e6 / 150.0);
    // 1.5 s for a GB.
    near("/variants/relay/gb_per_s/up", 1.0 / 1.5);
    near("/variants/relay/cpu_s_per_gb/down", 0.75);
    near("/variants/relay/proxy_cpu_s_per_gb/down", 0.3);
    near("/variants/relay/ratio_gb_per_s/up/1", 1.0 / 1.5);
    near("/variants/relay/ratio_cpu_s_per_gb/up/1", 1.5);
    near("/variants/relay/rss_per_conn", 5000.0);
    assert!(number(&json, "/variants/none-again/added_p50_us/1").abs() < 1e-9);
    assert_eq!(json["suite"], "relay");
    assert!(json["variants"]["envoy"].get("rss_per_conn").is_none(), "not measured");
}

#[test]
fn what_was_not_measured_is_not_in_the_report() {
    let json = report(&VARIANTS, &[UP, DOWN]).json();
    assert!(json["variants"]["relay"].get("p50_us").is_none(), "{json}");
    assert!(json["variants"]["relay"].get("clients").is_none(), "{json}");
    assert!(json["variants"]["relay"].get("gb_per_s").is_some(), "{json}");
    let nothing = report(&VARIANTS, &[]);
    assert!(nothing.text().contains("memory for each idle connection"));
    assert!(!nothing.text().contains("requests over lasting connections"));
}

#[test]
fn people_read_how_picop_stands_to_the_best_of_its_peers() {
    let variants =
        [(Variant::None, 100), (Variant::Relay, 140), (Variant::Haproxy, 150), (Variant::Envoy, 200)];
    let text = report(&variants, &[ONE, CROWD, KEPT, UP, DOWN]).text();
    assert!(
        text.contains("relay at 1: added p50 40.0 us, 0.80 of the best peer's (haproxy: 50.0 us)"),
        "{text}"
    );
    assert!(text.contains("clients at once: 64"), "{text}");
}

#[test]
fn nothing_is_compared_with_what_was_not_measured() {
    let mut results = Results::new(&[Variant::None, Variant::Relay]);
    results.add(vec![(Variant::None, ONE, series(ONE, 100))]);
    assert!(Report::new(results, Load::quiet()).is_err());
}
