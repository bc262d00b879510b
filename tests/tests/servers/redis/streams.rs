//! redis under load, with streams of commands, and when it is the server that speaks.

use std::fs;

use anyhow::Context as _;
use testbed::{blob, eventually, hex, wait_until};

use super::{PORT, PUSHED, assert_got, at, calls, cli, info, reset_counts, serve_both, wire_len};
use crate::Result;
use crate::programs::require;
use crate::scene::{Scene, ask, carried, command, feed};

#[test]
fn a_benchmark_meets_no_error() -> Result {
    const REQUESTS: u64 = 48_000;
    require!("redis-server", "redis-cli", "redis-benchmark");
    let scene = Scene::new("redis-bench", PORT, "strip")?;
    let _servers = serve_both(&scene)?;
    let (_forward, by_header) = scene.forward(scene.vip6, false)?;
    for (pod, to) in [(&scene.member, scene.vip4), (&scene.instrumented, by_header)] {
        reset_counts(&scene.variant)?;
        let requests = REQUESTS.to_string();
        let more = ["-P", "16", "-c", "20", "-n", &requests, "-t", "set,get", "--csv"].map(str::to_owned);
        let report = ask(pod, "redis-benchmark", at(to).into_iter().chain(more))?;
        let rates = report.lines().filter(|line| line.starts_with("\"SET\"") || line.starts_with("\"GET\""));
        assert_eq!(rates.count(), 2, "{report}");
        for command in ["set", "get"] {
            assert_eq!(calls(&scene.variant, command)?, REQUESTS, "{command} at {to}");
        }
        assert!(info(&scene.variant, "errorstats")?.is_empty());
    }
    assert_eq!(calls(&scene.base, "get")?, 0);
    // The forwarder's share alone: more than 40 connections.
    scene.access(80, "variant")?;
    let astray: Vec<_> =
        scene.agent.access_lines().into_iter().filter(|l| l["reason"] != "variant").collect();
    assert!(astray.is_empty(), "{astray:?}");
    scene.finish()
}

#[test]
fn thousands_of_piped_commands_arrive_to_the_byte() -> Result {
    const COUNT: usize = 20_000;
    // What `redis-cli --pipe` sends at the end, to learn that all before it was answered.
    let last_len = 2 + wire_len(&["ECHO", "01234567890123456789"]);
    require!("redis-server", "redis-cli");
    let scene = Scene::new("redis-pipe", PORT, "strip")?;
    let _servers = serve_both(&scene)?;
    let input = scene.cluster.dir().join("commands");
    let commands = (0..COUNT).map(|n| {
        let (key, value) = (format!("key:{n}"), format!("{n:0100}"));
        format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len())
    });
    let commands: String = commands.collect();
    fs::write(&input, &commands).context("writing the commands")?;
    let sent = commands.len() as u64 + last_len;

    let (_forward, by_header) = scene.forward(scene.vip4, true)?;
    for (pod, to) in [(&scene.member, scene.vip6), (&scene.instrumented, by_header)] {
        ask(&scene.variant, "redis-cli", ["FLUSHALL"])?;
        reset_counts(&scene.variant)?;
        let piped = feed(
            pod,
            command(pod, "redis-cli", at(to).iter().map(String::as_str).chain(["--pipe"]))?,
            &input,
        )?;
        assert!(piped.stdout.contains(&format!("errors: 0, replies: {COUNT}")), "{piped:?}");
        assert_got(&scene.variant, sent, "piped")?;
        assert_eq!(ask(&scene.variant, "redis-cli", ["DBSIZE"])?, format!("{COUNT}\n"));
    }
    for line in scene.access(2, "variant")? {
        assert_eq!(carried(&line)?.map_or(sent, |(up, _)| up), sent, "{line}");
    }
    assert_eq!(ask(&scene.base, "redis-cli", ["DBSIZE"])?, "1\n");
    scene.finish()
}

#[test]
fn a_large_value_goes_there_and_back_unchanged() -> Result {
    require!("redis-server", "redis-cli");
    let scene = Scene::new("redis-large", PORT, "strip")?;
    let _servers = serve_both(&scene)?;
    let mut bytes = vec![0; 4_000_000];
    blob::fill(0, &mut bytes);
    let (value, input) = (hex::encode(&bytes), scene.cluster.dir().join("value"));
    fs::write(&input, &value).context("writing the value")?;
    let (_forward, by_header) = scene.forward(scene.vip4, false)?;
    for (pod, to) in [(&scene.member, scene.vip4), (&scene.instrumented, by_header)] {
        ask(&scene.variant, "redis-cli", ["FLUSHALL"])?;
        let args = at(to).into_iter().chain(["-x", "SET", "large"].map(str::to_owned));
        feed(pod, command(pod, "redis-cli", args)?, &input)?;
        // Not by `assert_eq`: nobody wants to read 8 MB.
        assert!(ask(&scene.variant, "redis-cli", ["GET", "large"])?.trim_end() == value, "set through {to}");
        assert!(cli(pod, to, &["GET", "large"])?.trim_end() == value, "got through {to}");
    }
    scene.finish()
}

#[test]
fn a_monitor_sees_what_others_do_to_its_database_only() -> Result {
    require!("redis-server", "redis-cli");
    let scene = Scene::new("redis-monitor", PORT, "strip")?;
    let _servers = serve_both(&scene)?;
    let args = at(scene.vip4).into_iter().chain(["MONITOR".to_owned()]);
    let monitor = scene.member.spawn("monitor", command(&scene.member, "redis-cli", args)?)?;
    wait_until("MONITOR's OK", PUSHED, || monitor.stdout().starts_with("OK").then_some(()))?;
    ask(&scene.base, "redis-cli", ["SET", "other", "1"])?;
    for n in 0..20 {
        ask(&scene.variant, "redis-cli", ["SET", "mine", &n.to_string()])?;
    }
    let all = eventually(PUSHED, || monitor.stdout().contains(r#""SET" "mine" "19""#));
    let seen = monitor.stdout();
    assert!(all, "{seen}");
    assert_eq!(seen.matches(r#""SET" "mine""#).count(), 20, "{seen}");
    assert!(!seen.contains("other"), "{seen}");
    scene.finish()
}

#[test]
fn a_subscriber_gets_every_message_in_order() -> Result {
    const MESSAGES: usize = 5_000;
    require!("redis-server", "redis-cli");
    let scene = Scene::new("redis-pubsub", PORT, "strip")?;
    let _servers = serve_both(&scene)?;
    let (_forward, by_header) = scene.forward(scene.vip6, false)?;
    let args = at(by_header).into_iter().chain(["SUBSCRIBE", "news"].map(str::to_owned));
    let subscriber =
        scene.instrumented.spawn("subscriber", command(&scene.instrumented, "redis-cli", args)?)?;
    let subscribers = || ask(&scene.variant, "redis-cli", ["PUBSUB", "NUMSUB", "news"]);
    wait_until("a subscriber", PUSHED, || (subscribers().ok()? == "news\n1\n").then_some(()))?;
    assert_eq!(ask(&scene.base, "redis-cli", ["PUBSUB", "NUMSUB", "news"])?, "news\n0\n");

    let input = scene.cluster.dir().join("messages");
    let messages: Vec<_> = (0..MESSAGES).map(|n| format!("PUBLISH news message-{n}\r\n")).collect();
    fs::write(&input, messages.concat()).context("writing the messages")?;
    feed(&scene.variant, command(&scene.variant, "redis-cli", ["--pipe"])?, &input)?;

    let last = format!("message-{}\n", MESSAGES - 1);
    assert!(eventually(PUSHED, || subscriber.stdout().ends_with(&last)), "{}", subscriber.stdout());
    let got = subscriber.stdout();
    let got: Vec<_> = got.lines().filter(|line| line.starts_with("message-")).collect();
    let expected: Vec<_> = (0..MESSAGES).map(|n| format!("message-{n}")).collect();
    assert!(got == expected, "{} of {MESSAGES}, or not in order", got.len());
    scene.finish()
}
