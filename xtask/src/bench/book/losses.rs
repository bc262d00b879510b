//! Where picop is worse than what it is compared with, whatever the results say: found by rule, not by choice.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::report::table::interval;
use super::connections::by_clients;

/// Differences of single figures below this share are not told.
const TOLERANCE: f64 = 0.02;

/// All of them, as sentences.
pub fn all(results: &BTreeMap<&'static str, Value>) -> Vec<String> {
    let mut losses = Vec::new();
    let of = |suite: &str| results.get(suite);
    losses.extend(of("connect").and_then(connect));
    losses.extend(of("relay").into_iter().flat_map(relay));
    losses.extend(of("delay").into_iter().flat_map(delay));
    losses.extend(of("gateway").and_then(gateway));
    losses.extend(of("consumption").into_iter().flat_map(consumption));
    losses.extend(of("scale").into_iter().flat_map(scale));
    losses
}

/// Against nothing at all.
fn connect(result: &Value) -> Option<String> {
    let named = [
        ("passthrough", "left alone"),
        ("direct-strip", "direct"),
        ("direct-propagate", "direct with header"),
        ("relay", "relayed"),
    ];
    let slower = named.iter().filter_map(|(variant, name)| {
        let ratio = triple(&result["variants"][variant]["ratio_p50"])?;
        (ratio[0] > 1.0).then(|| format!("{name} {}", interval(ratio, 3)))
    });
    let slower: Vec<_> = slower.collect();
    (!slower.is_empty()).then(|| {
        format!(
            "Against no picop at all, a new connection takes longer (times its median, between two processes that do nothing else): {}.",
            slower.join("; ")
        )
    })
}

/// A figure of one of picop's variants that a peer's best beats.
struct Beaten {
    own: (String, f64),
    peer: (String, f64),
}

/// Compares each of picop's with the best peer, and says where it is worse. `high` says whether much is good.
fn beaten<'a>(
    figures: impl IntoIterator<Item = (&'a str, Option<f64>)>,
    is_picop: fn(&str) -> bool,
    is_peer: fn(&str) -> bool,
    high: bool,
) -> Vec<Beaten> {
    let figures: Vec<_> = figures.into_iter().filter_map(|(name, figure)| Some((name, figure?))).collect();
    let peers = figures.iter().filter(|(name, _)| is_peer(name));
    let best = peers.min_by(|a, b| if high { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) });
    let Some((peer, best)) = best else { return Vec::new() };
    let worse = |own: f64| if high { own < best * (1.0 - TOLERANCE) } else { own > best * (1.0 + TOLERANCE) };
    let own = figures.iter().filter(|(name, own)| is_picop(name) && worse(*own));
    own.map(|(name, own)| Beaten { own: ((*name).to_owned(), *own), peer: ((*peer).to_owned(), *best) })
        .collect()
}

/// What there is to say at one point.
fn at(place: &str, beaten: &[Beaten], digits: usize, unit: &str) -> Option<String> {
    let said: Vec<_> = beaten.iter().map(|beaten| beaten.said(digits, unit)).collect();
    (!said.is_empty()).then(|| format!("{place}: {}", said.join(", ")))
}

impl Beaten {
    fn said(&self, digits: usize, unit: &str) -> String {
        let Self { own: (own, a), peer: (peer, b) } = self;
        format!("{own} {a:.digits$}{unit} against {peer} {b:.digits$}{unit}")
    }
}

fn is_relay(name: &str) -> bool {
    matches!(name, "relay" | "graft")
}

fn is_proxy(name: &str) -> bool {
    matches!(name, "nginx-stream" | "haproxy" | "haproxy-splice" | "envoy")
}

/// Against the best of the proxies that carry bytes.
fn relay(result: &Value) -> Vec<String> {
    let Some(variants) = result["variants"].as_object() else { return Vec::new() };
    let mut losses = Vec::new();
    let mut tell = |what: &str, said: Vec<String>| {
        if !said.is_empty() {
            losses.push(format!("Against the best proxy for TCP, {what}: {}.", said.join("; ")));
        }
    };
    let clients = ["1", "8", "64"];
    for (what, key, unit, high) in [
        ("the median of a connection is longer", "p50_us", " us", false),
        ("the 99th percentile of a connection is longer", "p99_us", " us", false),
        ("there are fewer connections a second", "per_second", "/s", true),
        ("a connection takes the process in between more CPU", "proxy_cpu_us_per_conn", " us", false),
    ] {
        let said = clients.iter().filter_map(|clients| {
            let figure = |of: &Value| {
                let found = by_clients(of).into_iter().find(|(n, _)| n == clients);
                found.and_then(|(_, of)| of[key].as_f64())
            };
            let figures = variants.iter().map(|(name, of)| (&**name, figure(of)));
            at(&format!("{clients} at once"), &beaten(figures, is_relay, is_proxy, high), 0, unit)
        });
        tell(what, said.collect());
    }
    for (what, pointers, unit, digits, high) in [
        (
            "there are fewer requests a second over lasting connections",
            &[("1 connection", "/keepalive/1/per_second"), ("64", "/keepalive/64/per_second")][..],
            "/s",
            0,
            true,
        ),
        ("a stream is slower", &[("up", "/gb_per_s/up"), ("down", "/gb_per_s/down")], " GB/s", 2, true),
        (
            "a stream takes more CPU",
            &[("up", "/cpu_s_per_gb/up"), ("down", "/cpu_s_per_gb/down")],
            " s/GB",
            3,
            false,
        ),
        (
            "an idle connection takes more memory of the process in between",
            &[("RSS", "/rss_per_conn")],
            " bytes",
            0,
            false,
        ),
    ] {
        let said = pointers.iter().filter_map(|(place, pointer)| {
            let figures =
                variants.iter().map(|(name, of)| (&**name, of.pointer(pointer).and_then(Value::as_f64)));
            at(place, &beaten(figures, is_relay, is_proxy, high), digits, unit)
        });
        tell(what, said.collect());
    }
    losses
}

/// Against the proxies for HTTP.
fn delay(result: &Value) -> Vec<String> {
    let Some(points) = result["points"].as_object() else { return Vec::new() };
    let mut losses = Vec::new();
    let is_picop = |name: &str| matches!(name, "picop-relay" | "picop-graft");
    let is_proxy = |name: &str| matches!(name, "haproxy" | "envoy");
    let clients: Vec<_> =
        points["none"]["per_request"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
    for (how, name) in
        [("per_request", "a connection for each request"), ("keep_alive", "lasting connections")]
    {
        for (key, what) in [("p50_us", "median"), ("p99_us", "99th percentile")] {
            let said = clients.iter().filter_map(|clients| {
                let figures = points.iter().map(|(name, of)| (&**name, of[how][clients][key].as_f64()));
                at(&format!("{clients} clients"), &beaten(figures, is_picop, is_proxy, false), 0, " us")
            });
            let said: Vec<_> = said.collect();
            if !said.is_empty() {
                losses.push(format!(
                    "nginx's response time at a fixed rate with {name}, {what}, against the best proxy for HTTP: {}.",
                    said.join("; ")
                ));
            }
        }
    }
    // What PiCoP asks for, beside what a proxy for HTTP allows.
    let said = clients.iter().filter_map(|clients| {
        let figure = |name: &str, of: &Value| {
            let how = if is_picop(name) { "per_request" } else { "keep_alive" };
            of[how][clients]["p50_us"].as_f64()
        };
        let figures = points.iter().map(|(name, of)| (&**name, figure(name, of)));
        at(&format!("{clients} clients"), &beaten(figures, is_picop, is_proxy, false), 0, " us")
    });
    let said: Vec<_> = said.collect();
    if !said.is_empty() {
        losses.push(format!(
            "A connection carries one context for its life. Where requests of several environments come from one client, picop's \
             need a connection each, and those of a proxy that reads HTTP headers do not; median response times of the two: {}.",
            said.join("; ")
        ));
    }
    losses
}

/// Against the better gateway for HTTP.
fn gateway(result: &Value) -> Option<String> {
    let points = result["points"]["picop"].as_object()?;
    let said = points.iter().filter_map(|(how, point)| {
        let ratio = triple(&point["ratio_per_cpu_better"])?;
        (ratio[2] < 1.0).then(|| format!("{} {}", how.replace('_', " "), interval(ratio, 2)))
    });
    let said: Vec<_> = said.collect();
    (!said.is_empty()).then(|| {
        format!(
            "As a gateway for HTTP, picop carries fewer requests for each second of CPU time than the better of nginx and Envoy: {}.",
            said.join("; ")
        )
    })
}

/// Against a proxy for each service.
fn consumption(result: &Value) -> Vec<String> {
    let (picop, peer) = (&result["planes"]["picop-relay"], &result["planes"]["envoy-per-service"]);
    let Some(planes) = picop.as_object() else { return Vec::new() };
    let mut losses = Vec::new();
    for (how, name) in
        [("per_request", "a connection for each request"), ("keep_alive", "lasting connections")]
    {
        let mut said = Vec::new();
        for (services, plane) in planes {
            for (rate, point) in plane["points"][how].as_object().into_iter().flatten() {
                let figure = |point: &Value| point["proxy_cpu_us"].as_f64();
                let own = figure(point).map(|us| ("the agent", us));
                let theirs = figure(&peer[services]["points"][how][rate]).map(|us| ("Envoy", us));
                if let (Some((_, own)), Some((_, theirs))) = (own, theirs)
                    && own > theirs * (1.0 + TOLERANCE)
                {
                    said.push(format!("{services} services, {rate}/s: {own:.0} us against {theirs:.0} us"));
                }
            }
        }
        if !said.is_empty() {
            losses.push(format!(
                "With {name}, a relayed request takes the agent more CPU than one takes a service's own Envoy: {}.",
                said.join("; ")
            ));
        }
    }
    for (services, plane) in planes {
        let bytes = |plane: &Value| {
            let of = |key: &str| plane["after"][key].as_f64();
            Some((of("rss")? + of("maps")?) / f64::from(1 << 20))
        };
        if let (Some(own), Some(theirs)) = (bytes(plane), bytes(&peer[services]))
            && own > theirs * (1.0 + TOLERANCE)
        {
            losses.push(format!(
                "With {services} services the agent and its maps take more memory than the services' own Envoys: {own:.0} MiB against {theirs:.0} MiB."
            ));
        }
    }
    losses
}

/// Against itself when there is little.
fn scale(result: &Value) -> Vec<String> {
    let mut losses = Vec::new();
    for (what, name) in [("routes", "routes"), ("environments", "environments")] {
        let Some(table) = result[what].as_array().and_then(|tables| tables.last()) else { continue };
        let number = |key: &str| table[key].as_f64().unwrap_or(0.0);
        let size = if what == "routes" {
            number("services") * number("environments")
        } else {
            number("environments")
        };
        let slower: Vec<_> = ["direct", "relay"]
            .iter()
            .filter_map(|path| {
                let ratio = triple(&table["timings"][path]["ratio_p50"])?;
                (ratio[0] > 1.0 + TOLERANCE).then(|| format!("{path} {}", interval(ratio, 2)))
            })
            .collect();
        if !slower.is_empty() {
            losses.push(format!(
                "With {size:.0} {name}, a connection takes longer than with one: {}.",
                slower.join("; ")
            ));
        }
        let slowest = table["updates_ms"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .fold(0.0, f64::max);
        if slowest > 1000.0 {
            losses.push(format!(
                "With {size:.0} {name}, a change of the route file took up to {:.1} s to arrive, as the whole file is read and the \
                 whole table made anew; the agent's memory is then {:.0} MiB.",
                slowest / 1000.0,
                number("agent_rss_kb") / 1024.0
            ));
        }
    }
    let held: Vec<_> = result["connections"].as_array().into_iter().flatten().collect();
    let most = held.iter().filter_map(|held| held["connections"].as_u64()).max();
    let slower = held.iter().filter(|held| held["connections"].as_u64() == most).filter_map(|held| {
        let ratio = triple(&held["timing"]["ratio_p50"])?;
        let path = held["path"].as_str()?;
        (ratio[0] > 1.0 + TOLERANCE).then(|| format!("{path} {}", interval(ratio, 2)))
    });
    let slower: Vec<_> = slower.collect();
    if let (Some(most), false) = (most, slower.is_empty()) {
        losses.push(format!(
            "Beside {most} idle connections, another one takes longer than beside one (`none` is what the kernel does by itself): {}.",
            slower.join("; ")
        ));
    }
    losses
}

fn triple(value: &Value) -> Option<[f64; 3]> {
    let at = |n: usize| value.get(n)?.as_f64();
    Some([at(0)?, at(1)?, at(2)?])
}
