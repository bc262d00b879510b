//! `picop explain`.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;

use super::{client, colours, print, print_json};
use crate::{
    admin::{
        api::encoded,
        explain::{Candidate, Explanation},
    },
    cli::ask::ExplainArgs,
};

/// Says what would become of a connection, and why.
pub fn explain(args: &ExplainArgs) -> Result<()> {
    let mut path = format!("/v1/explain?from={}&to={}", encoded(&args.from), encoded(&args.to));
    if let Some(environment) = &args.env {
        write!(path, "&environment={}", encoded(environment)).expect("writing to a string");
    }
    let explanation: Explanation = client(&args.ask)?.get(&path)?;
    if args.ask.json { print_json(&explanation) } else { print(&render(&explanation, colours())) }
}

/// Backends that are shown.
const BACKENDS: usize = 10;

fn render(it: &Explanation, colours: bool) -> String {
    let (bold, off) = if colours { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a string");
    let service = it.service.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    line(format!("{} -> {}{service}, routes version {}", it.workload, it.destination, it.routes_version));
    line(String::new());
    for rule in &it.rules {
        let (mark, answer) = if rule.holds { (">", "yes") } else { (" ", "no") };
        line(format!("{mark} {:<6} {answer:<3} {:<22} {}", rule.by, rule.rule, rule.asks));
    }
    line(String::new());
    let way = match it.path.as_str() {
        "passthrough" => "left alone",
        "relay" if it.waits.is_some() => "waits at the agent",
        other => other,
    };
    line(format!("{bold}{way}{off}: {}", reason(it)));
    line(format!("environment: {} ({})", it.environment.as_deref().unwrap_or("none"), it.env_source));
    line(format!("header: {}", it.header));
    for candidate in it.backends.iter().take(BACKENDS) {
        line(format!("backend: {}", backend(candidate)));
    }
    if it.backends.len() > BACKENDS {
        line(format!("and {} more backends", it.backends.len() - BACKENDS));
    }
    if let Some(waits) = &it.waits {
        let time = Duration::from_millis(waits.at_most_ms);
        line(format!("waits: {time:?} at most ({}), from when its environment is known, until:", waits.of));
        waits.ends.iter().for_each(|end| line(format!("  {end}")));
    }
    for note in &it.notes {
        line(format!("note: {note}"));
    }
    for otherwise in &it.otherwise {
        line(format!("if {}: {}", otherwise.change, otherwise.then));
    }
    out
}

fn reason(it: &Explanation) -> String {
    if it.reason == it.kernel_reason {
        it.reason.clone()
    } else {
        format!("{}, then {}", it.kernel_reason, it.reason)
    }
}

fn backend(candidate: &Candidate) -> String {
    let passed_over = if candidate.passed_over { ", failed a moment ago: passed over" } else { "" };
    format!("{} ({:.1}%{passed_over})", candidate.address, candidate.share * 100.0)
}
