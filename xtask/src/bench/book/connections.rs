//! The parts of the suites `connect` and `relay`, from their JSON.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::super::doc::Section;
use super::super::report::table::interval;

/// Of `connect`.
pub fn connect(result: &Value) -> Result<Section> {
    let mut section = Section::new("A connection (`connect`)");
    section.text(
        "Connect, 1 kB there, 1 kB back, close, one after the other. `direct-strip`: the kernel routes; `direct-propagate`: and \
         writes the header; `relay`: the client sends a header, the agent reads it and carries the bytes.",
    );
    let rows = variants(result)?.iter().map(|(name, of)| {
        let none = name == "none";
        let beside = |key: &str, digits| if none { String::new() } else { triple(of, key, digits) };
        [
            name.clone(),
            number(of, "p50_us", 1),
            number(of, "p99_us", 1),
            beside("ratio_p50", 3),
            number(of, "per_second", 0),
            number(of, "cpu_us_per_conn", 1),
            beside("added_cpu_us_per_conn", 1),
        ]
    });
    section.table(
        "by path",
        ["", "p50 us", "p99 us", "p50 to none [95%]", "connections/s", "CPU us", "CPU more us [95%]"],
        rows,
    );
    Ok(section)
}

/// Of `relay`.
pub fn relay(result: &Value) -> Result<Section> {
    let mut section = Section::new("What carries the bytes (`relay`)");
    section.text(
        "picop's relay, with and without graft, beside nginx (stream), HAProxy (mode tcp, also told to splice) and Envoy \
         (tcp_proxy), between the same client and server.",
    );
    let variants = variants(result)?;
    let mut rows = Vec::new();
    for (name, of) in variants {
        for (clients, of) in by_clients(of) {
            let none = name == "none";
            let beside = |key: &str| if none { String::new() } else { triple(of, key, 1) };
            rows.push([
                name.clone(),
                clients,
                number(of, "p50_us", 1),
                beside("added_p50_us"),
                number(of, "p99_us", 1),
                number(of, "per_second", 0),
                number(of, "proxy_cpu_us_per_conn", 1),
                number(of, "cpu_us_per_conn", 1),
            ]);
        }
    }
    rows.sort_by_key(|row| row[1].parse::<u32>().unwrap_or(0));
    section.table(
        "connections with one request each",
        [
            "",
            "clients",
            "p50 us",
            "p50 more us [95%]",
            "p99 us",
            "connections/s",
            "proxy CPU us",
            "all CPU us",
        ],
        rows,
    );
    let mut rows = Vec::new();
    for (name, of) in variants {
        for (clients, of) in of["keepalive"].as_object().into_iter().flatten() {
            rows.push([
                name.clone(),
                clients.clone(),
                number(of, "p50_us", 1),
                number(of, "p99_us", 1),
                number(of, "per_second", 0),
                number(of, "proxy_cpu_us_per_request", 1),
            ]);
        }
    }
    rows.sort_by_key(|row| row[1].parse::<u32>().unwrap_or(0));
    if !rows.is_empty() {
        section.table(
            "requests over lasting connections",
            ["", "connections", "p50 us", "p99 us", "requests/s", "proxy CPU us"],
            rows,
        );
    }
    let streams = variants.iter().filter(|(_, of)| of["gb_per_s"].is_object()).map(|(name, of)| {
        let way = |key: &str, way: &str, digits| number(&of[key], way, digits);
        [
            name.clone(),
            way("gb_per_s", "up", 2),
            way("gb_per_s", "down", 2),
            way("cpu_s_per_gb", "up", 3),
            way("cpu_s_per_gb", "down", 3),
        ]
    });
    section.table(
        "a stream over one connection",
        ["", "GB/s up", "GB/s down", "CPU s/GB up", "CPU s/GB down"],
        streams,
    );
    let idle = variants
        .iter()
        .filter(|(_, of)| of["rss_per_conn"].is_number())
        .map(|(name, of)| [name.clone(), number(of, "rss_per_conn", 0), number(of, "pss_per_conn", 0)]);
    section.table("memory for each idle connection", ["", "RSS bytes", "PSS bytes"], idle);
    Ok(section)
}

/// A suite's variants.
pub fn variants(result: &Value) -> Result<&Map<String, Value>> {
    result["variants"].as_object().context("it has no variants")
}

/// Of a variant of `relay`, or of its clients at once: the one client's figures are the variant's own.
pub fn by_clients(of: &Value) -> Vec<(String, &Value)> {
    let own = of["p50_us"].is_number().then_some(("1".to_owned(), of));
    let more = of["clients"].as_object().into_iter().flatten().map(|(clients, of)| (clients.clone(), of));
    own.into_iter().chain(more).collect()
}

fn number(of: &Value, key: &str, digits: usize) -> String {
    of[key].as_f64().map(|value| format!("{value:.digits$}")).unwrap_or_default()
}

fn triple(of: &Value, key: &str, digits: usize) -> String {
    let at = |n: usize| of[key].get(n)?.as_f64();
    let all = || Some([at(0)?, at(1)?, at(2)?]);
    all().map(|all| interval(all, digits)).unwrap_or_default()
}
