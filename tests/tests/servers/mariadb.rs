//! MariaDB and MySQL: the server speaks first.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use testbed::mysql::{Engine, Line, on_each_engine};
use testbed::{Cluster, Output, Pod, Proc};

use crate::Result;
use crate::programs::require;
use crate::routes::SNIFF;
use crate::scene::{ENV, PATIENCE, Scene, ask, attempt, carried, command, feed};

pub const PORT: u16 = 3306;
pub const WHO: &str = "SELECT name FROM shop.who";

/// A server's data directory, to be copied: making one takes seconds.
pub struct Template {
    engine: Engine,
    dir: PathBuf,
}

impl Template {
    pub fn new(engine: &Engine, cluster: &Cluster, pod: &Pod) -> Result<Self> {
        let dir = cluster.dir().join("database-template");
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        pod.run(command_line(pod, engine.install(&dir))?, PATIENCE)?.success()?;
        Ok(Self { engine: engine.clone(), dir })
    }

    /// A server in `pod` whose table `shop.who` says which it is.
    pub fn serve(&self, cluster: &Cluster, pod: &Pod, who: &str) -> Result<Proc> {
        let dir = cluster.dir().join(format!("database-{who}"));
        ask(pod, "cp", ["-a".as_ref(), &*self.dir, &dir])?;
        // One statement a line.
        let statements = format!(
            "CREATE USER app@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON *.* TO app@'%';\nCREATE DATABASE shop;\n\
             CREATE TABLE shop.who (name VARCHAR(20));\nINSERT INTO shop.who VALUES ('{who}');\n\
             CREATE TABLE shop.cart (id INT PRIMARY KEY, what VARCHAR(200));\n"
        );
        fs::write(dir.join("init.sql"), statements).context("writing a database's first statements")?;
        let mut server = command_line(pod, self.engine.serve(&dir))?;
        server.args(["--skip-name-resolve", "--bind-address=*", &format!("--port={PORT}")]);
        let mut proc = pod.spawn("database", server)?;
        proc.wait_for_port(PORT)?;
        Ok(proc)
    }
}

fn command_line(pod: &Pod, Line { program, args }: Line) -> Result<Command> {
    let mut command = pod.command(program)?;
    command.args(args);
    Ok(command)
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

on_each_engine!(a_database_is_picked_by_workload_by_header_and_by_default);

fn a_database_is_picked_by_workload_by_header_and_by_default(engine: &Engine) -> Result {
    const ROWS: usize = 5_000;
    require!("mariadb");
    let scene = Scene::new("mariadb", PORT, "strip")?;
    let template = Template::new(engine, &scene.cluster, &scene.stranger)?;
    let _servers = [
        template.serve(&scene.cluster, &scene.base, "base")?,
        template.serve(&scene.cluster, &scene.variant, ENV)?,
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
        assert!(!refused.status.success(), "a database read its own protocol in a header: {refused:?}");
    }
    assert_eq!(query(&scene.stranger, scene.variant.at4(PORT), aborted)?, "Aborted_connects\t2\n");
    scene.finish()
}
