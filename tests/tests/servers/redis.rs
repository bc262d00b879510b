//! redis: the client speaks first, and the server would take a header for commands.

mod streams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use testbed::{Pod, Proc, wait_until};

use crate::Result;
use crate::programs::require;
use crate::scene::{ENV, HEADER_LEN, Scene, ask, attempt, carried, command};

pub const PORT: u16 = 6379;
const GET_WHO: [&str; 2] = ["GET", "who"];

/// Bounds what a server takes to get, or to push, what it was sent.
const PUSHED: Duration = Duration::from_secs(20);

/// A redis in `pod` whose key `who` says which it is.
fn serve(scene: &Scene, pod: &Pod, who: &str) -> Result<Proc> {
    let mut server = command(pod, "redis-server", ["--port", "6379", "--bind", "*", "-::*", "--save", ""])?;
    server.args(["--protected-mode", "no", "--appendonly", "no", "--daemonize", "no", "--dir"]);
    server.arg(scene.dir(&format!("redis-{who}"))?);
    let mut proc = pod.spawn("redis", server)?;
    proc.wait_for_port(PORT)?;
    ensure!(ask(pod, "redis-cli", ["SET", "who", who])? == "OK\n");
    Ok(proc)
}

/// Both instances of the service.
pub fn serve_both(scene: &Scene) -> Result<[Proc; 2]> {
    Ok([serve(scene, &scene.base, "base")?, serve(scene, &scene.variant, ENV)?])
}

/// redis-cli in `pod`, pointed at `to`.
pub fn cli(pod: &Pod, to: SocketAddr, args: &[&str]) -> Result<String> {
    ask(pod, "redis-cli", at(to).iter().map(String::as_str).chain(args.iter().copied()))
}

/// What points redis' clients at `to`.
pub fn at(to: SocketAddr) -> [String; 4] {
    ["-h".to_owned(), to.ip().to_string(), "-p".to_owned(), to.port().to_string()]
}

/// How many bytes a command is on the wire.
pub fn wire_len(command: &[&str]) -> u64 {
    let part = |part: &&str| format!("${}\r\n{part}\r\n", part.len()).len();
    (format!("*{}\r\n", command.len()).len() + command.iter().map(part).sum::<usize>()) as u64
}

/// A section of a server's own account, asked for from within its pod.
pub fn info(server: &Pod, section: &str) -> Result<BTreeMap<String, String>> {
    let text = ask(server, "redis-cli", ["INFO", section])?;
    let entry = |line: &str| line.trim_end().split_once(':').map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok(text.lines().filter_map(entry).collect())
}

/// Lets a server count from nothing.
pub fn reset_counts(server: &Pod) -> Result {
    ensure!(ask(server, "redis-cli", ["CONFIG", "RESETSTAT"])? == "OK\n");
    Ok(())
}

/// The bytes a server got since [`reset_counts`], apart from this question.
fn bytes_got(server: &Pod) -> Result<u64> {
    let stats = info(server, "stats")?;
    let total: u64 = stats.get("total_net_input_bytes").context("redis counts its bytes")?.parse()?;
    Ok(total - wire_len(&["INFO", "stats"]))
}

pub fn calls(server: &Pod, command: &str) -> Result<u64> {
    let stats = info(server, "commandstats")?;
    let Some(stat) = stats.get(&format!("cmdstat_{command}")) else { return Ok(0) };
    let calls = stat.split(',').find_map(|part| part.strip_prefix("calls="));
    Ok(calls.context("redis counts calls")?.parse()?)
}

/// Checks that a server got just these bytes since [`reset_counts`], and understood them.
pub fn assert_got(server: &Pod, bytes: u64, how: &str) -> Result {
    assert_eq!(bytes_got(server)?, bytes, "bytes that redis got, {how}");
    let errors = info(server, "errorstats")?;
    assert!(errors.is_empty(), "{how}: {errors:?}");
    Ok(())
}

#[test]
fn a_workloads_environment_picks_the_database() -> Result {
    require!("redis-server", "redis-cli");
    let scene = Scene::new("redis-env", PORT, "strip")?;
    let _servers = serve_both(&scene)?;
    for to in [scene.vip4, scene.vip6] {
        let args = at(to).into_iter().chain(GET_WHO.map(str::to_owned));
        let lost = attempt(&scene.stranger, "redis-cli", args)?;
        assert!(!lost.status.success() && lost.stderr.contains("Could not connect"), "{lost:?}");

        reset_counts(&scene.variant)?;
        assert_eq!(cli(&scene.member, to, &GET_WHO)?, "pr-1\n", "{to}");
        assert_got(&scene.variant, wire_len(&GET_WHO), "by the workload's environment")?;
        assert_eq!(cli(&scene.member, to, &["SET", "cart", "3 apples"])?, "OK\n");
    }
    for line in scene.access(4, "variant")? {
        assert_eq!((&line["env_source"], &line["header"]), (&"workload".into(), &"strip".into()), "{line}");
        carried(&line)?;
    }
    assert_eq!(ask(&scene.variant, "redis-cli", ["GET", "cart"])?, "3 apples\n");
    assert_eq!(ask(&scene.base, "redis-cli", ["EXISTS", "cart"])?, "0\n");
    scene.finish()
}

#[test]
fn a_header_picks_the_database_and_stays_with_the_agent() -> Result {
    require!("redis-server", "redis-cli");
    let scene = Scene::new("redis-header", PORT, "strip")?;
    let _servers = serve_both(&scene)?;
    for to in [scene.vip4, scene.vip6] {
        reset_counts(&scene.base)?;
        assert_eq!(cli(&scene.instrumented, to, &GET_WHO)?, "base\n", "{to}");
        assert_got(&scene.base, wire_len(&GET_WHO), "without a header")?;
    }
    for (way, to, _forward) in scene.forwards()? {
        reset_counts(&scene.variant)?;
        assert_eq!(cli(&scene.instrumented, to, &GET_WHO)?, "pr-1\n", "{way}");
        assert_got(&scene.variant, wire_len(&GET_WHO), way)?;
    }
    for line in scene.access(2, "no_environment")? {
        assert_eq!(carried(&line)?, Some((wire_len(&GET_WHO), "$4\r\nbase\r\n".len() as u64)), "{line}");
    }
    for line in scene.access(3, "variant")? {
        assert_eq!((&line["env_source"], &line["header"]), (&"header".into(), &"strip".into()), "{line}");
        assert_eq!(carried(&line)?, Some((wire_len(&GET_WHO), "$4\r\npr-1\r\n".len() as u64)), "{line}");
    }
    scene.finish()
}

/// What `strip` is for, and that the counts above would show a header. To redis it is a command without an end: it answers
/// neither that nor the one behind it.
#[test]
fn redis_is_stuck_at_a_header_that_is_propagated() -> Result {
    require!("redis-server", "redis-cli");
    let scene = Scene::new("redis-propagate", PORT, "propagate")?;
    let _servers = serve_both(&scene)?;
    let (_forward, by_header) = scene.forward(scene.vip4, false)?;
    for (pod, to) in [(&scene.instrumented, by_header), (&scene.member, scene.vip4)] {
        reset_counts(&scene.variant)?;
        let args = at(to).into_iter().chain(GET_WHO.map(str::to_owned));
        let mut client = pod.spawn("stuck", command(pod, "redis-cli", args)?)?;
        let mut asked = 0;
        wait_until("redis to get header and command", PUSHED, || {
            let got = bytes_got(&scene.variant).ok()? - asked * wire_len(&["INFO", "stats"]);
            asked += 1;
            (got == HEADER_LEN + wire_len(&GET_WHO)).then_some(())
        })?;
        // redis has one thread: what it got before this question, it has dealt with.
        assert_eq!(calls(&scene.variant, "get")?, 0);
        assert!(client.try_wait()?.is_none() && client.stdout().is_empty(), "{}", client.stdout());
    }
    scene.set_header("strip")?;
    assert_eq!(cli(&scene.instrumented, by_header, &GET_WHO)?, "pr-1\n");
    scene.finish()
}
