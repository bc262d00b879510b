//! The end of interception, for connections that were routed with a header and have yet to send.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use testbed::{Agent, BpfFs, Talker, picop_bin, require_privilege, wait_timeout, wait_until};

use super::{AUTO, Direct, pr_1};
use crate::common::{Recorder, Result, Routes, Scene, base, hello, logged, soon, variants};

/// Longer than anything here takes.
const PATIENT: [&str; 2] = ["--header-grace", "60s"];
const LEFT: &str = "sockets were still enrolled when the programs went";

fn direct(name: &str, args: &[&str]) -> Result<Direct> {
    let scene = Scene::new(name)?;
    let server = scene.recorder("variant")?;
    let (vip, vip6) = (scene.vip(), scene.vip6());
    let settings = format!("header: propagate, {}", variants(&[("pr-1", &[server.at, server.at6])]));
    let routes = Routes::new().service("cart", &[vip, vip6], &settings).workload(scene.workload(AUTO));
    let agent = scene.agent(&routes, args)?;
    Ok(Direct { scene, server, vip, vip6, agent })
}

/// Until connections are not routed any more, which they were a moment ago: then one fails as it does without picop.
fn until_plain(scene: &Scene, vip: SocketAddr) -> Result {
    wait_until("the end of routing", soon(), || {
        let report = hello(vip).run(&scene.client).ok()?;
        (report.stage.as_deref() == Some("connect")).then_some(())
    })?;
    Ok(())
}

/// The last one the server was sent, whatever came before it.
fn last(server: &Recorder) -> Result<Vec<u8>> {
    let numbers = 0..server.count();
    let found = numbers.map(|number| server.whole(number)).collect::<Result<Vec<_>>>()?;
    let (bytes, _) =
        found.into_iter().find(|(bytes, _)| bytes.ends_with(b"late")).ok_or("nothing late came")?;
    Ok(bytes)
}

#[test]
fn an_agent_that_ends_waits_for_headers() -> Result {
    require_privilege!(Ok(()));
    let mut it = direct("leave-waits", &PATIENT)?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let silent = talker.open(it.vip)?;
    it.agent.signal(Signal::TERM)?;
    until_plain(&it.scene, it.vip)?;
    assert!(it.agent.is_running()?, "it does not wait");
    silent.send(b"late")?;
    // Nobody is left to wait for.
    assert!(it.agent.wait(soon())?.success());
    silent.finish()?;
    assert_eq!(silent.receive_all()?.text(), "variant\n");
    assert_eq!(last(&it.server)?, [pr_1(), b"late".to_vec()].concat());
    let left =
        it.agent.log_lines().iter().any(|line| line["message"].as_str().is_some_and(|m| m.starts_with(LEFT)));
    assert!(!left, "somebody was left: {:?}", it.agent.log_lines());
    Ok(())
}

#[test]
fn an_agent_that_ends_waits_so_long_and_says_who_is_left() -> Result {
    require_privilege!(Ok(()));
    let mut it = direct("leave-bounded", &["--header-grace", "300ms"])?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let (silent, silent6) = (talker.open(it.vip)?, talker.open(it.vip6)?);
    it.agent.signal(Signal::TERM)?;
    assert!(it.agent.wait(soon())?.success());
    let line = logged(&it.agent, 0, LEFT)?;
    assert_eq!((line["sockets"].as_u64(), line["level"].as_str()), (Some(2), Some("WARN")));
    // They are not cut, and their bytes are theirs alone, once the kernel has freed the map.
    for talk in [silent, silent6] {
        talk.send(b"late")?;
        talk.finish()?;
        assert_eq!(talk.receive_all()?.text(), "variant\n");
    }
    let late = last(&it.server)?;
    assert_eq!(late.strip_prefix(&pr_1()[..]).unwrap_or(&late), b"late");
    Ok(())
}

#[test]
fn a_second_signal_ends_the_wait() -> Result {
    require_privilege!(Ok(()));
    let mut it = direct("leave-signal", &PATIENT)?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let _silent = talker.open(it.vip)?;
    it.agent.signal(Signal::TERM)?;
    until_plain(&it.scene, it.vip)?;
    assert!(it.agent.is_running()?);
    it.agent.signal(Signal::TERM)?;
    assert!(it.agent.wait(soon())?.success());
    assert_eq!(logged(&it.agent, 0, LEFT)?["sockets"].as_u64(), Some(1));
    Ok(())
}

/// `picop uninstall` on its way.
fn uninstalling(dir: &Path, args: &[&str]) -> Result<Child> {
    let mut command = Command::new(picop_bin()?);
    command.arg("uninstall").arg("--pin-dir").arg(dir).args(args);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// How it ended, and what it said.
fn ended(mut child: Child) -> Result<(bool, String)> {
    let status = wait_timeout(&mut child, soon())?;
    if status.is_none() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok((status.is_some_and(|status| status.success()), said))
}

/// Pinned routes to a server in pr-1, without the agent that made them.
fn orphaned(name: &str) -> Result<(BpfFs, Scene, Recorder, SocketAddr, Agent)> {
    let scene = Scene::new(name)?;
    let bpf = BpfFs::mount(&scene.cluster)?;
    let (server, vip) = (scene.recorder("variant")?, scene.vip());
    let settings =
        format!("header: propagate, {}, {}", base(&[server.at]), variants(&[("pr-1", &[server.at])]));
    let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO));
    let dir = bpf.pin_dir().display().to_string();
    let agent = scene.agent(&routes, &["--pin-dir", &dir])?;
    Ok((bpf, scene, server, vip, agent))
}

#[test]
fn uninstall_waits_for_headers() -> Result {
    require_privilege!(Ok(()));
    for graceful in [true, false] {
        let (bpf, scene, server, vip, mut agent) = orphaned("leave-uninstall")?;
        let talker = Talker::in_pod(&scene.client)?;
        let silent = talker.open(vip)?;
        if graceful {
            agent.signal(Signal::TERM)?;
            assert!(agent.wait(soon())?.success());
        } else {
            // Its heartbeat looks alive for another second.
            agent.kill9()?;
        }
        let mut child = uninstalling(&bpf.pin_dir(), &PATIENT)?;
        until_plain(&scene, vip)?;
        assert!(child.try_wait()?.is_none(), "it does not wait");
        silent.send(b"late")?;
        let (done, said) = ended(child)?;
        assert!(done && said.contains("removed") && !said.contains("warning"), "{said}");
        silent.finish()?;
        assert_eq!(silent.receive_all()?.text(), "variant\n");
        assert_eq!(last(&server)?, [pr_1(), b"late".to_vec()].concat());
    }
    Ok(())
}

/// Uninstalled under its feet, an agent works on, and cleans up when it ends.
#[test]
fn an_agent_that_was_uninstalled_ends_as_one_without_pins() -> Result {
    require_privilege!(Ok(()));
    let (bpf, scene, server, vip, mut agent) = orphaned("leave-running")?;
    let talker = Talker::in_pod(&scene.client)?;
    let silent = talker.open(vip)?;
    let (done, said) = ended(uninstalling(&bpf.pin_dir(), &PATIENT)?)?;
    assert!(done && said.contains("still runs") && !said.contains("warning"), "{said}");
    assert_eq!(crate::common::answer(&hello(vip).run(&scene.client)?), "variant");
    agent.signal(Signal::TERM)?;
    until_plain(&scene, vip)?;
    silent.send(b"late")?;
    silent.finish()?;
    assert_eq!(silent.receive_all()?.text(), "variant\n");
    assert!(agent.wait(soon())?.success());
    assert_eq!(last(&server)?, [pr_1(), b"late".to_vec()].concat());
    Ok(())
}
