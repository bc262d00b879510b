//! What the demo shows.

use serde_json::{Value, json};

use super::ask::{Row, SERVICES};
use super::proof::Proof;
use super::switch::Switch;

/// The table: environment, and per service the instance and why.
pub fn print_table(rows: &[Row]) {
    let mut cells = vec![vec!["client".to_owned(), "environment".to_owned()]];
    cells[0].extend(SERVICES.map(str::to_owned));
    for row in rows {
        let mut line = vec![row.client.to_owned(), row.environment.unwrap_or("(none)").to_owned()];
        line.extend(row.hops.iter().map(|hop| hop.instance.clone()));
        cells.push(line);
        let mut why = vec![String::new(), String::new()];
        why.extend(row.hops.iter().map(|hop| format!("  {} ({})", hop.reason, hop.source)));
        cells.push(why);
    }
    let widths: Vec<usize> = (0..cells[0].len())
        .map(|column| cells.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0))
        .collect();
    println!();
    for line in &cells {
        let padded: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("  {}", padded.join("  ").trim_end());
    }
    println!("\n  Below each instance: why picop chose it (and where it had the environment from).\n");
}

/// The bytes redis counted.
pub fn print_proof(proof: &Proof) {
    println!();
    for counted in &proof.counted {
        println!(
            "  {}: {} commands and this question are {} bytes, and it counted {}",
            counted.instance, counted.commands, counted.expected, counted.bytes
        );
    }
    println!(
        "  so redis got no header. (A command with a header, sent past picop, counts {} bytes and gets no answer.)\n",
        proof.control_bytes
    );
}

/// The change under traffic.
pub fn print_switch(switch: &Switch) {
    println!(
        "
  {} requests, {} failed: {} served by the old cart, {} by the new one
  the new routes were in effect {:.1} ms after the file changed
  the first request that reached the new cart started {:.1} ms after the change,
  the last one that reached the old cart started {:.1} ms after it
",
        switch.requests,
        switch.failed,
        switch.by_old,
        switch.by_new,
        switch.in_effect_ms,
        switch.first_new_ms,
        switch.last_old_ms
    );
}

/// Everything, for programs.
pub fn json(rows: &[Row], proof: &Proof, switch: &Switch, (build, total): (f64, f64), kept: bool) -> Value {
    let table: Vec<_> = rows.iter().map(row).collect();
    let counted = proof.counted.iter().map(|c| {
        json!({ "instance": c.instance, "commands": c.commands, "bytes": c.bytes, "expected_bytes": c.expected })
    });
    json!({
        "ok": true,
        "table": table,
        "redis": { "counted": counted.collect::<Vec<_>>(), "control_bytes": proof.control_bytes },
        "switch": {
            "requests": switch.requests,
            "failed": switch.failed,
            "by_old": switch.by_old,
            "by_new": switch.by_new,
            "in_effect_ms": switch.in_effect_ms,
            "first_new_ms": switch.first_new_ms,
            "last_old_ms": switch.last_old_ms,
        },
        "seconds": { "build": build, "total": total },
        "kept": kept,
    })
}

fn row(row: &Row) -> Value {
    let mut value = json!({ "client": row.client, "environment": row.environment });
    for (service, hop) in SERVICES.iter().zip(&row.hops) {
        value[service] = json!({
            "instance": hop.instance, "reason": hop.reason, "env_source": hop.source, "header": hop.header,
        });
    }
    value
}
