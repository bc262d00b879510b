//! How grafted connections end.

use testbed::require_privilege;

use super::Grafted;
use crate::common::{Result, scaled};

/// Half-closes at many points, after sizes that a seed decides; the other side goes on.
#[test]
fn half_close_at_any_point() -> Result {
    require_privilege!(Ok(()));
    let it = Grafted::new("graft-half-close")?;
    for (mode, server_mode) in [("edge", "blocking"), ("blocking", "edge"), ("sequential", "level")] {
        let server =
            it.serve(&format!("--send 3000000 --expect 1000000 --mode {server_mode} --read-pause-us 200"))?;
        for round in 0..scaled(20) {
            let seed = round * 7 + 1;
            let client =
                format!("--send 1000000 --expect 3000000 --mode {mode} --seed {seed} --write-pause-us 200");
            it.exchange(&server, round, &client)?.whole();
        }
    }
    Ok(())
}

/// Closes right after its last write: a slow server still gets every byte.
#[test]
fn close_right_after_a_write() -> Result {
    require_privilege!(Ok(()));
    let it = Grafted::new("graft-close")?;
    for mode in ["blocking", "edge"] {
        for (number, size) in [10_000, 300_000, 2_000_000, 6_000_000].into_iter().enumerate() {
            let server = it.serve(&format!(
                "--expect {size} --end late --read-pause-us 2000 --stall-ms 100 --mode {mode}"
            ))?;
            let client = format!("--send {size} --end close --mode {mode} --seed {number}");
            let outcome = it.exchange(&server, 0, &client)?;
            assert!(
                outcome.client.ok && outcome.server.ok,
                "{:?} {:?} {}",
                outcome.client,
                outcome.server,
                outcome.line
            );
        }
    }
    Ok(())
}

/// A client that resets: the server gets a true beginning, and then a reset, never an end.
#[test]
fn a_clients_reset() -> Result {
    require_privilege!(Ok(()));
    let it = Grafted::new("graft-reset")?;
    for round in 0..scaled(20) {
        let size = 1000 + round * 333_333;
        let server = it.serve(&format!("--expect {} --end late --read-pause-us 500", size + 1))?;
        let client = format!("--send {size} --end reset --mode edge --seed {round}");
        let outcome = it.exchange(&server, 0, &client)?;
        let met = outcome.server.error.as_deref();
        assert_eq!(met, Some("Io(ConnectionReset)"), "{:?} {}", outcome.server, outcome.line);
        assert!(!outcome.server.eof && outcome.server.received <= size as u64, "{:?}", outcome.server);
    }
    Ok(())
}

/// A server that resets while the client is being redirected into its connection: the client's own send may be what is told
/// of it, and must not be the only one.
#[test]
fn a_servers_reset() -> Result {
    require_privilege!(Ok(()));
    let it = Grafted::new("graft-server-resets")?;
    for (round, mode) in ["blocking", "edge", "level"].into_iter().cycle().take(scaled(20)).enumerate() {
        let size = 1 + round * 50_000;
        let server = it.serve(&format!("--send {size} --end reset"))?;
        let client = format!("--send 100000000 --expect 100000000 --mode {mode} --seed {round}");
        let outcome = it.exchange(&server, 0, &client)?;
        let client = &outcome.client;
        let told = client
            .error
            .as_deref()
            .is_some_and(|e| e.contains("ConnectionReset") || e.contains("BrokenPipe"));
        assert!(told, "{client:?} {}", outcome.line);
        // A socket tells once: of two threads, the one that was not told finds the end of the stream.
        assert!(mode == "blocking" || !client.eof, "{client:?} {}", outcome.line);
        // Told by its own send, the client may have been gone before the agent looked; and the first server resets so soon that
        // it may not count as having taken the connection.
        let ended = outcome.line["outcome"].as_str();
        let known = matches!(ended, Some("upstream_reset" | "client_reset" | "upstream_failed"));
        assert!(known, "{}", outcome.line);
    }
    Ok(())
}
