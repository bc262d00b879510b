use std::net::SocketAddr;

use super::*;
use crate::route::{Facts, RouteTable, Service, decide};

fn text(metrics: &Metrics) -> String {
    let mut text = String::new();
    TextEncoder::new().encode_utf8(&metrics.gather(Vec::new()), &mut text).unwrap();
    text
}

#[test]
fn a_connection_is_counted_where_it_belongs() {
    let address: SocketAddr = "10.96.0.10:80".parse().unwrap();
    let table = RouteTable::new(vec![Service::new("cart", vec![address])], vec![]).unwrap();
    let decision =
        decide(&Facts { table: &table, destination: address, from_header: None, of_workload: None });
    let metrics = Metrics::default();
    let counters = metrics.of(Some(&decision));
    assert!(Arc::ptr_eq(&counters, &metrics.of(Some(&decision))), "looked up once");
    counters.opened(Duration::from_micros(30));
    counters.connected(Duration::from_micros(40), Duration::from_micros(70));
    counters.closed(&End {
        outcome: Outcome::Ok,
        up: 10,
        grafted_up: 4,
        down: 100,
        grafted_down: 0,
        lasted: Duration::from_millis(1),
    });
    metrics.of(None).closed(&End {
        outcome: Outcome::NoOriginal,
        up: 0,
        grafted_up: 0,
        down: 0,
        grafted_down: 0,
        lasted: Duration::ZERO,
    });
    let text = text(&metrics);
    for line in [
        "picop_connections_opened_total{environment=\"\",path=\"relay\",reason=\"no_environment\",service=\"cart\"} 1",
        "picop_connections_closed_total{environment=\"\",outcome=\"ok\",path=\"relay\",service=\"cart\"} 1",
        "picop_connections_closed_total{environment=\"\",outcome=\"no_original\",path=\"relay\",service=\"\"} 1",
        "picop_bytes_total{direction=\"up\",environment=\"\",path=\"relay\",service=\"cart\"} 6",
        "picop_bytes_total{direction=\"up\",environment=\"\",path=\"graft\",service=\"cart\"} 4",
        "picop_bytes_total{direction=\"down\",environment=\"\",path=\"relay\",service=\"cart\"} 100",
        "picop_setup_seconds_count{service=\"cart\"} 1",
        "picop_header_wait_seconds_bucket{service=\"cart\",le=\"0.0001\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
}

#[test]
fn outcomes_index_their_counters() {
    for (number, outcome) in Outcome::ALL.into_iter().enumerate() {
        assert_eq!(outcome as usize, number);
    }
}

#[test]
fn families_of_one_name_are_one() {
    let metrics = Metrics::default();
    let elsewhere = Families::default();
    elsewhere.opened.with_label_values(&["db", "", "variant", "direct"]).inc();
    metrics.of(None).undecided();
    let all = metrics.gather(elsewhere.gather());
    let opened: Vec<_> = all.iter().filter(|family| family.name() == families::OPENED_NAME).collect();
    assert_eq!((opened.len(), opened[0].get_metric().len()), (1, 2));
}
