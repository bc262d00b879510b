//! Instructions of the header codec.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{setup, workspace};

/// What is counted: the helper program's name for it, and the report's.
const JOBS: [(&str, &str); 5] = [
    ("read", "find a header of one entry, and its environment"),
    ("read-long", "find a full header of four entries, and its environment"),
    ("read-none", "see that an HTTP request has none"),
    ("write", "write a header of one entry"),
    ("write-long", "write a full header of four entries"),
];
const TIMES: u32 = 10_000;

/// Counts them, each time's.
pub fn count(hop: &Path, quick: bool) -> Result<BTreeMap<String, f64>> {
    setup::ensure_peer(setup::Peer::Valgrind)?;
    let valgrind = workspace::program("valgrind").context("there is no valgrind")?;
    let times = if quick { TIMES / 10 } else { TIMES };
    let loops = each(&valgrind, hop, "nothing", times)?;
    let mut counts = BTreeMap::new();
    for (job, name) in JOBS {
        counts.insert(name.to_owned(), ((each(&valgrind, hop, job, times)? - loops) * 10.0).round() / 10.0);
    }
    Ok(counts)
}

/// One time's: the difference between so many times and twice as many.
fn each(valgrind: &Path, hop: &Path, job: &str, times: u32) -> Result<f64> {
    let counted = |times: u32| -> Result<f64> {
        let mut command = Command::new(valgrind);
        // Its file is of no use here.
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(hop);
        command.args(["bench-codec", "--what", job, "--times", &times.to_string()]);
        let output = command.output().context("cannot start valgrind")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "valgrind failed: {said}");
        collected(&said).with_context(|| format!("valgrind does not say what it counted: {said}"))
    };
    Ok((counted(2 * times)? - counted(times)?) / f64::from(times))
}

fn collected(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.split_once("Collected : "))?.1.trim().parse().ok()
}

/// Whether `perf` can count instructions here. Virtual machines often hide the counters.
pub fn hardware_counters() -> bool {
    let Some(perf) = workspace::program("perf") else { return false };
    let output = Command::new(perf).args(["stat", "-x", ",", "-e", "instructions:u", "true"]).output();
    output.is_ok_and(|output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success()
            && said.lines().any(|line| line.split(',').next().is_some_and(|n| n.parse::<u64>().is_ok()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_what_valgrind_says() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 123456\n==7==\n"), Some(123_456.0));
        assert_eq!(collected("==7== nothing\n"), None);
    }
}
