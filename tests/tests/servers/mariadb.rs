//! MariaDB: the server speaks first.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use testbed::{Cluster, Output, Pod, Proc};

use crate::Result;
use crate::programs::require;
use crate::routes::SNIFF;
use crate::scene::{ENV, Scene, ask, attempt, carried, command, feed};

pub const PORT: u16 = 3306;
pub const WHO: &str = "SELECT name FROM shop.who";

/// A data directory with the system's tables, to be copied: making one takes seconds.
pub fn install(cluster: &Cluster, pod: &Pod) -> Result<PathBuf> {
    let template = cluster.dir().join("mariadb-template");
    let dir = format!("--datadir={}", template.display());
    let args =
        ["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db", &dir];
    ask(pod, "mariadb-install-db", args.into_iter().chain(SMALL))?;
    Ok(template)
}

const SMALL: [&str; 3] =
    ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0"];

/// A MariaDB in `pod` whose table `shop.who` says which it is.
pub fn serve(cluster: &Cluster, template: &Path, pod: &Pod, who: &str) -> Result<Proc> {
    let dir = cluster.dir().join(format!("mariadb-{who}"));
    ask(pod, "cp", ["-a".as_ref(), template, &dir])?;
    let init = dir.with_extension("sql");
    // One statement a line.
    let statements = format!(
        "CREATE USER app@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON *.* TO app@'%';\nCREATE DATABASE shop;\n\
         CREATE TABLE shop.who (name VARCHAR(20));\nINSERT INTO shop.who VALUES ('{who}');\n\
         CREATE TABLE shop.cart (id INT PRIMARY KEY, what VARCHAR(200));\n"
    );
    fs::write(&init, statements).context("writing MariaDB's first statements")?;
    let mut server = command(pod, "mariadbd", ["--no-defaults", "--user=root", "--skip-name-resolve"])?;
    server.args(SMALL).args(["--performance-schema=OFF", "--bind-address=*"]).arg(format!("--port={PORT}"));
    server.arg(format!("--datadir={}", dir.display())).arg(format!("--init-file={}", init.display()));
    server
        .arg(format!("--socket={}", dir.join("sock").display()))
        .arg(format!("--pid-file={}", dir.join("pid").display()));
    let mut proc = pod.spawn("mariadbd", server)?;
    proc.wait_for_port(PORT)?;
    Ok(proc)
}

/// What points the client at `to`, as a user with a password.
pub fn at(to: SocketAddr) -> Vec<String> {
    let fixed = [
        "--no-defaults",
        "--protocol=tcp",
        "--skip-ssl",
        "--user=app",
        "--password=secret",
        "--connect-timeout=20",
    ];
    let to = [format!("--host={}", to.ip()), format!("--port={}", to.port())];
    let batch = ["--batch", "--skip-column-names", "--max-allowed-packet=64M"];
    fixed.map(str::to_owned).into_iter().chain(to).chain(batch.map(str::to_owned)).collect()
}

pub fn try_query(pod: &Pod, to: SocketAddr, sql: &str) -> Result<Output> {
    attempt(pod, "mariadb", at(to).into_iter().chain([format!("--execute={sql}")]))
}

pub fn query(pod: &Pod, to: SocketAddr, sql: &str) -> Result<String> {
    Ok(try_query(pod, to, sql)?.success()?.stdout)
}

#[test]
fn mariadb_is_picked_by_workload_by_header_and_by_default() -> Result {
    const ROWS: usize = 5_000;
    require!("mariadbd", "mariadb-install-db", "mariadb");
    let scene = Scene::new("mariadb", PORT, "strip")?;
    let template = install(&scene.cluster, &scene.stranger)?;
    let _servers = [
        serve(&scene.cluster, &template, &scene.base, "base")?,
        serve(&scene.cluster, &template, &scene.variant, ENV)?,
    ];

    // Nothing is expected of these clients, so nothing is waited for.
    for to in [scene.vip4, scene.vip6] {
        assert_eq!(query(&scene.member, to, WHO)?, "pr-1\n", "{to}");
    }
    // These might send a header. They wait for the server, which is not asked before the agent has given up on them.
    for to in [scene.vip4, scene.vip6] {
        assert_eq!(query(&scene.instrumented, to, WHO)?, "base\n", "{to}");
    }
    for line in scene.access(2, "no_environment")? {
        carried(&line)?;
        assert!(line["duration_us"].as_u64().map(u128::from) >= Some(SNIFF.as_micros()), "{line}");
    }
    for (way, to, _forward) in scene.forwards()? {
        assert_eq!(query(&scene.instrumented, to, WHO)?, "pr-1\n", "{way}");
    }
    for line in scene.access(5, "variant")? {
        assert_eq!(line["header"], "strip", "{line}");
        carried(&line)?;
    }

    // A script of thousands of statements, and a result of some size.
    let script = scene.cluster.dir().join("script.sql");
    let inserts = (0..ROWS).map(|n| format!("INSERT INTO shop.cart VALUES ({n}, REPEAT('x', 100));\n"));
    fs::write(&script, format!("BEGIN;\n{}COMMIT;\n", inserts.collect::<String>()))
        .context("writing a script")?;
    feed(&scene.member, command(&scene.member, "mariadb", at(scene.vip4))?, &script)?;
    let large = query(&scene.member, scene.vip6, "SELECT REPEAT('picop', 1600000)")?;
    assert!(large.trim_end() == "picop".repeat(1_600_000), "{} bytes", large.len());

    // What was written in the environment is there and nowhere else; no server met anything but its own protocol.
    let count = "SELECT COUNT(*) FROM shop.cart";
    let aborted = "SHOW GLOBAL STATUS LIKE 'Aborted_connects'";
    for (server, rows) in [(&scene.base, 0), (&scene.variant, ROWS)] {
        assert_eq!(query(&scene.stranger, server.at4(PORT), count)?, format!("{rows}\n"));
        assert_eq!(query(&scene.stranger, server.at4(PORT), aborted)?, "Aborted_connects\t0\n");
    }

    // What `strip` is for.
    scene.set_header("propagate")?;
    let (_forward, by_header) = scene.forward(scene.vip4, false)?;
    for (pod, to) in [(&scene.instrumented, by_header), (&scene.member, scene.vip4)] {
        let refused = try_query(pod, to, WHO)?;
        assert!(!refused.status.success(), "MariaDB read its own protocol in a header: {refused:?}");
    }
    assert_eq!(query(&scene.stranger, scene.variant.at4(PORT), aborted)?, "Aborted_connects\t2\n");
    scene.finish()
}
