//! PostgreSQL: the client speaks first, cancels on a second connection, and is told things it did not ask for.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use testbed::{Output, Pod, Proc, wait_until};

use crate::programs::require;
use crate::scene::{ENV, PATIENCE, Scene, ask, carried, command, feed};
use crate::{Result, programs};

const PORT: u16 = 5432;
pub const WHO: &str = "SELECT name FROM who";
/// `nobody`: PostgreSQL refuses to run as root.
const USER: u32 = 65534;
pub const PASSWORD: &str = "secret";

/// A command that runs one of PostgreSQL's programs in `pod` as a user it accepts.
fn unprivileged(pod: &Pod, program: &str) -> Result<Command> {
    let user = USER.to_string();
    let mut command = command(pod, "setpriv", ["--reuid", &user, "--regid", &user, "--clear-groups", "--"])?;
    command.arg(programs::path(program)?).current_dir("/");
    Ok(command)
}

/// A data directory, to be copied: making one takes seconds.
fn install(scene: &Scene) -> Result<PathBuf> {
    // Its user must get to it.
    fs::set_permissions(scene.cluster.dir(), fs::Permissions::from_mode(0o755))
        .context("opening the cluster's directory")?;
    let (template, password) = (scene.dir("postgres-template")?, scene.cluster.dir().join("password"));
    fs::write(&password, PASSWORD).context("writing a password")?;
    for path in [&template, &password] {
        chown(path, Some(USER), Some(USER)).with_context(|| format!("giving {} away", path.display()))?;
    }
    let mut initdb = unprivileged(&scene.stranger, "initdb")?;
    initdb.args([
        "--username=app",
        "--auth=scram-sha-256",
        "--no-sync",
        "--encoding=UTF8",
        "--locale=C",
        "--pgdata",
    ]);
    initdb.arg(&template).arg("--pwfile").arg(&password);
    scene.stranger.run(initdb, PATIENCE)?.success()?;
    let hba = template.join("pg_hba.conf");
    fs::write(&hba, "host all all all scram-sha-256\nlocal all all scram-sha-256\n")
        .context("writing who may connect")?;
    Ok(template)
}

/// A PostgreSQL in `pod` whose table `who` says which it is.
fn serve(scene: &Scene, template: &Path, pod: &Pod, who: &str) -> Result<Proc> {
    let dir = scene.cluster.dir().join(format!("postgres-{who}"));
    ask(&scene.stranger, "cp", ["-a".as_ref(), template, &dir])?;
    let mut server = unprivileged(pod, "postgres")?;
    server.arg("-D").arg(&dir).args(["-c", "listen_addresses=*", "-c", "fsync=off", "-c"]);
    server.arg(format!("unix_socket_directories={}", dir.display()));
    server.args(["-c", "log_min_messages=log", "-c", "shared_buffers=16MB", "-p", &PORT.to_string()]);
    let mut proc = pod.spawn("postgres", server)?;
    proc.wait_for_port(PORT)?;
    let ready = || psql(pod, SocketAddr::new([127, 0, 0, 1].into(), PORT), "SELECT 1").ok();
    wait_until("PostgreSQL's start", Duration::from_secs(20), ready)?;
    let tables = format!("CREATE TABLE who AS SELECT '{who}' AS name; CREATE TABLE cart (id int, what text)");
    psql(pod, SocketAddr::new([127, 0, 0, 1].into(), PORT), &tables)?;
    Ok(proc)
}

/// The socket in the file system of the server that is `who`.
pub fn socket(scene: &Scene, who: &str) -> PathBuf {
    scene.cluster.dir().join(format!("postgres-{who}/.s.PGSQL.{PORT}"))
}

/// The client, pointed at `to`.
pub fn client(pod: &Pod, to: SocketAddr) -> Result<Command> {
    let (host, port) = (to.ip().to_string(), to.port().to_string());
    let args = [
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-U",
        "app",
        "-d",
        "postgres",
        "-h",
        &host,
        "-p",
        &port,
    ];
    let mut command = command(pod, "psql", args)?;
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "20");
    Ok(command)
}

pub fn try_psql(pod: &Pod, to: SocketAddr, sql: &str) -> Result<Output> {
    let mut command = client(pod, to)?;
    command.args(["-c", sql]);
    pod.run(command, PATIENCE)
}

pub fn psql(pod: &Pod, to: SocketAddr, sql: &str) -> Result<String> {
    Ok(try_psql(pod, to, sql)?.success()?.stdout)
}

/// The IPv4 address as an IPv6 socket takes it.
pub fn mapped(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => to,
    }
}

/// Both instances of the service.
pub struct Databases {
    base: Proc,
    variant: Proc,
}

pub fn serve_both(scene: &Scene) -> Result<Databases> {
    let template = install(scene)?;
    Ok(Databases {
        base: serve(scene, &template, &scene.base, "base")?,
        variant: serve(scene, &template, &scene.variant, ENV)?,
    })
}

#[test]
fn postgres_is_picked_by_workload_by_header_and_by_default() -> Result {
    const ROWS: usize = 100_000;
    require!("postgres", "initdb", "psql", "setpriv");
    let scene = Scene::new("postgres", PORT, "strip")?;
    let servers = serve_both(&scene)?;

    for to in [scene.vip4, scene.vip6, mapped(scene.vip4)] {
        assert_eq!(psql(&scene.member, to, WHO)?, "pr-1\n", "{to}");
        assert_eq!(psql(&scene.instrumented, to, WHO)?, "base\n", "{to}");
    }
    for (way, to, _forward) in scene.forwards()? {
        assert_eq!(psql(&scene.instrumented, to, WHO)?, "pr-1\n", "{way}");
    }
    for line in scene.access(3, "no_environment")?.iter().chain(&scene.access(6, "variant")?) {
        carried(line)?;
    }

    // Rows in, rows out: the same.
    let rows = scene.cluster.dir().join("rows");
    let text =
        (0..ROWS).map(|n| format!("{n}\tapples and pears, {n} of them\n")).collect::<Vec<_>>().concat();
    fs::write(&rows, &text).context("writing rows")?;
    let mut copy = client(&scene.member, scene.vip4)?;
    copy.args(["-c", "COPY cart FROM STDIN"]);
    feed(&scene.member, copy, &rows)?;
    let back = psql(&scene.member, scene.vip6, "COPY (SELECT * FROM cart ORDER BY id) TO STDOUT")?;
    assert!(back == text, "{} bytes came back of {}", back.len(), text.len());
    assert_eq!(psql(&scene.instrumented, scene.vip4, "SELECT count(*) FROM cart")?, "0\n", "the base's");

    for server in [&servers.base, &servers.variant] {
        assert!(!server.stderr().contains("invalid length of startup packet"), "{}", server.stderr());
    }
    // What `strip` is for, and that the log would tell.
    scene.set_header("propagate")?;
    let (_forward, by_header) = scene.forward(scene.vip4, false)?;
    for (pod, to) in [(&scene.instrumented, by_header), (&scene.member, scene.vip4)] {
        let refused = try_psql(pod, to, WHO)?;
        assert!(!refused.status.success(), "PostgreSQL read its own protocol in a header: {refused:?}");
    }
    assert!(
        servers.variant.stderr().contains("invalid length of startup packet"),
        "{}",
        servers.variant.stderr()
    );
    scene.finish()
}

/// A client cancels by a connection of its own, which must reach the server that it wants to stop.
#[test]
fn a_cancel_reaches_the_database_of_its_environment() -> Result {
    require!("postgres", "initdb", "psql", "setpriv");
    let scene = Scene::new("postgres-cancel", PORT, "strip")?;
    let _servers = serve_both(&scene)?;
    let mut command = client(&scene.member, scene.vip4)?;
    command.args(["-c", "SELECT pg_sleep(1000)"]);
    let mut sleeper = scene.member.spawn("sleeper", command)?;
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let variant = scene.variant.at4(PORT);
    wait_until("the query to run", Duration::from_secs(20), || {
        (psql(&scene.stranger, variant, sleeping).ok()? == "1\n").then_some(())
    })?;
    sleeper.signal(Signal::INT)?;
    assert!(!sleeper.wait(Duration::from_secs(20))?.success());
    assert!(sleeper.stderr().contains("canceling statement due to user request"), "{}", sleeper.stderr());
    scene.finish()
}
