//! `picop connections`.

use std::{fmt::Write as _, thread, time::Duration};

use anyhow::Result;

use super::{
    client, colours, print, print_json,
    table::{Table, bytes, duration_ms, maybe},
};
use crate::{
    admin::{
        api::encoded,
        views::connections::{Connection, Connections},
    },
    cli::ask::ConnectionsArgs,
};

/// How often `--watch` asks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows the connections that are open.
pub fn connections(args: &ConnectionsArgs) -> Result<()> {
    let mut client = client(&args.ask)?;
    let path = path(args);
    loop {
        let found: Connections = client.get(&path)?;
        if args.ask.json {
            print_json(&found)?;
        } else {
            // From the upper left corner, over what was there.
            let clear = if args.watch && colours() { "\u{1b}[H\u{1b}[2J" } else { "" };
            print(&format!("{clear}{}", render(&found, colours())))?;
        }
        if !args.watch {
            return Ok(());
        }
        thread::sleep(INTERVAL);
    }
}

fn path(args: &ConnectionsArgs) -> String {
    let given = [("environment", &args.env), ("service", &args.service), ("workload", &args.workload)];
    let mut path = "/v1/connections?".to_owned();
    for (key, value) in given {
        if let Some(value) = value {
            write!(path, "{key}={}&", encoded(value)).expect("writing to a string");
        }
    }
    path
}

fn render(found: &Connections, colours: bool) -> String {
    let mut table = Table::new(&[
        "PATH",
        "STATE",
        "WORKLOAD",
        "CLIENT",
        "SERVICE",
        "ENVIRONMENT",
        "BACKEND",
        "UP",
        "DOWN",
        "AGE",
        "RTT",
        "REASON",
    ]);
    for it in &found.connections {
        table.row(row(it));
    }
    let mut out = table.render(colours);
    let direct = found.connections.iter().filter(|it| it.path == "direct").count();
    let relayed = found.connections.len() - direct;
    writeln!(out, "{direct} direct, {relayed} relayed").expect("writing to a string");
    for problem in &found.problems {
        writeln!(out, "warning: {problem}").expect("writing to a string");
    }
    out
}

fn row(it: &Connection) -> Vec<String> {
    vec![
        it.path.clone(),
        it.state.clone(),
        it.workload.clone(),
        it.client.clone(),
        maybe(it.service.as_ref().or(it.original.as_ref())),
        maybe(it.environment.as_ref()),
        maybe(it.backend.as_ref()),
        bytes(it.bytes_up),
        bytes(it.bytes_down),
        it.age_ms.map(duration_ms).unwrap_or_default(),
        it.rtt_us.map(|us| format!("{us}us")).unwrap_or_default(),
        maybe(it.reason.as_ref()),
    ]
}
