//! redis-cli and redis-benchmark: one command at a time, and sixteen at once.

use std::fs;

use anyhow::Context as _;
use testbed::Verdict;

use super::{Propagate, Sum, scene};
use crate::Result;
use crate::programs::require;
use crate::redis::{self, assert_got, at, calls, cli, info, reset_counts, wire_len};
use crate::scene::{ask, attempt, command, feed};

/// The service's; redis itself has its own.
const PORT: u16 = 6380;
const GET_WHO: [&str; 2] = ["GET", "who"];

#[test]
fn redis_clients() -> Result {
    const PIPED: usize = 20_000;
    const REQUESTS: u64 = 16_000;
    require!("redis-server", "redis-cli", "redis-benchmark");
    let scene = scene("propagate-redis", PORT)?;
    let _servers = redis::serve_both(&scene)?;
    let it = Propagate::new(scene, redis::PORT)?;

    let input = it.scene.cluster.dir().join("commands");
    let set = |n| {
        let (key, value) = (format!("key:{n}"), format!("{n:0100}"));
        format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len())
    };
    let commands = (0..PIPED).map(set).collect::<String>();
    fs::write(&input, &commands).context("writing the commands")?;
    // What `redis-cli --pipe` sends at the end, to learn that all before it was answered.
    let piped_len = commands.len() as u64 + 2 + wire_len(&["ECHO", "01234567890123456789"]);

    for ((pod, who), server) in it.clients().into_iter().zip([&it.scene.variant, &it.scene.base]) {
        let (v4, v6) = (it.scene.vip4, it.scene.vip6);
        // Every byte that the server gets is a command's.
        reset_counts(server)?;
        for to in [v4, v6] {
            assert_eq!(cli(pod, to, &GET_WHO)?, format!("{who}\n"), "{to}");
        }
        assert_got(server, 2 * wire_len(&GET_WHO), "by redis-cli")?;
        let down = 2 * format!("${}\r\n{who}\r\n", who.len()).len() as u64;
        let sum = Sum { connections: 2, up: 2 * wire_len(&GET_WHO), down };
        assert_eq!(it.check(pod, 2)?, sum);

        reset_counts(server)?;
        let to = at(v6);
        let args = to.iter().map(String::as_str).chain(["--pipe"]);
        let piped = feed(pod, command(pod, "redis-cli", args)?, &input)?;
        assert!(piped.stdout.contains(&format!("errors: 0, replies: {PIPED}")), "{piped:?}");
        assert_got(server, piped_len, "piped")?;
        assert_eq!(ask(server, "redis-cli", ["DBSIZE"])?, format!("{}\n", PIPED + 1));

        // Sixteen commands in each first write, and none of them lost or done twice.
        reset_counts(server)?;
        let requests = REQUESTS.to_string();
        let more = ["-P", "16", "-c", "25", "-n", &requests, "--csv", "INCR", "count"].map(str::to_owned);
        ask(pod, "redis-benchmark", at(v4).into_iter().chain(more))?;
        assert_eq!(calls(server, "incr")?, REQUESTS);
        assert_eq!(ask(server, "redis-cli", ["GET", "count"])?, format!("{REQUESTS}\n"));
        assert!(info(server, "errorstats")?.is_empty());
        it.check(pod, 2 + 1 + 25)?;
    }
    it.notices(Verdict::NoHeader, |pod, to| {
        let args = at(to).into_iter().chain(GET_WHO.map(str::to_owned));
        Ok(attempt(pod, "redis-cli", args)?.stdout.contains("pr-1"))
    })?;
    it.scene.finish()
}
