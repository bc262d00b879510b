//! The suite's part of the report.

use super::super::doc::Section;
use super::super::noise;
use super::super::report::table::interval;
use super::{Gateway, How, Point, Variant};

/// At least so many requests a second of CPU time, to the better of the peers.
const TARGET: f64 = 1.0;

/// A table for each use of connections, and what is to be said of them.
pub fn section(gateway: &Gateway) -> Section {
    let mut section = Section::new("A gateway for HTTP (`gateway`)");
    let lines = if gateway.access_lines {
        "picop writes a line for each request, they do not"
    } else {
        "none writes a line for each request"
    };
    section.text(format!(
        "Requests for {} hosts in turn, each of an environment, answered with 1,000 bytes: through nginx and Envoy, which route by \
         host to a port of the server for each, and through `picop gateway http`, which sends each over a connection with its \
         environment's header to one port. All of them tell the server whom they ask for (`X-Forwarded-For`). `hyper-floor` is a proxy \
         that is the HTTP library of picop and nothing else. One worker each, on a CPU of its own; client and server share another, so where the \
         gateway is less than all of its CPU, it is they who cannot do more, and requests a second say nothing of it; requests for \
         each second of its CPU time do. {lines}. {} rounds. ({}.)",
        gateway.hosts, gateway.rounds, gateway.load
    ));
    for how in How::ALL {
        let rows: Vec<_> = Variant::ALL
            .into_iter()
            .filter_map(|variant| Some(row(variant, gateway.points.get(variant.name())?.get(&how)?)))
            .collect();
        if rows.is_empty() {
            continue;
        }
        section.table(
            how.describe(),
            [
                "",
                "req/s [95%]",
                "req/CPU-s [95%]",
                "req/CPU-s to the better peer [95%]",
                "req/s to it [95%]",
                "busy",
                "p50 us",
                "p99 us",
                "gateway CPU us",
                "server CPU us",
                "client CPU us",
            ],
            rows,
        );
    }
    section.text(noise_text(gateway));
    if let Some(text) = verdict(gateway) {
        section.text(text);
    }
    section
}

fn row(variant: Variant, point: &Point) -> [String; 11] {
    let maybe =
        |value: Option<[f64; 3]>, digits| value.map(|value| interval(value, digits)).unwrap_or_default();
    let own = variant == Variant::Picop;
    let beside = |value: Option<[f64; 3]>| if own { maybe(value, 2) } else { String::new() };
    let is_none = variant == Variant::None;
    let of_gateway = |text: String| if is_none { String::new() } else { text };
    [
        variant.name().to_owned(),
        interval(point.per_second, 0),
        maybe(point.per_cpu_second, 0),
        beside(point.ratio_per_cpu_better),
        beside(point.ratio_per_second_better),
        of_gateway(format!("{:.2}", point.gateway_busy)),
        format!("{:.0}", point.p50_us),
        format!("{:.0}", point.p99_us),
        of_gateway(format!("{:.1}", point.gateway_cpu_us)),
        format!("{:.1}", point.server_cpu_us),
        format!("{:.1}", point.client_cpu_us),
    ]
}

fn noise_text(gateway: &Gateway) -> String {
    let again = gateway.points.get(Variant::NginxAgain.name()).into_iter().flatten();
    let points = again.flat_map(|(how, point)| {
        let of = |what: &str| format!("{}, {what}", how.describe());
        let cpu = point.ratio_per_cpu.map(|ratio| (of("CPU"), ratio));
        cpu.into_iter().chain([(of("requests a second"), point.ratio_per_second)])
    });
    noise::sentence(points).replace("none against none", "nginx against itself")
}

fn verdict(gateway: &Gateway) -> Option<String> {
    let own = gateway.points.get(Variant::Picop.name())?;
    let said = own.iter().filter_map(|(how, point)| {
        let ratio = point.ratio_per_cpu_better?;
        let met = if ratio[1] >= TARGET { "met" } else { "missed" };
        Some(format!("{}: {met}, {}", how.describe(), interval(ratio, 2)))
    });
    let said: Vec<_> = said.collect();
    (!said.is_empty()).then(|| {
        format!(
            "Target: {TARGET:.1} of the better peer's requests for each second of CPU time. {}.",
            said.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Map;

    use super::super::super::load::Closed;
    use super::super::stage::Turn;
    use super::*;

    /// Turns of one kind, in which each variant's gateway takes so many microseconds of CPU time for a request.
    pub fn gateway(picop: u64, again: u64) -> Gateway {
        let mut turns = BTreeMap::new();
        for (variant, us) in [
            (Variant::None, 0),
            (Variant::Nginx, 20),
            (Variant::NginxAgain, again),
            (Variant::Envoy, 50),
            (Variant::Picop, picop),
        ] {
            let turn = || Turn {
                met: Closed { whole: vec![100_000; 10], elapsed: 1_000_000 },
                gateway_ns: us * 10_000,
                server_ns: 30_000,
                client_ns: 50_000,
            };
            turns.insert((variant, How::KeepAlive), vec![turn(), turn()]);
        }
        let points = turns.keys().map(|(variant, how)| {
            let point = Point::of(&turns, *variant, *how).expect("a point");
            (variant.name().to_owned(), BTreeMap::from([(*how, point)]))
        });
        Gateway {
            suite: super::super::SUITE.to_owned(),
            commit: "abc".to_owned(),
            kernel: "6.18".to_owned(),
            rounds: 2,
            hosts: 8,
            access_lines: false,
            load: "quiet".to_owned(),
            points: points.collect(),
            peers: Map::new(),
        }
    }

    #[test]
    fn picop_is_compared_with_the_better_peer() {
        let text = section(&gateway(25, 20)).markdown(false);
        assert!(text.contains("HTTP/1.1, 64 lasting connections: missed, 0.80 [0.80, 0.80]"), "{text}");
        assert!(
            text.contains("| picop | 10000 [10000, 10000] | 40000 [40000, 40000] | 0.80 [0.80, 0.80] |"),
            "{text}"
        );
        assert!(text.contains("nginx against itself is 1.00 within its interval at all 2 points"), "{text}");
        let met = section(&gateway(16, 20)).markdown(false);
        assert!(met.contains("met, 1.25"), "{met}");
    }

    #[test]
    fn a_yardstick_that_is_not_itself_is_said() {
        let text = section(&gateway(25, 22)).markdown(false);
        assert!(text.contains("WARNING"), "{text}");
    }

    #[test]
    fn programs_find_the_figures_and_read_them_again() {
        let json = gateway(25, 20).json().expect("JSON");
        assert_eq!(
            json["variants"]["picop"]["per_cpu_second"],
            serde_json::json!([40_000.0, 40_000.0, 40_000.0])
        );
        assert_eq!(json["variants"]["picop"]["cpu_us_per_conn"], 25.0);
        let again: Gateway = serde_json::from_value(json).expect("as it was");
        assert_eq!(again.points["none"][&How::KeepAlive].per_cpu_second, None);
    }
}
