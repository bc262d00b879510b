//! The suite's part of the report.

use super::super::doc::Section;
use super::super::doc::plot::{Axis, Line, Plot};
use super::super::noise;
use super::super::report::table::interval;
use super::super::stats::median;
use super::{Held, Loaded, Path, Scale};

/// Tables and plots.
pub fn section(scale: &Scale) -> Section {
    let mut section = Section::new("Routes, environments and connections by number (`scale`)");
    section.text(format!(
        "Connections one after the other (connect, 1 kB there, 1 kB back, close), each to any of the services; ratios are to the \
         smallest table or number of the same path. An update moves one service: from the moment the new route file has taken the \
         old one's place to the begin of the first connection that was routed by it, while a client connects without a pause. ({}.)",
        scale.load
    ));
    for (what, tables) in [("routes", &scale.routes), ("environments", &scale.environments)] {
        if !tables.is_empty() {
            loaded(&mut section, what, tables);
        }
    }
    if !scale.connections.is_empty() {
        held(&mut section, scale);
    }
    section
}

fn loaded(section: &mut Section, what: &str, tables: &[Loaded]) {
    let size = |table: &Loaded| {
        let environments = u32::from(table.environments);
        if what == "routes" { u32::from(table.services) * environments } else { environments }
    };
    let rows = tables.iter().map(|table| {
        let timing = |path: Path| {
            table.timings.get(&path).map_or_else(
                || [String::new(), String::new()],
                |timing| [format!("{:.1}", timing.p50_us), interval(timing.ratio_p50, 3)],
            )
        };
        let ([direct, direct_ratio], [relay, relay_ratio]) = (timing(Path::Direct), timing(Path::Relay));
        [
            size(table).to_string(),
            table.services.to_string(),
            direct,
            direct_ratio,
            relay,
            relay_ratio,
            mib(table.agent_rss_kb),
            mib(table.maps_kb),
            format!("{:.1}", kilobytes(table.file_bytes) / 1024.0),
            milliseconds(&table.updates_ms),
        ]
    });
    section.table(
        format!("by {what}"),
        [
            what,
            "services",
            "direct p50 us",
            "ratio [95%]",
            "relay p50 us",
            "ratio [95%]",
            "agent RSS MiB",
            "maps MiB",
            "file MiB",
            "update ms: median (slowest)",
        ],
        rows,
    );
    let points = |get: &dyn Fn(&Loaded) -> Option<f64>| {
        tables.iter().filter_map(|table| Some((f64::from(size(table)), get(table)?))).collect::<Vec<_>>()
    };
    let timing = |path| move |table: &Loaded| table.timings.get(&path).map(|timing| timing.p50_us);
    section.plot(Plot {
        name: format!("scale-{what}-latency"),
        title: format!("A connection, by {what}"),
        x: Axis::log(what),
        y: Axis::linear("whole connection, median (us)"),
        lines: [Path::Direct, Path::Relay].map(|path| Line::new(path.name(), points(&timing(path)))).to_vec(),
    });
    section.plot(Plot {
        name: format!("scale-{what}-memory"),
        title: format!("Memory, by {what}"),
        x: Axis::log(what),
        y: Axis::log("MiB"),
        lines: vec![
            Line::new("agent's RSS", points(&|table| Some(kib(table.agent_rss_kb) / 1024.0))),
            Line::new("kernel maps", points(&|table| Some(kib(table.maps_kb) / 1024.0))),
        ],
    });
    section.plot(Plot {
        name: format!("scale-{what}-update"),
        title: format!("From the file's change to the first connection by it, by {what}"),
        x: Axis::log(what),
        y: Axis::log("median (ms)"),
        lines: vec![Line::new("update", points(&|table| median(&mut table.updates_ms.clone())))],
    });
}

fn held(section: &mut Section, scale: &Scale) {
    let first = |held: &Held| scale.connections.iter().find(|other| other.path == held.path);
    let rows = scale.connections.iter().map(|held| {
        let per = |get: fn(&Held) -> u64| {
            first(held).filter(|first| held.connections > first.connections).map_or_else(
                String::new,
                |first| {
                    let more = kib(get(held)) - kib(get(first));
                    let connections = float(held.connections - first.connections);
                    format!("{:.1}", more / connections)
                },
            )
        };
        [
            held.path.name().to_owned(),
            held.connections.to_string(),
            format!("{:.1}", held.timing.p50_us),
            format!("{:.1}", held.timing.p99_us),
            interval(held.timing.ratio_p50, 3),
            // Of few, it is that of entering the cgroup.
            if held.connections < 100 { String::new() } else { format!("{:.0}", held.opening_us) },
            mib(held.agent_rss_kb),
            per(|held| held.agent_rss_kb),
            per(|held| held.slab_kb),
        ]
    });
    section.table(
        "by connections that are held open and idle",
        [
            "path",
            "connections",
            "p50 us",
            "p99 us",
            "ratio [95%]",
            "opening us",
            "agent RSS MiB",
            "agent kB each",
            "kernel slab kB each",
        ],
        rows,
    );
    section.text(
        "Kernel slab is the whole machine's, client's and server's sockets included: what picop adds is the difference to `none`.",
    );
    let line = |path: Path, get: fn(&Held) -> f64| {
        let own = scale.connections.iter().filter(|held| held.path == path);
        Line::new(path.name(), own.map(|held| (float(held.connections), get(held))).collect())
    };
    let paths = [Path::None, Path::Direct, Path::Relay];
    section.plot(Plot {
        name: "scale-connections-latency".to_owned(),
        title: "A connection beside others that are idle".to_owned(),
        x: Axis::log("connections held"),
        y: Axis::linear("whole connection, median (us)"),
        lines: paths.map(|path| line(path, |held| held.timing.p50_us)).to_vec(),
    });
    section.plot(Plot {
        name: "scale-connections-memory".to_owned(),
        title: "The agent's memory by connections that are idle".to_owned(),
        x: Axis::log("connections held"),
        y: Axis::linear("agent's RSS (MiB)"),
        lines: paths.map(|path| line(path, |held| kib(held.agent_rss_kb) / 1024.0)).to_vec(),
    });
    let again = scale.again.iter().map(|held| (held.path.name().to_owned(), held.timing.ratio_p50));
    section.text(
        noise::sentence(again)
            .replace("none against none", "the smallest number again after the largest, against itself,"),
    );
}

fn milliseconds(updates: &[f64]) -> String {
    let slowest = updates.iter().copied().fold(0.0, f64::max);
    median(&mut updates.to_vec()).map_or_else(String::new, |median| format!("{median:.0} ({slowest:.0})"))
}

fn mib(kb: u64) -> String {
    format!("{:.1}", kib(kb) / 1024.0)
}

fn kib(kb: u64) -> f64 {
    f64::from(u32::try_from(kb).unwrap_or(u32::MAX))
}

fn kilobytes(bytes: u64) -> f64 {
    kib(bytes / 1024)
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Timing;
    use super::*;

    fn timing(p50_us: f64) -> Timing {
        Timing {
            p50_us,
            p99_us: p50_us * 2.0,
            per_second: 5000.0,
            cpu_us_per_conn: 90.0,
            ratio_p50: [0.99, 1.0, 1.01],
        }
    }

    fn scale() -> Scale {
        let table = |services, environments| Loaded {
            services,
            environments,
            timings: BTreeMap::from([(Path::Direct, timing(100.0)), (Path::Relay, timing(250.0))]),
            agent_rss_kb: 20_480,
            maps_kb: 1024 * u64::from(environments),
            file_bytes: 1 << 20,
            updates_ms: vec![20.0, 30.0, 400.0],
        };
        let held = |path, connections: usize| Held {
            path,
            connections,
            timing: timing(120.0),
            agent_rss_kb: 20_000 + 2 * connections as u64,
            maps_kb: 1,
            slab_kb: 100_000 + 8 * connections as u64,
            opening_us: 150.0,
        };
        Scale {
            suite: "scale".to_owned(),
            commit: "abc".to_owned(),
            kernel: "6.18".to_owned(),
            load: "quiet".to_owned(),
            routes: vec![table(1, 1), table(10_000, 10)],
            environments: vec![table(10, 1), table(10, 1000)],
            connections: vec![
                held(Path::None, 1),
                held(Path::None, 50_000),
                held(Path::Relay, 1),
                held(Path::Relay, 50_000),
            ],
            again: vec![held(Path::None, 1)],
        }
    }

    #[test]
    fn people_find_what_grows_and_what_does_not() {
        let section = section(&scale());
        let text = section.markdown(true);
        assert!(text.contains("| 100000 | 10000 | 100.0 | 1.000 [0.990, 1.010] | 250.0 |"), "{text}");
        assert!(text.contains("| 30 (400) |"), "{text}");
        assert!(
            text.contains(
                "| relay | 50000 | 120.0 | 240.0 | 1.000 [0.990, 1.010] | 150 | 117.2 | 2.0 | 8.0 |"
            ),
            "{text}"
        );
        assert!(text.contains("at all 1 points"), "{text}");
        assert_eq!(section.plots().count(), 8);
        for plot in section.plots() {
            plot.svg().expect("a drawing");
        }
    }

    #[test]
    fn each_size_is_a_variant_for_programs() {
        let json = scale().json().expect("JSON");
        for name in [
            "routes-100000-direct",
            "environments-1000-relay",
            "connections-50000-relay",
            "connections-1-none",
        ] {
            assert!(json["variants"][name]["p50_us"].is_number(), "{name}");
        }
        let again: Scale = serde_json::from_value(json).expect("as it was");
        assert_eq!(again.routes.len(), 2);
    }
}
