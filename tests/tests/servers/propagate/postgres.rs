//! psql and pgbench, and a server behind a socket in the file system.

use std::fs;
use std::net::SocketAddr;

use anyhow::Context as _;
use testbed::{Output, Pod, Verdict};

use super::{Propagate, scene};
use crate::Result;
use crate::postgres::{PASSWORD, WHO, client, mapped, psql, serve_both, socket, try_psql};
use crate::programs::require;
use crate::scene::{ENV, PATIENCE, command, feed};

/// The service's; PostgreSQL itself has its own.
const PORT: u16 = 5433;

/// Runs pgbench in `pod` against the service at `to`.
fn pgbench(pod: &Pod, to: SocketAddr, args: &[&str]) -> Result<Output> {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let at = ["-h", &host, "-p", &port, "-U", "app"];
    let mut command = command(pod, "pgbench", at.iter().chain(args).chain(&["postgres"]))?;
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "20");
    pod.run(command, PATIENCE)?.success()
}

#[test]
fn psql_and_pgbench() -> Result {
    const ROWS: usize = 50_000;
    require!("postgres", "initdb", "psql", "pgbench", "setpriv");
    let scene = scene("propagate-postgres", PORT)?;
    let _servers = serve_both(&scene)?;
    let (base, variant) = (socket(&scene, "base"), socket(&scene, ENV));
    let it = Propagate::at_paths(scene, &base, &variant)?;
    let (v4, v6) = (it.scene.vip4, it.scene.vip6);

    let rows = it.scene.cluster.dir().join("rows");
    let text =
        (0..ROWS).map(|n| format!("{n}\tapples and pears, {n} of them\n")).collect::<Vec<_>>().concat();
    fs::write(&rows, &text).context("writing rows")?;
    for (pod, who) in it.clients() {
        for to in [v4, v6, mapped(v4)] {
            assert_eq!(psql(pod, to, WHO)?, format!("{who}\n"), "{to}");
        }
        // Rows in, rows out: the same.
        let mut copy = client(pod, v4)?;
        copy.args(["-c", "COPY cart FROM STDIN"]);
        feed(pod, copy, &rows)?;
        let back = psql(pod, v6, "COPY (SELECT * FROM cart ORDER BY id) TO STDOUT")?;
        assert!(back == text, "{} bytes came back of {}", back.len(), text.len());
        it.check(pod, 5)?;

        pgbench(pod, v4, &["--initialize", "--quiet", "--no-vacuum"])?;
        // On connections that stay, and on one for each transaction.
        let runs: [(_, &[&str]); 2] =
            [(v4, &["-c", "4", "-t", "100"]), (v6, &["-c", "2", "-t", "50", "--connect"])];
        for (to, how) in runs {
            let report = pgbench(pod, to, &[how, &["--no-vacuum"]].concat())?.stdout;
            let done = report.lines().find_map(|line| line.split_once("processed: "));
            let (done, wanted) = done.and_then(|(_, of)| of.split_once('/')).context("pgbench counts")?;
            assert_eq!(done, wanted, "{report}");
            assert!(report.contains("number of failed transactions: 0 "), "{report}");
        }
        // What all of these transactions did adds up.
        let sums = "SELECT (SELECT count(*) FROM pgbench_history), \
             (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), \
             (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers)";
        assert_eq!(psql(pod, v4, sums)?, "500|t|t\n");
        it.check(pod, 5 + 1 + 4 + 100 + 1)?;
    }
    it.notices(Verdict::NoHeader, |pod, to| Ok(try_psql(pod, to, WHO)?.status.success()))?;
    it.scene.finish()
}
