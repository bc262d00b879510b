//! A variant that has nothing ready yet, and connections that wait for it.

use std::process::Command;
use std::time::{Duration, Instant};

use testbed::{Asked, Talker, picop_bin, require_privilege, wait_until};

use super::AUTO;
use crate::common::{
    Result, Routes, Scene, answer, base, expect, expect_reset, hello, slack, soon, variants,
};

/// How long the agent lets them wait in these tests.
const WAIT: Duration = Duration::from_millis(800);

#[test]
fn a_connection_waits_for_its_variant() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("wait")?;
    let (main, variant) = (scene.recorder("main")?, scene.recorder("variant")?);
    let vip = scene.vip();
    let routes = |ready: &[_]| {
        let settings = format!("fallback: wait, {}, {}", base(&[main.at]), variants(&[("pr-1", ready)]));
        Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO))
    };
    let agent = scene.agent(&routes(&[]), &[])?;
    let talker = Talker::in_pod(&scene.client)?;
    let waiting = talker.open(vip)?;
    let local = waiting.names()?.local.ok_or("a socket without a name")?.to_string();
    waiting.send(b"hello")?;
    let mut admin = Asked::at(agent.admin_socket())?;
    wait_until("the agent has it", soon(), || {
        let open = admin.get("/v1/connections").ok()?;
        open["connections"].as_array().filter(|all| all.len() == 1).map(drop)
    })?;
    assert_eq!((main.count(), variant.count()), (0, 0), "it is nowhere yet");
    agent.routes(&routes(&[variant.at]).to_string())?;
    assert_eq!(waiting.receive(8)?.text(), "variant\n");
    waiting.finish()?;
    let lines = agent.wait_access(1, |line| line["client"] == local)?;
    let backend = variant.at.to_string();
    expect(
        &lines[0],
        &[("relayed_for", "relay_wait"), ("reason", "variant"), ("backend", &backend), ("outcome", "ok")],
    );
    // From here on there is nothing to wait for: the kernel's own decision.
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "variant");
    let relayed = agent.access_lines().iter().filter(|line| line["path"] == "relay").count();
    assert_eq!(relayed, 1);
    assert_eq!(main.count(), 0);
    Ok(())
}

#[test]
fn who_has_waited_in_vain_is_refused() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("wait-in-vain")?;
    let main = scene.recorder("main")?;
    let vip = scene.vip();
    let settings = format!("fallback: wait, {}, {}", base(&[main.at]), variants(&[("pr-1", &[])]));
    let routes = Routes::new().service("cart", &[vip], &settings).workload(scene.workload(AUTO));
    let agent = scene.agent(&routes, &["--variant-wait", &format!("{}ms", WAIT.as_millis())])?;
    let (to, from) = (vip.to_string(), scene.client.cgroup_path_rel());
    let said = Command::new(picop_bin()?)
        .args(["explain", "--to", &to, "--from", from])
        .env("PICOP_ADMIN_SOCKET", agent.admin_socket())
        .output()?;
    let said = String::from_utf8(said.stdout)?;
    for words in [
        "waits at the agent: relay_wait, then variant_empty_waits",
        "waits: 800ms at most (--variant-wait)",
        "the variant of cart in pr-1 gets an endpoint",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let talker = Talker::in_pod(&scene.client)?;
    let start = Instant::now();
    expect_reset(&talker.open(vip)?.receive(1)?);
    let took = start.elapsed();
    assert!(took >= WAIT && took < WAIT + slack(), "{took:?}");
    let lines = agent.wait_access(1, |line| line["outcome"] == "refused")?;
    expect(&lines[0], &[("reason", "variant_empty_waits"), ("backend", "-"), ("service", "cart")]);
    assert_eq!(main.count(), 0, "the base must not see it");
    Ok(())
}
