//! What the kernel programs log, for who asks for it.

use testbed::{Agent, eventually, require_privilege};

use super::{AUTO, pr_1};
use crate::common::{Result, Routes, Scene, answer, hello, soon, variants};

/// Lines of the kernel programs in the agent's log.
fn lines(agent: &Agent) -> usize {
    let of_programs = |target: &str| target.starts_with("picop_ebpf");
    agent.log_lines().iter().filter(|line| line["target"].as_str().is_some_and(of_programs)).count()
}

#[test]
fn they_say_what_they_do_only_if_they_are_asked() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("ebpf-log")?;
    let (server, vip) = (scene.recorder("variant")?, scene.vip());
    let settings = format!("header: propagate, {}", variants(&[("pr-1", &[server.at])]));
    let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO));
    let log = ["--log", "info,picop_ebpf=debug"];
    let mut number = 0;
    for (level, wanted) in [("off", false), ("warn", false), ("debug", true)] {
        let agent = scene.agent(&routes, &[&log[..], &["--ebpf-log", level]].concat())?;
        for _ in 0..3 {
            assert_eq!(answer(&hello(vip).run(&scene.client)?), "variant");
            // Whatever they say, they do what they did.
            assert_eq!(server.whole(number)?.0, [pr_1(), b"hello".to_vec()].concat());
            number += 1;
        }
        if wanted {
            // The canary's connections are among them.
            assert!(eventually(soon(), || lines(&agent) >= 3), "{:?}", agent.log_lines());
        } else {
            assert_eq!(lines(&agent), 0, "{:?}", agent.log_lines());
        }
        assert!(agent.stop()?.success());
    }
    Ok(())
}
