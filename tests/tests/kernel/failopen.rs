//! When the agent is gone, hangs, or is going: connections go where they would without it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testbed::{Agent, Said, Talker, Target, require_privilege, wait_until};

use crate::common::{
    Recorder, Result, Routes, Scene, access, base, emulated, expect, expect_reset, logged, slack, soon,
    variants,
};

/// What the agent promises: so long after it stops answering, connections go to the base.
const PROMISE: Duration = Duration::from_secs(1);

/// Two services of one variant: one has the real server's address, the other has it as its base endpoint.
struct Fallible {
    scene: Scene,
    real: Recorder,
    variant: Recorder,
    vip: SocketAddr,
    vip6: SocketAddr,
    routes: Routes,
}

impl Fallible {
    fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let (real, variant) = (scene.recorder("real")?, scene.recorder("variant")?);
        let (vip, vip6) = (scene.vip(), scene.vip6());
        let to = variants(&[("pr-1", &[variant.at])]);
        let routes = Routes::new()
            .service("itself", &[real.at, real.at6], &to)
            .service("virtual", &[vip, vip6], &format!("{}, {to}", base(&[real.at, real.at6])))
            .workload(scene.workload("environment: pr-1"));
        Ok(Self { scene, real, variant, vip, vip6, routes })
    }
}

/// One connection: says hello and reads a name. No longer than it must wait: the agent may be the one who does not answer.
fn ask(talker: &Talker, to: impl Into<Target>, name: &str) -> Result<Said> {
    let wait = Duration::from_millis(if emulated() { 2000 } else { 200 });
    let said = talker.try_open(to.into().timeout(wait))?;
    if said.socket.is_none() {
        return Ok(said);
    }
    let talk = talker.made(&said)?;
    let sent = talk.try_send(b"hello")?;
    let mut got = if sent.error.is_some() { sent } else { talk.receive(name.len() + 1)? };
    (got.local, got.peer) = (said.local, said.peer);
    talk.close()?;
    Ok(got)
}

/// The next connection reaches the server of this name, as the address that was asked for.
#[track_caller]
fn expect_at(talker: &Talker, to: SocketAddr, name: &str) {
    let said = ask(talker, to, name).expect("a talker that answers");
    assert_eq!((said.text(), said.peer), (format!("{name}\n"), Some(to)), "{said:?}");
}

/// Connects until the server of this name is reached, and says how long that took.
fn until(talker: &Talker, to: SocketAddr, name: &str) -> Result<Duration> {
    let start = Instant::now();
    let took = wait_until(&format!("{name} at {to}"), soon(), || {
        let said = ask(talker, to, name).ok()?;
        (said.text().trim_end() == name).then(|| start.elapsed())
    });
    Ok(took?)
}

#[test]
fn an_agent_that_is_killed() -> Result {
    require_privilege!(Ok(()));
    let it = Fallible::new("killed")?;
    let mut agent = it.scene.agent(&it.routes, &[])?;
    let talker = Talker::in_pod(&it.scene.client)?;
    for to in [it.real.at, it.real.at6, it.vip] {
        expect_at(&talker, to, "variant");
    }
    let running = talker.open(it.real.at)?;
    running.send(b"hello")?;
    assert_eq!(running.receive(8)?.text(), "variant\n");

    agent.kill9()?;
    let took = until(&talker, it.real.at, "real")?;
    assert!(took <= PROMISE + slack(), "{took:?}");
    // From here on for good, for whoever asks.
    for to in [it.real.at, it.real.at6, it.real.at] {
        expect_at(&talker, to, "real");
    }
    // What it carried cannot go on, and must say so.
    expect_end(&running.receive(1)?);

    // The next one takes over.
    let next = it.scene.agent(&it.routes, &[])?;
    for to in [it.real.at, it.real.at6, it.vip, it.vip6] {
        expect_at(&talker, to, "variant");
    }
    assert_eq!(next.access_lines().iter().filter(|line| line["outcome"] != "ok").count(), 0);
    Ok(())
}

/// A connection whose carrier is gone ends, in one way or the other.
#[track_caller]
fn expect_end(said: &Said) {
    assert!(said.eof || said.error.as_deref() == Some("ConnectionReset"), "{said:?}");
}

#[test]
fn an_agent_that_hangs() -> Result {
    require_privilege!(Ok(()));
    let it = Fallible::new("hangs")?;
    let agent = it.scene.agent(&it.routes, &[])?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let all = [it.real.at, it.real.at6, it.vip, it.vip6];
    for to in all {
        expect_at(&talker, to, "variant");
    }
    agent.signal(Signal::STOP)?;
    let took = until(&talker, it.real.at, "real")?;
    assert!(took <= PROMISE + slack(), "{took:?}");
    // Also where only the hooks know the base, and the application still sees the address it asked for.
    for to in all {
        expect_at(&talker, to, "real");
    }
    let mapped = ask(&talker, Target::new(it.vip).mapped(), "real")?;
    assert_eq!(mapped.text(), "real\n");
    assert_eq!(mapped.peer, Some(format!("[::ffff:{}]:{}", it.vip.ip(), it.vip.port()).parse()?));
    // The server sees nobody but the client.
    assert_eq!(it.real.from(it.real.count() - 1)?, it.scene.client.addr4());

    agent.signal(Signal::CONT)?;
    until(&talker, it.vip, "variant")?;
    for to in all {
        expect_at(&talker, to, "variant");
    }
    Ok(())
}

#[test]
fn an_agent_that_is_asked_to_go() -> Result {
    require_privilege!(Ok(()));
    let it = Fallible::new("drains")?;
    let mut agent = it.scene.agent(&it.routes, &["--drain-timeout", "5m"])?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let running = talker.open(it.vip)?;
    let local = running.names()?.local;
    running.send(b"hello")?;
    assert_eq!(running.receive(8)?.text(), "variant\n");

    agent.signal(Signal::TERM)?;
    logged(&agent, 0, "draining")?;
    // New connections go to the base, at once.
    for to in [it.real.at, it.real.at6, it.vip, it.vip6] {
        expect_at(&talker, to, "real");
    }
    assert!(agent.is_running()?);
    running.send(b", again")?;
    running.finish()?;
    assert!(running.receive(1)?.eof);
    let status = agent.wait(soon())?;
    assert!(status.success(), "{status}");
    expect(&access(&agent, local)?, &[("outcome", "ok"), ("bytes_up", "12"), ("bytes_down", "8")]);
    let carried = it.variant.whole(0)?;
    assert_eq!(carried, (b"hello, again".to_vec(), "eof".to_owned()));
    expect_at(&talker, it.real.at, "real");
    Ok(())
}

#[test]
fn a_second_signal_ends_it_at_once() -> Result {
    require_privilege!(Ok(()));
    let it = Fallible::new("twice")?;
    let mut agent = it.scene.agent(&it.routes, &["--drain-timeout", "5m"])?;
    cut_off(&it, &mut agent, |agent| Ok(agent.signal(Signal::INT)?))
}

#[test]
fn what_is_left_when_the_drain_is_over_is_reset() -> Result {
    require_privilege!(Ok(()));
    let it = Fallible::new("patience")?;
    let mut agent = it.scene.agent(&it.routes, &["--drain-timeout", "300ms"])?;
    cut_off(&it, &mut agent, |_| Ok(()))
}

/// A connection that runs when the agent is told to go, and is reset by `then` at the latest.
fn cut_off(it: &Fallible, agent: &mut Agent, then: impl FnOnce(&Agent) -> Result) -> Result {
    let talker = Talker::in_pod(&it.scene.client)?;
    let running = talker.open(it.vip)?;
    let local = running.names()?.local;
    running.send(b"hello")?;
    assert_eq!(running.receive(8)?.text(), "variant\n");
    agent.signal(Signal::TERM)?;
    logged(agent, 0, "draining")?;
    then(agent)?;
    expect_reset(&running.receive(1)?);
    let status = agent.wait(soon())?;
    assert!(status.success(), "{status}");
    expect(&access(agent, local)?, &[("outcome", "drained"), ("bytes_up", "5"), ("bytes_down", "8")]);
    // The server is told as well.
    assert_eq!(it.variant.whole(0)?, (b"hello".to_vec(), "ConnectionReset".to_owned()));
    Ok(())
}
