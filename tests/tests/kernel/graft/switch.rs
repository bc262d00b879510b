//! A reader that is slower than the writer: the target fills, messages go to the agent, and the graft is found again. No
//! application ever hangs.

use serde_json::Value;
use testbed::require_privilege;

use super::{CONNECTIONS, Grafted};
use crate::common::{Result, emulated, scaled};

/// Enough to be over the budget many times, if the graft is found again each time.
const CARRIED: usize = 24_000_000;
/// More than fits into the target once: it was redirected again after a fall-back.
const CAME_BACK: u32 = 4 << 20;
/// A writer that is always ahead, and a reader that takes breaks: over the budget and back.
#[test]
fn falls_back_and_comes_back_under_a_continuous_writer() -> Result {
    require_privilege!(Ok(()));
    let it = Grafted::new("graft-switch")?;
    let mut fell_back = 0;
    for mode in ["blocking", "level", "edge"] {
        for up in [true, false] {
            let mut lines = Vec::new();
            let came_back = loop {
                let line = falls_back_and_perhaps_comes_back(&it, mode, up)?;
                fell_back +=
                    u32::from(line["graft_passes"].as_str().is_some_and(|p| p.contains("over_budget")));
                let grafted = &line[if up { "grafted_up" } else { "grafted_down" }];
                let came_back = grafted.as_u64().is_some_and(|bytes| bytes > CAME_BACK.into());
                lines.push(line);
                if came_back || lines.len() == CONNECTIONS {
                    break came_back;
                }
            };
            assert!(came_back, "{mode}, up {up}: {lines:#?}");
        }
    }
    // A writer that got no CPU while its reader stalled never fills the target; not all of them, unless emulated.
    assert!(fell_back > 0 || emulated(), "nothing was ever over the budget");
    Ok(())
}

/// One such connection, and its access line.
fn falls_back_and_perhaps_comes_back(it: &Grafted, mode: &str, up: bool) -> Result<Value> {
    // Scaled down as all others are, it would fit into the target.
    let size = scaled(CARRIED).max(2 * CAME_BACK as usize);
    let writes = format!("--send {size} --max-write 65536 --mode {mode}");
    let reads = format!(
        "--expect {size} --end late --read-pause-us 1000 --max-read 1000000 --stall-ms 700 --mode {mode}"
    );
    let (client, server) = if up { (writes, reads) } else { (reads, writes) };
    let listening = it.serve(&server)?;
    let outcome = it.exchange(&listening, 0, &client)?;
    outcome.whole();
    Ok(outcome.line.clone())
}

/// Nobody reads for a while. The writer waits as for a slow server; then all of it arrives.
#[test]
fn a_stalled_reader() -> Result {
    require_privilege!(Ok(()));
    let it = Grafted::new("graft-stalled")?;
    let size = scaled(40_000_000);
    for mode in ["blocking", "level", "edge"] {
        let server =
            it.serve(&format!("--expect {size} --end late --mode {mode} --stall-ms 1500 --max-read 65536"))?;
        let client = format!("--send {size} --mode {mode} --max-write 65536");
        let outcome = it.exchange(&server, 0, &client)?;
        outcome.whole();
        // As many as TCP itself would answer, not a storm.
        assert!(outcome.client.would_block < 20_000, "{:?}", outcome.client);
    }
    Ok(())
}
