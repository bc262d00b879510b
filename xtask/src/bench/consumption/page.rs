//! The suite's part of the report.

use anyhow::{Context as _, Result};

use super::super::delay::Connections;
use super::super::doc::Section;
use super::super::doc::plot::{Axis, Line, Plot};
use super::super::noise;
use super::super::paced::Point;
use super::super::report::table::interval;
use super::super::web::Variant;
use super::{CLIENTS, Consumption, Plane, VARIANTS};

/// Those with a data plane of their own.
fn planes(consumption: &Consumption) -> Vec<&'static str> {
    let names = VARIANTS.iter().filter(|v| v.is_picop() || v.proxy().is_some()).map(|v| v.name());
    names.filter(|name| consumption.planes.contains_key(*name)).collect()
}

/// Tables and plots.
pub fn section(consumption: &Consumption) -> Result<Section> {
    let mut section = Section::new("CPU and memory of the data plane (`consumption`)");
    section.text(format!(
        "One node agent (`picop-direct`: environment of the workload, `picop-relay`: in a PiCoP header) against one Envoy for \
         each service, beside the service's server (`envoy-per-service`), which routes by an HTTP header. {CLIENTS} clients, one \
         after the other at even distances, {} rounds of {} s. `Processes` is the CPU time of the agent, or of all Envoys; `all \
         more` is that of everybody (client, servers, kernel threads) beyond the same without anything in between, which holds \
         what picop's programs do in the kernel. ({}.)",
        consumption.rounds, consumption.seconds, consumption.load
    ));
    let names = planes(consumption);
    for how in Connections::ALL {
        let mut rows = Vec::new();
        for name in &names {
            for (services, plane) in &consumption.planes[*name] {
                for (rate, point) in points(plane, how)? {
                    rows.push(row(consumption, name, *services, *rate, point));
                }
            }
        }
        rows.sort_by_key(|row| (number(&row[1]), number(&row[2])));
        section.table(
            format!("CPU seconds a second, {}", how.describe()),
            [
                "",
                "services",
                "requests/s",
                "processes",
                "all more [95%]",
                "us/request",
                "p50 us",
                "p99 us",
                "answered/s",
            ],
            rows,
        );
        plots(&mut section, consumption, &names, how)?;
    }
    memory(&mut section, consumption, &names);
    section.text(noise_text(consumption));
    Ok(section)
}

fn number(cell: &str) -> u64 {
    cell.parse().unwrap_or(0)
}

fn points(plane: &Plane, how: Connections) -> Result<&std::collections::BTreeMap<u32, Point>> {
    plane.points.get(&how).context("nothing was measured with such connections")
}

fn row(of: &Consumption, name: &str, services: u16, rate: u32, point: &Point) -> [String; 9] {
    let answered = format!("{:.0}", point.per_second);
    let behind = point.saturated(of.requests(rate) * of.rounds as u64);
    [
        name.to_owned(),
        services.to_string(),
        rate.to_string(),
        format!("{:.3}", point.proxy_cpu_s_per_s),
        interval(point.added_cpu_s_per_s, 3),
        format!("{:.0}", point.proxy_cpu_us),
        format!("{:.0}", point.p50_us),
        format!("{:.0}", point.p99_us),
        if behind { format!("{answered} (fell behind)") } else { answered },
    ]
}

fn plots(section: &mut Section, of: &Consumption, names: &[&str], how: Connections) -> Result<()> {
    let file = if how == Connections::KeepAlive { "lasting" } else { "one-each" };
    let most = of.planes.values().filter_map(|planes| planes.keys().next_back()).max().copied().unwrap_or(1);
    let mut lines = Vec::new();
    for name in names {
        let Some(plane) = of.planes[*name].get(&most) else { continue };
        for (what, get) in [
            ("processes", (|point| point.proxy_cpu_s_per_s) as fn(&Point) -> f64),
            ("all more", |point| point.added_cpu_s_per_s[1]),
        ] {
            let points =
                points(plane, how)?.iter().map(|(rate, point)| (f64::from(*rate), get(point))).collect();
            lines.push(Line { second: what != "processes", ..Line::new(format!("{name}, {what}"), points) });
        }
    }
    section.plot(Plot {
        name: format!("consumption-cpu-{file}"),
        title: format!("CPU of the data plane, {most} services, {}", how.describe()),
        x: Axis::linear("requests a second"),
        y: Axis::linear("CPU seconds a second"),
        lines,
    });
    Ok(())
}

fn memory(section: &mut Section, of: &Consumption, names: &[&str]) {
    let mib = |bytes: u64| format!("{:.1}", mebibytes(bytes));
    let rows = names.iter().flat_map(|name| {
        of.planes[*name].iter().map(|(services, plane)| {
            [
                (*name).to_owned(),
                services.to_string(),
                mib(plane.before.rss),
                mib(plane.after.rss),
                mib(plane.after.pss),
                mib(plane.after.maps),
                format!("{:.4}", plane.idle_cpu_s_per_s),
            ]
        })
    });
    section.table(
        "memory (MiB), and CPU seconds a second with no requests",
        ["", "services", "RSS before", "RSS after", "PSS after", "kernel maps", "idle CPU"],
        rows,
    );
    // The agent is one, whichever way requests take.
    let agent = Variant::Relay.name();
    let lines = names.iter().filter(|name| **name != Variant::Direct.name() || !names.contains(&agent));
    let lines = lines.map(|name| {
        let plane = |(services, plane): (&u16, &Plane)| {
            (f64::from(*services), mebibytes(plane.after.rss + plane.after.maps))
        };
        let name = if *name == agent { "picop's agent" } else { *name };
        let key = if name == "picop's agent" { agent } else { name };
        Line::new(name, of.planes[key].iter().map(plane).collect())
    });
    section.plot(Plot {
        name: "consumption-memory".to_owned(),
        title: "Memory of the data plane".to_owned(),
        x: Axis::linear("services on the node"),
        y: Axis::log("RSS and kernel maps (MiB)"),
        lines: lines.collect(),
    });
}

fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}

fn noise_text(of: &Consumption) -> String {
    let again = of.planes.get(Variant::NoneAgain.name());
    let mut points = Vec::new();
    for (services, plane) in again.into_iter().flatten() {
        for (how, by_rate) in &plane.points {
            let how = if *how == Connections::KeepAlive { "lasting" } else { "one each" };
            points.extend(
                by_rate
                    .iter()
                    .map(|(rate, point)| (format!("{services} services, {rate}/s, {how}"), point.ratio_p50)),
            );
        }
    }
    noise::sentence(points)
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use super::super::super::paced::tests::series;
    use super::super::Held;
    use super::*;

    /// A result in which Envoy's processes take twice of what the relay's take.
    pub fn consumption() -> Consumption {
        let mut planes = BTreeMap::new();
        for (name, us) in [
            ("none", 100),
            ("none-again", 100),
            ("picop-direct", 105),
            ("picop-relay", 200),
            ("envoy-per-service", 400),
        ] {
            let point =
                |factor: u32| Point::of(&series(us * factor, 0), &series(100 * factor, 0)).expect("a point");
            let by_rate = BTreeMap::from([(100, point(1)), (1000, point(1)), (5000, point(2))]);
            let held = Held { rss: 32 << 20, pss: 16 << 20, maps: 1 << 20 };
            let plane = Plane {
                before: held,
                after: held,
                idle_cpu_s_per_s: 0.002,
                points: BTreeMap::from([
                    (Connections::PerRequest, by_rate.clone()),
                    (Connections::KeepAlive, by_rate),
                ]),
            };
            planes.insert(name.to_owned(), BTreeMap::from([(1, plane.clone()), (50, plane)]));
        }
        Consumption {
            suite: "consumption".to_owned(),
            commit: "abc".to_owned(),
            kernel: "6.18".to_owned(),
            rounds: 4,
            seconds: 1.0,
            load: "quiet".to_owned(),
            planes,
            peers: serde_json::Map::new(),
        }
    }

    #[test]
    fn people_find_both_data_planes_and_no_yardstick() {
        let section = section(&consumption()).expect("a section");
        let text = section.markdown(false);
        assert!(
            text.contains("| envoy-per-service | 50 | 5000 |") && text.contains("| picop-relay | 1 | 100 |"),
            "{text}"
        );
        assert!(!text.contains("| none |"), "{text}");
        assert!(text.contains("| picop-direct | 1 | 32.0 | 32.0 | 16.0 | 1.0 | 0.0020 |"), "{text}");
        for plot in section.plots() {
            plot.svg().expect("a drawing");
        }
    }

    #[test]
    fn programs_find_the_figures_of_a_thousand_requests_a_second() {
        let json = consumption().json().expect("JSON");
        assert_eq!(json["variants"]["picop-relay"]["rate"], 1000);
        assert_eq!(json["variants"]["picop-relay"]["ratio_p50"][1], 2.0);
        let again: Consumption = serde_json::from_value(json).expect("as it was");
        assert_eq!(again.planes["none"].len(), 2);
    }
}
