//! `picop top`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use super::{
    client, colours, print, print_json,
    table::{Table, bytes},
};
use crate::{admin::views::matrix::Usage, cli::ask::TopArgs};

/// What a row is about: service and environment.
type Of = (String, String);

/// What happened between two looks, by service and environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Row {
    service: String,
    environment: String,
    /// Connections a second.
    connections: f64,
    /// Of them, by path.
    paths: BTreeMap<String, f64>,
    /// Payload bytes a second of relayed connections that have ended.
    bytes: f64,
}

/// Shows who uses what, busiest first.
pub fn top(args: &TopArgs) -> Result<()> {
    let mut client = client(&args.ask)?;
    let interval = Duration::from_secs(args.interval.max(1));
    let mut before: (Instant, Usage) = (Instant::now(), client.get("/v1/usage")?);
    loop {
        thread::sleep(interval);
        let now = (Instant::now(), client.get("/v1/usage")?);
        let rows = between(&before.1, &now.1, now.0.duration_since(before.0));
        if args.ask.json {
            print_json(&rows)?;
        } else {
            // From the upper left corner, over what was there.
            let clear = if colours() && !args.once { "\u{1b}[H\u{1b}[2J" } else { "" };
            print(&format!("{clear}{}", render(&rows, &now.1, args.rows, colours())))?;
        }
        if args.once {
            return Ok(());
        }
        before = now;
    }
}

#[expect(clippy::cast_precision_loss, reason = "differences of counters are small")]
fn between(before: &Usage, now: &Usage, passed: Duration) -> Vec<Row> {
    let rate = |count: u64| count as f64 / passed.as_secs_f64();
    let mut rows: BTreeMap<Of, Row> = BTreeMap::new();
    let mut row = |service: &str, environment: &str, add: &dyn Fn(&mut Row)| {
        add(rows.entry((service.to_owned(), environment.to_owned())).or_insert_with(|| Row {
            service: service.to_owned(),
            environment: environment.to_owned(),
            ..Row::default()
        }));
    };
    for it in &now.connections {
        let same = |old: &&crate::admin::views::matrix::Used| {
            (&old.service, &old.environment, &old.path, &old.reason)
                == (&it.service, &it.environment, &it.path, &it.reason)
        };
        let more = it.count.saturating_sub(before.connections.iter().find(same).map_or(0, |old| old.count));
        row(&it.service, &it.environment, &|row| {
            row.connections += rate(more);
            *row.paths.entry(it.path.clone()).or_default() += rate(more);
        });
    }
    for it in &now.bytes {
        let same = |old: &&crate::admin::views::matrix::Carried| {
            (&old.service, &old.environment, &old.path, &old.direction)
                == (&it.service, &it.environment, &it.path, &it.direction)
        };
        let more = it.bytes.saturating_sub(before.bytes.iter().find(same).map_or(0, |old| old.bytes));
        row(&it.service, &it.environment, &|row| row.bytes += rate(more));
    }
    let mut rows: Vec<_> =
        rows.into_values().filter(|row| row.connections > 0.0 || row.bytes > 0.0).collect();
    rows.sort_by(|a, b| b.connections.total_cmp(&a.connections));
    rows
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of bytes, not negative")]
fn render(rows: &[Row], usage: &Usage, most: usize, colours: bool) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "ENVIRONMENT",
        "CONN/S",
        "DIRECT",
        "RELAY",
        "LEFT ALONE",
        "REFUSED",
        "BYTES/S",
        "SETUP P99",
    ]);
    for it in rows.iter().take(most) {
        let path = |name: &str| it.paths.get(name).map(|rate| format!("{rate:.1}")).unwrap_or_default();
        let p99 = usage.setup.get(&it.service).filter(|of| of.count > 0);
        table.row(vec![
            it.service.clone(),
            it.environment.clone(),
            format!("{:.1}", it.connections),
            path("direct"),
            path("relay"),
            path("passthrough"),
            path("refused"),
            bytes(it.bytes as u64),
            p99.map(|of| format!("{:.0}us", of.p99 * 1e6)).unwrap_or_default(),
        ]);
    }
    let mut out = table.render(colours);
    if rows.len() > most {
        writeln!(out, "and {} more", rows.len() - most).expect("writing to a string");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::views::matrix::Used;

    #[test]
    fn rates_are_of_what_is_new() {
        let used = |path: &str, count| Used {
            service: "cart".into(),
            environment: "pr-1".into(),
            path: path.into(),
            reason: "variant".into(),
            count,
        };
        let before = Usage { connections: vec![used("direct", 10)], ..Usage::default() };
        let now = Usage { connections: vec![used("direct", 30), used("relay", 5)], ..Usage::default() };
        let rows = between(&before, &now, Duration::from_secs(2));
        assert_eq!(rows.len(), 1);
        assert!((rows[0].connections - 12.5).abs() < 1e-9 && (rows[0].paths["direct"] - 10.0).abs() < 1e-9);
        assert!(between(&now, &now, Duration::from_secs(1)).is_empty());
        assert!(render(&rows, &now, 10, false).contains("12.5"));
    }
}
