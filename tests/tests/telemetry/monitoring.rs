//! What is in manifests/monitoring: that Prometheus takes it, and that an agent has the metrics that it asks for.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use testbed::{http, require_privilege, wait_until};

use crate::scene::{Result, SOON, Scene, connect, served};

fn monitoring() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests/monitoring")
}

/// Runs promtool where the files are; what it says if it does not like them.
fn promtool(args: &[&str]) -> Result<std::result::Result<(), String>> {
    let output = Command::new("promtool").args(args).current_dir(monitoring()).output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok(if output.status.success() { Ok(()) } else { Err(said) })
}

/// The queries of the dashboard, with values for its variables.
fn queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(monitoring().join("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().ok_or("panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let fill = |query: &str| {
        let filled = query.replace("$__rate_interval", "5m");
        ["$instance", "$service", "$environment"].iter().fold(filled, |query, name| query.replace(name, ".*"))
    };
    Ok(targets.filter_map(|target| target["expr"].as_str()).map(fill).collect())
}

/// Names of picop's metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("picop_")).map(str::to_owned).collect()
}

#[test]
fn prometheus_takes_rules_and_queries() -> Result {
    promtool(&["check", "rules", "alerts.yaml"])??;
    promtool(&["test", "rules", "alerts.test.yaml"])??;
    let queries = queries()?;
    assert!(queries.len() > 10, "{queries:?}");
    let dir = std::env::temp_dir().join(format!("picop-queries-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let file = dir.join("queries.yaml");
    let check = |queries: &[String]| -> Result<std::result::Result<(), String>> {
        let mut rules = "groups: [{name: dashboard, rules: [".to_owned();
        for (number, query) in queries.iter().enumerate() {
            write!(rules, "{{record: 'q:{number}', expr: {}}}, ", Value::from(query.as_str()))?;
        }
        fs::write(&file, format!("{rules}]}}]\n"))?;
        promtool(&["check", "rules", &file.display().to_string()])
    };
    let taken = check(&queries)?;
    let control = check(&["sum by (picop_routes_version".to_owned()])?;
    fs::remove_dir_all(&dir)?;
    taken?;
    assert!(control.is_err(), "what is no query was taken");
    Ok(())
}

#[test]
fn an_agent_has_what_is_asked_for() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("monitoring")?;
    let agent = scene.agent(&["--metrics", "127.0.0.1:0"], &[])?;
    let at = served(&agent, "--metrics")?;
    connect(&scene, &scene.instrumented, scene.cart, 1, &[("Env-Id", "pr-1")])?;
    connect(&scene, &scene.member, scene.cart, 1, &[])?;
    let has = wait_until("the connection's end", SOON, || {
        let text = http::text(at, "/metrics", "").ok()?;
        text.contains("picop_connections_closed_total{").then(|| names(&text))
    })?;
    let alerts = fs::read_to_string(monitoring().join("alerts.yaml"))?;
    let wanted: BTreeSet<_> =
        queries()?.iter().flat_map(|query| names(query)).chain(names(&alerts)).collect();
    assert!(wanted.len() > 10, "{wanted:?}");
    let missing: Vec<_> = wanted.difference(&has).collect();
    assert!(missing.is_empty(), "asked for, and not there: {missing:?}");
    Ok(())
}
