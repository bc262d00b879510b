//! Metrics: that Prometheus' own parsers take them, that they add up, and that nobody gets more of them than is good.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Command, Stdio};

use testbed::{Asked, http, require_privilege, wait_until};

use crate::scene::{Result, SOON, Scene, connect, served};

/// Samples by name and labels, as they are written.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(of, value)| Some((of.to_owned(), value.parse().ok()?)))
        .collect()
}

/// Those of a family whose labels contain all of these.
fn sum(samples: &BTreeMap<String, f64>, family: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |of: &str| {
        let named = of.strip_prefix(family).is_some_and(|rest| rest.starts_with('{') || rest.is_empty());
        named && labels.iter().all(|(name, value)| of.contains(&format!("{name}=\"{value}\"")))
    };
    samples.iter().filter(|(of, _)| fits(of)).map(|(_, value)| value).sum()
}

#[test]
fn every_connection_is_accounted_for() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("metrics")?;
    let agent = scene.agent(&["--metrics", "127.0.0.1:0"], &[])?;
    let at = served(&agent, "--metrics")?;
    let before = samples(&http::text(at, "/metrics", "")?);

    // What the clients count is what there is to be counted.
    let variant = connect(&scene, &scene.member, scene.cart, 300, &[])?;
    let shared = connect(&scene, &scene.member, scene.db, 200, &[])?;
    let refused = connect(&scene, &scene.member, scene.billing, 100, &[])?;
    let relayed = connect(&scene, &scene.instrumented, scene.cart, 400, &[("Env-Id", "pr-1")])?;
    let unknown = connect(&scene, &scene.instrumented, scene.cart, 50, &[("Env-Id", "unheard-of")])?;
    let reset = connect(&scene, &scene.instrumented, scene.billing, 30, &[("Env-Id", "pr-1")])?;
    let all = |answers: &[String], wanted: &str| answers.iter().filter(|answer| *answer == wanted).count();
    let (to_variant, to_base) = (scene.variant.to_string(), scene.base.to_string());
    assert_eq!(all(&variant, &to_variant), 300);
    assert_eq!(all(&shared, &to_base), 200);
    assert_eq!(all(&refused, "refused"), 100);
    assert_eq!(all(&relayed, &to_variant), 400);
    assert_eq!(all(&unknown, &to_base), 50);
    assert_eq!(all(&reset, "reset"), 30);

    // A connection is counted as closed a moment after its client has seen the end.
    let now = wait_until("all connections to be counted as closed", SOON, || {
        let now = samples(&http::text(at, "/metrics", "").ok()?);
        (sum(&now, "picop_connections_closed_total", &[]) >= 480.0 + 500.0).then_some(now)
    })?;
    let more =
        |family: &str, labels: &[(&str, &str)]| sum(&now, family, labels) - sum(&before, family, labels);
    let opened = "picop_connections_opened_total";
    let of = |service, environment, reason, path| {
        [("service", service), ("environment", environment), ("reason", reason), ("path", path)]
    };
    for (labels, count) in [
        (of("cart", "pr-1", "variant", "direct"), 300.0),
        (of("db", "pr-1", "no_variant", "direct"), 200.0),
        (of("billing", "pr-1", "variant_empty_refused", "refused"), 100.0),
        (of("cart", "pr-1", "variant", "relay"), 400.0),
        (of("cart", "unheard-of", "unknown_environment", "relay"), 50.0),
        (of("billing", "pr-1", "variant_empty_refused", "relay"), 30.0),
    ] {
        assert!(
            (more(opened, &labels) - count).abs() < 0.5,
            "{labels:?}: {} of {count}",
            more(opened, &labels)
        );
    }
    // Those are all: nothing is counted twice, or as somebody else's. (The canary's are nobody's.)
    assert!((more(opened, &[]) - 1080.0).abs() < 0.5, "{} opened", more(opened, &[]));
    let closed = "picop_connections_closed_total";
    assert!((more(closed, &[("outcome", "ok")]) - 450.0).abs() < 0.5);
    assert!((more(closed, &[("outcome", "refused")]) - 30.0).abs() < 0.5);
    assert!((more(closed, &[("path", "relay")]) - 480.0).abs() < 0.5);
    // Direct ones by the kernel.
    assert!((more(closed, &[("path", "direct"), ("outcome", "closed")]) - 500.0).abs() < 0.5);
    assert!((more(closed, &[]) - 980.0).abs() < 0.5);
    // The kernel's own counters say the same, where the canary has no part.
    for (reason, count) in
        [("variant", 300.0), ("no_variant", 200.0), ("variant_empty_refused", 100.0), ("relay_header", 480.0)]
    {
        let counted = more("picop_kernel_connections_total", &[("reason", reason)]);
        assert!((counted - count).abs() < 0.5, "{reason}: {counted}");
    }
    // Bytes: an `x` from each that was answered, and the answer with its line end.
    let bytes = |direction| more("picop_bytes_total", &[("path", "relay"), ("direction", direction)]);
    assert!((bytes("up") - 450.0).abs() < 0.5, "{}", bytes("up"));
    #[expect(clippy::cast_precision_loss, reason = "a few thousand bytes")]
    let down = ((to_variant.len() + 1) * 400 + (to_base.len() + 1) * 50) as f64;
    assert!((bytes("down") - down).abs() < 0.5, "{} of {down}", bytes("down"));
    let direct = |direction| more("picop_bytes_total", &[("path", "direct"), ("direction", direction)]);
    assert!((direct("up") - 500.0).abs() < 0.5, "{}", direct("up"));
    #[expect(clippy::cast_precision_loss, reason = "a few thousand bytes")]
    let down = ((to_variant.len() + 1) * 300 + (to_base.len() + 1) * 200) as f64;
    assert!((direct("down") - down).abs() < 0.5, "{} of {down}", direct("down"));
    for histogram in ["picop_setup_seconds_count", "picop_upstream_connect_seconds_count"] {
        assert!((more(histogram, &[]) - 450.0).abs() < 0.5, "{histogram}");
    }
    assert!((more("picop_header_wait_seconds_count", &[]) - 480.0).abs() < 0.5);
    assert!((sum(&now, "picop_workloads", &[("state", "managed")]) - 2.0).abs() < 0.5);
    for gauge in ["picop_interception_live", "process_resident_memory_bytes", "picop_routes_version"] {
        assert!(sum(&now, gauge, &[]) > 0.0, "{gauge}");
    }
    Ok(())
}

#[test]
fn prometheus_takes_both_formats() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("formats")?;
    let agent = scene.agent(&["--metrics", "127.0.0.1:0"], &[])?;
    let at = served(&agent, "--metrics")?;
    connect(&scene, &scene.instrumented, scene.cart, 5, &[("Env-Id", "pr-1")])?;
    connect(&scene, &scene.member, scene.cart, 5, &[])?;

    let dir = scene.cluster.dir();
    let file = dir.join("metrics.txt");
    fs::write(&file, http::text(at, "/metrics", "")?)?;
    let checked = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::from(File::open(&file)?))
        .output()?;
    let said = String::from_utf8([checked.stdout, checked.stderr].concat())?;
    assert!(checked.status.success(), "{said}\n{}", fs::read_to_string(&file)?);

    // There is no check of OpenMetrics alone; what makes blocks of it has to parse it, and wants times.
    let text = http::text(at, "/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n")?;
    assert!(text.ends_with("# EOF\n"), "{text}");
    let timed: String = text
        .lines()
        .map(|line| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1700000000\n") })
        .collect();
    let file = dir.join("openmetrics.txt");
    fs::write(&file, &timed)?;
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &dir.join("blocks")])
        .output()?;
    let said = String::from_utf8([made.stdout, made.stderr].concat())?;
    assert!(made.status.success(), "{said}\n{timed}");
    // The control: without its end it is none.
    fs::write(&file, timed.trim_end_matches("# EOF\n"))?;
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &dir.join("blocks")])
        .output()?;
    assert!(!made.status.success(), "a file without an end was taken");
    Ok(())
}

#[test]
fn who_asks_where_gets_what_is_for_them() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("access")?;
    let agent = scene
        .agent(&["--metrics", "127.0.0.1:0", "--http", "127.0.0.1:0", "--metrics-max-pairs", "1"], &[])?;
    let (metrics, http) = (served(&agent, "--metrics")?, served(&agent, "--http")?);
    let status = |at, method: &str, path: &str, headers: &str, body: &[u8]| -> Result<u16> {
        Ok(http::ask(at, method, path, headers, body)?.status)
    };
    assert_eq!(http::text(metrics, "/healthz", "")?, "live\n");
    assert_eq!(status(metrics, "GET", "/v1/connections", "", b"")?, 404);
    assert_eq!(status(http, "GET", "/v1/connections", "", b"")?, 200);
    // Nothing can be changed over TCP, and nobody's browser made to ask.
    let filter = b"{\"filter\":\"off\"}";
    assert_eq!(status(http, "PUT", "/v1/log", "", filter)?, 403);
    assert_eq!(status(http, "POST", "/v1/log", "", filter)?, 405);
    assert_eq!(status(http, "GET", "/v1/trace", "", b"")?, 404);
    assert_eq!(status(http, "GET", "/v1/status", "Host: evil.example\r\n", b"")?, 403);
    assert_eq!(Asked::at(agent.admin_socket())?.get("/v1/log")?["filter"], "info");

    // One pair has a name, and the rest shares one.
    for to in [scene.cart, scene.db] {
        connect(&scene, &scene.instrumented, to, 3, &[("Env-Id", "pr-1")])?;
    }
    let counted = wait_until("all to be counted", SOON, || {
        let now = samples(&http::text(metrics, "/metrics", "").ok()?);
        (sum(&now, "picop_connections_closed_total", &[]) >= 6.0).then_some(now)
    })?;
    let of = |service| sum(&counted, "picop_connections_closed_total", &[("service", service)]);
    assert!((of("cart") - 3.0).abs() < 0.5 && (of("(other)") - 3.0).abs() < 0.5, "{counted:?}");
    Ok(())
}
