//! `picop status`, with an agent and without.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use testbed::{BpfFs, Ledger, Talker, eventually, picop_bin, require_privilege, status};

use super::AUTO;
use crate::common::{Result, Routes, Scene, answer, hello, logged, soon, variants};

fn picop_status(dir: &Path) -> Result<(bool, String)> {
    let output = Command::new(picop_bin()?).args(["status", "--pin-dir"]).arg(dir).output()?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

#[test]
fn it_says_what_the_kernel_counted_whether_an_agent_lives_or_not() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("status")?;
    let bpf = BpfFs::mount(&scene.cluster)?;
    let dir = bpf.pin_dir();
    let (done, said) = picop_status(&dir)?;
    assert!(!done && said.starts_with("picop: nothing is pinned in ") && said.lines().count() == 1, "{said}");
    assert!(!dir.exists(), "looking leaves nothing behind");

    let (server, vip) = (scene.recorder("variant")?, scene.vip());
    let settings = format!("header: propagate, {}", variants(&[("pr-1", &[server.at])]));
    let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO));
    let dir_text = dir.display().to_string();
    let mut agent = scene.agent(&routes, &["--pin-dir", &dir_text])?;
    let before = Ledger::at_rest(&dir)?;
    assert_eq!(before.agent, "alive");
    // The client pod and the canary; the service (base and variant) and the canary's two.
    assert_eq!((before.entries["workloads"], before.entries["headers"], before.entries["routes"]), (2, 2, 4));
    for _ in 0..3 {
        assert_eq!(answer(&hello(vip).run(&scene.client)?), "variant");
    }
    let after = Ledger::at_rest(&dir)?;
    assert_eq!(after.connections["variant"] - before.connections["variant"], 3);
    assert_eq!(after.faults_since(&before, 3, 0), [] as [String; 0]);

    let talker = Talker::in_pod(&scene.client)?;
    let silent = talker.open(vip)?;
    let waiting = || status(&dir).is_ok_and(|status| status["sets"][0]["enrolled_now"] == 1);
    assert!(eventually(soon(), waiting), "one waits to send");
    silent.close()?;
    let (done, said) = picop_status(&dir)?;
    assert!(done, "{said}");
    for word in ["agent        alive", "inject", "route connections", "variant ", "injected ", "enrolled"] {
        assert!(said.contains(word), "`{word}` is not in:\n{said}");
    }

    // Ended in order, it has said the same in its log.
    agent.signal(Signal::TERM)?;
    assert!(agent.wait(soon())?.success());
    let last = Ledger::at_rest(&dir)?;
    assert_eq!(last.agent, "ended");
    let line = logged(&agent, 0, "counted by the programs")?;
    let events = line["events"].as_str().unwrap_or_default();
    assert!(
        events.split(' ').any(|event| event == format!("injected={}", last.events["injected"])),
        "{line}"
    );
    // What is counted goes on without an agent, which nothing disturbs then.
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "variant");
    assert_eq!(Ledger::at_rest(&dir)?.faults_since(&last, 1, 0), [] as [String; 0]);

    let mut agent = scene.agent(&routes, &["--pin-dir", &dir_text])?;
    agent.kill9()?;
    let stale = || Ledger::at_rest(&dir).is_ok_and(|ledger| ledger.agent == "stale");
    assert!(eventually(soon(), stale), "{:?}", status(&dir));
    Ok(())
}
