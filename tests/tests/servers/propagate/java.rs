//! Java, whose sockets are dual-stack and whose ways to wait are three: blocking, by selector, and its HTTP client's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use testbed::{Output, Pod, Proc, Verdict};

use super::{Propagate, Sum, scene};
use crate::Result;
use crate::nginx::Nginx;
use crate::programs::require;
use crate::scene::{PATIENCE, Scene, ask, command};

/// The service's; its servers have their own.
const PORT: u16 = 80;
const BEHIND: u16 = 8080;
const SOURCE: &str = include_str!("Client.java");

/// The compiled client's directory.
fn compile(scene: &Scene) -> Result<PathBuf> {
    let dir = scene.dir("java")?;
    let source = dir.join("Client.java");
    fs::write(&source, SOURCE).context("writing Client.java")?;
    ask(&scene.stranger, "javac", ["-d".as_ref(), dir.as_path(), &source])?;
    Ok(dir)
}

/// What `Client` is to do: the way, the service's address, how many connections or requests, and of what size (or whom it
/// should reach).
type Run<'a> = (&'a str, SocketAddr, usize, &'a str);

/// Runs `Client` in `pod`.
fn java(pod: &Pod, classes: &Path, runs: &[Run<'_>]) -> Result<Output> {
    // It lives for a second: no compiler of more than one stage, no threads for collecting garbage.
    let mut command = command(pod, "java", ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])?;
    command.arg(classes).arg("Client");
    for (way, to, count, last) in runs {
        let (host, port, count) = (to.ip().to_string(), to.port().to_string(), count.to_string());
        command.args([way, host.as_str(), &port, &count, last]);
    }
    pod.run(command, PATIENCE)
}

#[test]
fn java_sockets_and_channels() -> Result {
    require!("java", "javac");
    let scene = scene("propagate-java", PORT)?;
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), BEHIND);
    let echo = |pod: &Pod| -> Result<Proc> { pod.serve::<&str>("echo", at, []) };
    let _servers = [echo(&scene.base)?, echo(&scene.variant)?];
    let classes = compile(&scene)?;
    let it = Propagate::new(scene, BEHIND)?;
    let runs = [
        ("socket", it.scene.vip4, 100, 10_000),
        ("socket", it.scene.vip6, 4, 1_000_000),
        ("channel", it.scene.vip4, 4, 1_000_000),
        ("channel", it.scene.vip6, 300, 1),
    ];
    let sizes = runs.map(|(_, _, _, size)| size.to_string());
    let asked: Vec<_> =
        runs.iter().zip(&sizes).map(|(&(way, to, count, _), size)| (way, to, count, size.as_str())).collect();
    let connections = runs.iter().map(|(_, _, count, _)| count).sum();
    let bytes = runs.iter().map(|(_, _, count, size)| (count * size) as u64).sum();
    let line =
        |(way, _, count, size): (&str, _, usize, usize)| format!("{count} {way}s, {} bytes\n", count * size);
    for (pod, _) in it.clients() {
        let output = java(pod, &classes, &asked)?.success()?;
        assert_eq!(output.stdout, runs.map(line).concat());
        assert_eq!(it.check(pod, connections)?, Sum { connections, up: bytes, down: bytes });
    }
    it.notices(Verdict::NoHeader, |pod, to| {
        Ok(java(pod, &classes, &[("socket", to, 1, "100")])?.status.success())
    })?;
    it.scene.finish()
}

/// A site that says who it is and what it was asked for, and keeps files.
fn site(who: &str) -> String {
    format!(
        "server {{
            listen 127.0.0.1:{BEHIND};
            location / {{ return 200 '{who} $uri\\n'; }}
            location /files/ {{ dav_methods PUT; create_full_put_path on; }}
        }}"
    )
}

#[test]
fn javas_http_client() -> Result {
    const REQUESTS: usize = 200;
    require!("java", "javac", "nginx");
    let scene = scene("propagate-java-http", PORT)?;
    let start = |pod, who| Nginx::start(&scene, pod, BEHIND, &site(who));
    let _sites = [start(&scene.variant, "pr-1")?, start(&scene.base, "base")?];
    let classes = compile(&scene)?;
    let it = Propagate::new(scene, BEHIND)?;
    for (pod, who) in it.clients() {
        let runs = [it.scene.vip4, it.scene.vip6].map(|to| ("http", to, REQUESTS, who));
        let output = java(pod, &classes, &runs)?.success()?;
        assert_eq!(output.stdout, format!("{} requests\n", REQUESTS + 2).repeat(2));
        it.check(pod, 2)?;
    }
    it.notices(Verdict::NoHeader, |pod, to| {
        Ok(java(pod, &classes, &[("http", to, 1, "pr-1")])?.status.success())
    })?;
    it.scene.finish()
}
