//! The suite's part of the report.

use anyhow::{Context as _, Result};

use super::super::doc::Section;
use super::super::doc::plot::{Axis, Line, Plot};
use super::super::noise;
use super::super::paced::Point;
use super::super::report::table::interval;
use super::super::web::{PAYLOAD, Variant};
use super::{Connections, Delay, VARIANTS};

/// Tables and plots.
pub fn section(delay: &Delay) -> Result<Section> {
    let mut section = Section::new("Response time at a fixed rate (`delay`)");
    let moments = if delay.at_once { "all of them at the same moment" } else { "one after the other" };
    section.text(format!(
        "nginx answers {PAYLOAD} bytes; N clients ask {} times a second together, {moments}, for {} s in all. Times count from \
         the moment a request was meant to be sent. The environment is `main`: of the workload (`picop-direct`), in a PiCoP \
         header (`picop-relay`, `picop-graft`), in an HTTP header (`haproxy`, `envoy`). ({}.)",
        delay.rate,
        f64::from(u32::try_from(delay.rounds)?) * delay.seconds,
        delay.load
    ));
    let names: Vec<_> =
        VARIANTS.iter().map(|v| v.name()).filter(|name| delay.points.contains_key(*name)).collect();
    for how in Connections::ALL {
        let mut rows = Vec::new();
        for name in &names {
            for (clients, point) in of(delay, name, how)? {
                rows.push(row(name, *clients, point));
            }
        }
        // Beside each other what is compared.
        rows.sort_by_key(|row| row[1].parse::<usize>().unwrap_or(0));
        section.table(
            how.describe(),
            [
                "",
                "clients",
                "mean us",
                "p50 us",
                "p99 us",
                "p50 to none [95%]",
                "mean more us [95%]",
                "CPU us",
                "proxy CPU us",
                "missed",
            ],
            rows,
        );
        for (what, label, get) in MEASURES {
            let mut lines = Vec::new();
            for name in names.iter().filter(|name| **name != Variant::NoneAgain.name()) {
                let points = of(delay, name, how)?;
                #[expect(clippy::cast_precision_loss, reason = "clients are few")]
                let points = points.iter().map(|(clients, point)| (*clients as f64, get(point))).collect();
                lines.push(Line::new(*name, points));
            }
            section.plot(Plot {
                name: format!(
                    "delay-{}-{what}",
                    if how == Connections::KeepAlive { "lasting" } else { "one-each" }
                ),
                title: format!("Response time, {}: {what}", how.describe()),
                x: Axis::log("clients at once"),
                y: Axis::log(label),
                lines,
            });
        }
    }
    section.text(noise_text(delay));
    Ok(section)
}

/// What is plotted: a name, the axis, and where it is.
type Measure = (&'static str, &'static str, fn(&Point) -> f64);
const MEASURES: [Measure; 2] = [
    ("median", "response time, median (us)", |point| point.p50_us),
    ("p99", "response time, 99th percentile (us)", |point| point.p99_us),
];

fn of<'a>(
    delay: &'a Delay,
    name: &str,
    how: Connections,
) -> Result<&'a std::collections::BTreeMap<usize, Point>> {
    delay
        .points
        .get(name)
        .and_then(|points| points.get(&how))
        .with_context(|| format!("{name} was not measured"))
}

fn row(name: &str, clients: usize, point: &Point) -> [String; 10] {
    let none = name == Variant::None.name();
    let beside = |text: String| if none { String::new() } else { text };
    [
        name.to_owned(),
        clients.to_string(),
        format!("{:.0}", point.mean_us),
        format!("{:.0}", point.p50_us),
        format!("{:.0}", point.p99_us),
        beside(interval(point.ratio_p50, 2)),
        beside(interval(point.added_mean_us, 0)),
        format!("{:.0}", point.cpu_us),
        format!("{:.0}", point.proxy_cpu_us),
        point.missed.to_string(),
    ]
}

/// The yardstick beside itself, wherever it was measured.
fn noise_text(delay: &Delay) -> String {
    let again = delay.points.get(Variant::NoneAgain.name());
    let points = again.into_iter().flatten().flat_map(|(how, by_clients)| {
        by_clients.iter().map(move |(clients, point)| {
            let how = if *how == Connections::KeepAlive { "lasting" } else { "one each" };
            (format!("{clients} clients, {how}"), point.ratio_p50)
        })
    });
    noise::sentence(points)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::paced::tests::series;
    use super::*;

    pub fn delay(relay_us: u32, again_us: u32) -> Delay {
        let mut points = BTreeMap::new();
        for (name, us) in [("none", 100), ("none-again", again_us), ("picop-relay", relay_us), ("envoy", 250)]
        {
            let by_clients = |factor: u32| -> BTreeMap<usize, Point> {
                let point = |n: u32| {
                    Point::of(&series(us * n * factor, 0), &series(100 * n * factor, 0)).expect("a point")
                };
                BTreeMap::from([(1, point(1)), (64, point(10))])
            };
            let both = BTreeMap::from([
                (Connections::PerRequest, by_clients(2)),
                (Connections::KeepAlive, by_clients(1)),
            ]);
            points.insert(name.to_owned(), both);
        }
        Delay {
            suite: "delay".to_owned(),
            commit: "abc".to_owned(),
            kernel: "6.18".to_owned(),
            rate: 1000.0,
            at_once: true,
            rounds: 10,
            seconds: 1.0,
            load: "quiet".to_owned(),
            points,
            peers: serde_json::Map::new(),
        }
    }

    #[test]
    fn people_find_each_variant_at_each_number_of_clients() {
        let section = section(&delay(300, 100)).expect("a section");
        let text = section.markdown(true);
        assert!(text.contains("| picop-relay | 64 | 7"), "{text}");
        assert!(text.contains("3.00 [3.00, 3.00]"), "{text}");
        assert!(
            text.contains("(delay-one-each-median.svg)") && text.contains("(delay-lasting-p99.svg)"),
            "{text}"
        );
        assert!(text.contains("none against none is 1.00 within its interval at all 4 points"), "{text}");
        for plot in section.plots() {
            plot.svg().expect("a drawing");
        }
    }

    #[test]
    fn a_yardstick_that_is_not_itself_is_said() {
        let text = section(&delay(300, 104)).expect("a section").markdown(false);
        assert!(text.contains("WARNING") && text.contains("64 clients, one each: 1.04"), "{text}");
    }

    #[test]
    fn programs_find_the_figures_of_one_client() {
        let json = delay(300, 100).json().expect("JSON");
        let relay = &json["variants"]["picop-relay"];
        assert_eq!(relay["ratio_p50"], serde_json::json!([3.0, 3.0, 3.0]));
        assert!(relay["p50_us"].as_f64().is_some_and(|us| (us - 654.0).abs() < 20.0), "{relay}");
        assert!(json["points"]["envoy"]["keep_alive"]["64"]["p99_us"].is_number());
        let again: Delay = serde_json::from_value(json).expect("as it was");
        assert_eq!(again.points["envoy"].len(), 2);
    }
}
