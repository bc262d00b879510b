//! Backends that cannot be reached: the client gets a reset, in time, never silence.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testbed::{Talker, require_privilege};

use crate::common::{
    Result, Routes, Scene, access, answer, expect, expect_reset, hello, slack, soon, variants,
};

/// How long the agent waits for an endpoint in these tests.
const CONNECT: Duration = Duration::from_millis(400);

/// An address on the pods' network that no pod has: nothing comes back from there.
fn nobody() -> SocketAddr {
    SocketAddr::from(([10, 244, 200, 200], 80))
}

#[test]
fn refused_and_unroutable() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("refused")?;
    let empty = scene.cluster.pod("empty")?;
    let closed = SocketAddr::new(empty.addr4().into(), empty.free_port(empty.addr4().into())?);
    let (unroutable, unroutable6) = (scene.vip(), scene.vip6());
    let cases = [
        ("refused", closed, "refused"),
        ("unroutable", unroutable, "No route"),
        ("unroutable-v6", unroutable6, "No route"),
    ];
    let mut routes = Routes::new().workload(scene.workload("environment: pr-1"));
    let mut vips = Vec::new();
    for (name, backend, _) in cases {
        let vip = scene.vip();
        routes = routes.service(name, &[vip], &variants(&[("pr-1", &[backend])]));
        vips.push(vip);
    }
    let agent = scene.agent(&routes, &[])?;
    let talker = Talker::in_pod(&scene.client)?;
    for ((name, backend, word), vip) in cases.into_iter().zip(vips) {
        let start = Instant::now();
        let said = talker.try_open(vip)?;
        // The reset may overtake the end of connect.
        if said.socket.is_some() {
            expect_reset(&talker.made(&said)?.receive(1)?);
        } else {
            expect_reset(&said);
        }
        assert!(start.elapsed() < soon(), "{name}");
        let lines = agent.wait_access(1, |line| line["service"] == name)?;
        expect(&lines[0], &[("outcome", "upstream_failed"), ("reason", "variant"), ("backend", "-")]);
        let error = lines[0]["error"].as_str().unwrap_or_default();
        assert!(error.contains(&backend.to_string()) && error.contains(word), "{name}: {error}");
    }
    Ok(())
}

#[test]
fn an_endpoint_that_does_not_answer() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("blackhole")?;
    let live = scene.recorder("live")?;
    let (lost, saved) = (scene.vip(), scene.vip());
    let routes = Routes::new()
        .service("lost", &[lost], &variants(&[("pr-1", &[nobody()])]))
        .service("saved", &[saved], &variants(&[("pr-1", &[nobody(), live.at])]))
        .workload(scene.workload("environment: pr-1"));
    let agent = scene.agent(&routes, &["--connect-timeout", &format!("{}ms", CONNECT.as_millis())])?;
    let talker = Talker::in_pod(&scene.client)?;
    let start = Instant::now();
    let talk = talker.open(lost)?;
    expect_reset(&talk.receive(1)?);
    let took = start.elapsed();
    assert!(took >= CONNECT && took < CONNECT + slack(), "{took:?}");
    let lines = agent.wait_access(1, |line| line["service"] == "lost")?;
    expect(&lines[0], &[("outcome", "upstream_failed"), ("backend", "-")]);

    // Twice, so that each endpoint's turn comes once.
    for _ in 0..2 {
        let report = hello(saved).run(&scene.client)?;
        assert_eq!(answer(&report), "live");
        expect(&access(&agent, report.local)?, &[("outcome", "ok"), ("backend", &live.at.to_string())]);
    }
    Ok(())
}

#[test]
fn a_client_that_gives_up_while_its_backend_is_sought() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("gives-up")?;
    let vip = scene.vip();
    let routes = Routes::new()
        .service("lost", &[vip], &variants(&[("pr-1", &[nobody()])]))
        .workload(scene.workload("environment: pr-1"));
    let agent = scene.agent(&routes, &["--connect-timeout", "1s"])?;
    let talker = Talker::in_pod(&scene.client)?;
    let talks = [talker.open(vip)?, talker.open(vip)?];
    talks[0].reset()?;
    talks[1].close()?;
    // One line each, however the two ends raced.
    let lines = agent.wait_access(2, |_| true)?;
    assert!(lines.iter().all(|line| line["backend"].is_null()), "{lines:?}");
    Ok(())
}
