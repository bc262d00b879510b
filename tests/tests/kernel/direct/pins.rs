//! Programs and routes that stay in the kernel without their agent: `--pin-dir` and `picop uninstall`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testbed::{Agent, AgentOptions, BpfFs, Client, Ledger, Talker, picop_bin, require_privilege};

use super::{AUTO, pr_1};
use crate::common::{Recorder, Result, Routes, Scene, answer, base, hello, logged, soon, variants, workload};

const ADOPTED: &str = "adopted the last agent's programs";

/// Two environments and the base, and a place for pins.
struct Pinned {
    bpf: BpfFs,
    scene: Scene,
    main: Recorder,
    one: Recorder,
    vip: std::net::SocketAddr,
}

impl Pinned {
    fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let bpf = BpfFs::mount(&scene.cluster)?;
        let (main, one, vip) = (scene.recorder("main")?, scene.recorder("one")?, scene.vip());
        Ok(Self { bpf, scene, main, one, vip })
    }

    fn dir(&self) -> PathBuf {
        self.bpf.pin_dir()
    }

    fn routes(&self, env: &str) -> Routes {
        let settings =
            format!("header: propagate, {}, {}", base(&[self.main.at]), variants(&[(env, &[self.one.at])]));
        Routes::new().service("cart", &[self.vip], &settings).workload(self.scene.workload(AUTO))
    }

    fn agent(&self, routes: &Routes) -> Result<Agent> {
        let dir = self.dir().display().to_string();
        self.scene.agent(routes, &["--pin-dir", &dir])
    }

    /// The next connection reaches this server, and the header is there.
    #[track_caller]
    fn expect_at(&self, recorder: &Recorder, name: &str) -> Result {
        let number = recorder.count();
        assert_eq!(answer(&hello(self.vip).run(&self.scene.client)?), name);
        assert_eq!(recorder.whole(number)?.0, [pr_1(), b"hello".to_vec()].concat());
        Ok(())
    }
}

/// `picop uninstall`: whether it succeeded, and what it said.
fn uninstall(dir: &Path, args: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(picop_bin()?).arg("uninstall").arg("--pin-dir").arg(dir).args(args).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

#[test]
fn a_killed_agent_is_not_missed_and_the_next_one_adopts() -> Result {
    require_privilege!(Ok(()));
    let it = Pinned::new("adopts")?;
    let mut agent = it.agent(&it.routes("pr-1"))?;
    it.expect_at(&it.one, "one")?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let (begun, silent) = (talker.open(it.vip)?, talker.open(it.vip)?);
    begun.send(b"hello")?;
    assert_eq!(begun.receive(4)?.text(), "one\n");
    agent.kill9()?;
    for _ in 0..3 {
        it.expect_at(&it.one, "one")?;
    }

    let next = it.agent(&it.routes("pr-1"))?;
    logged(&next, 0, ADOPTED)?;
    it.expect_at(&it.one, "one")?;
    // What was begun under the first one, and has yet to send under the second.
    begun.send(b", again")?;
    begun.finish()?;
    assert!(begun.receive(1)?.eof);
    silent.send(b"hello")?;
    silent.finish()?;
    assert_eq!(silent.receive_all()?.text(), "one\n");
    assert_eq!(it.one.whole(1)?.0, [pr_1(), b"hello, again".to_vec()].concat());
    assert_eq!(it.one.whole(2)?.0, [pr_1(), b"hello".to_vec()].concat());

    // It is in command: routes change.
    next.routes(&it.routes("pr-2").to_string())?;
    it.expect_at(&it.main, "main")?;
    Ok(())
}

/// A table that changed while there was no agent is in effect when the next one says that it is ready.
#[test]
fn the_next_agent_has_other_routes() -> Result {
    require_privilege!(Ok(()));
    let it = Pinned::new("other-routes")?;
    let mut agent = it.agent(&it.routes("pr-1"))?;
    it.expect_at(&it.one, "one")?;
    agent.kill9()?;
    let next = it.agent(&it.routes("pr-2"))?;
    logged(&next, 0, ADOPTED)?;
    it.expect_at(&it.main, "main")?;
    drop(next);

    // Nor does a workload outlive its entry.
    let settings = format!("{}, {}", base(&[it.main.at]), variants(&[("pr-1", &[it.one.at])]));
    let other = it.scene.cluster.pod("other")?;
    let routes = Routes::new().service("cart", &[it.vip], &settings).workload(workload(&other, AUTO));
    let _next = it.agent(&routes)?;
    assert_eq!(answer(&hello(it.vip).run(&other)?), "one");
    assert!(!hello(it.vip).run(&it.scene.client)?.ok);
    Ok(())
}

#[test]
fn no_connection_fails_while_one_agent_follows_another() -> Result {
    require_privilege!(Ok(()));
    let it = Pinned::new("handover")?;
    let mut agent = it.agent(&it.routes("pr-1"))?;
    let client = Client::to(it.vip).text("hello").half_close().read_all().timeout(soon());
    let done = AtomicBool::new(false);
    let made = thread::scope(|scope| -> Result<usize> {
        let connecting = scope.spawn(|| -> anyhow::Result<usize> {
            let mut made = 0;
            while !done.load(Ordering::Relaxed) {
                let summary = client.run_many(&it.scene.client, 20, 2)?;
                anyhow::ensure!(summary.ok, "{summary:?}");
                made += summary.succeeded;
            }
            Ok(made)
        });
        let agents = || -> Result {
            for graceful in [false, true, false] {
                if graceful {
                    agent.signal(Signal::TERM)?;
                    assert!(agent.wait(soon())?.success());
                } else {
                    agent.kill9()?;
                }
                agent = it.agent(&it.routes("pr-1"))?;
                logged(&agent, 0, ADOPTED)?;
            }
            Ok(())
        };
        let followed = { agents }();
        done.store(true, Ordering::Relaxed);
        followed?;
        Ok(connecting.join().map_err(|_| "the client's side panicked")??)
    })?;
    assert!(made > 0);
    assert_eq!((it.one.count(), it.main.count()), (made, 0));
    // An agent that follows another lets the kernel write headers from the first moment on. What it relayed until then, its
    // own end would cut off.
    let connections = Ledger::at_rest(&it.dir())?.connections;
    let paths = (connections["variant"], connections["relay_no_inject"]);
    assert_eq!(paths, (u64::try_from(made)?, 0), "{connections:?}");
    for number in 0..made {
        assert_eq!(it.one.whole(number)?.0, [pr_1(), b"hello".to_vec()].concat(), "connection {number}");
    }
    Ok(())
}

#[test]
fn uninstalled_nothing_is_left() -> Result {
    require_privilege!(Ok(()));
    let it = Pinned::new("uninstall")?;
    let before = hello(it.vip).run(&it.scene.client)?;
    assert_eq!(before.stage.as_deref(), Some("connect"), "{before:?}");
    let mut agent = it.agent(&it.routes("pr-1"))?;
    it.expect_at(&it.one, "one")?;
    let talker = Talker::in_pod(&it.scene.client)?;
    let (running, silent) = (talker.open(it.vip)?, talker.open(it.vip)?);
    running.send(b"hello")?;
    assert_eq!(running.receive(4)?.text(), "one\n");
    // Asked to go, it leaves the direct path as it is.
    agent.signal(Signal::TERM)?;
    assert!(agent.wait(soon())?.success());
    it.expect_at(&it.one, "one")?;

    let begun = Instant::now();
    let (done, said) = uninstall(&it.dir(), &["--header-grace", "200ms"])?;
    assert!(done && said.contains("warning: 1 sockets were still enrolled"), "{said}");
    assert!(begun.elapsed() < Duration::from_millis(200) + soon());
    assert!(!it.dir().exists());
    let after = hello(it.vip).run(&it.scene.client)?;
    assert_eq!((after.stage, after.detail), (before.stage, before.detail));
    // What was silent for longer has its header or, once the kernel has freed the map, none: whole in either case.
    silent.send(b"hello")?;
    silent.finish()?;
    assert_eq!(silent.receive_all()?.text(), "one\n");
    let (late, _) = it.one.whole(2)?;
    assert_eq!(late.strip_prefix(&pr_1()[..]).unwrap_or(&late), b"hello");
    // What runs goes on.
    running.send(b", again")?;
    running.finish()?;
    assert!(running.receive(1)?.eof);
    assert_eq!(it.one.whole(1)?.0, [pr_1(), b"hello, again".to_vec()].concat());

    let (done, said) = uninstall(&it.dir(), &[])?;
    assert!(done && said.contains("nothing is pinned"), "{said}");

    // And another one can begin anew.
    let again = it.agent(&it.routes("pr-1"))?;
    logged(&again, 0, "programs attached")?;
    it.expect_at(&it.one, "one")?;
    Ok(())
}

/// An agent that is told to keep its pins where none can be does not start, and says what to do.
#[test]
fn not_on_a_bpf_filesystem() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("not-bpffs")?;
    let dir = scene.cluster.dir().join("plain");
    let args = vec!["--pin-dir".to_owned(), dir.display().to_string()];
    let options = AgentOptions { routes: Routes::new().to_string(), args, ..AgentOptions::default() };
    let Err(error) = Agent::start_with(&scene.cluster, options) else {
        return Err("it started".into());
    };
    let said = error.to_string();
    let sentence = format!("--pin-dir {} is not on a BPF filesystem; mount one", dir.display());
    assert!(said.contains(&sentence), "{said}");
    Ok(())
}
