//! New routes while connections run.

use std::net::SocketAddr;

use rustix::process::Signal;
use testbed::{Agent, AgentOptions, Talker, require_privilege};

use crate::common::{
    Result, Routes, Scene, access, answer, base, change_workloads, expect, hello, variants, workload,
};

#[test]
fn a_workload_that_moves_to_another_environment() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("moves")?;
    let (one, two) = (scene.recorder("one")?, scene.recorder("two")?);
    let vip = scene.vip();
    let to = variants(&[("pr-1", &[one.at]), ("pr-2", &[two.at])]);
    let routes = |env: &str| {
        let workload = scene.workload(&format!("environment: {env}"));
        Routes::new().service("cart", &[vip], &format!("header: propagate, {to}")).workload(workload)
    };
    let agent = scene.agent(&routes("pr-1"), &[])?;
    let talker = Talker::in_pod(&scene.client)?;
    let old = talker.open(vip)?;
    let local = old.names()?.local;
    old.send(b"hello")?;
    assert_eq!(old.receive(4)?.text(), "one\n");

    change_workloads(&agent, &routes("pr-2"))?;
    let report = hello(vip).run(&scene.client)?;
    assert_eq!(answer(&report), "two");
    expect(&access(&agent, report.local)?, &[("environment", "pr-2"), ("reason", "variant")]);
    // The old one goes on where it is.
    old.send(b", again")?;
    old.finish()?;
    assert!(old.receive(1)?.eof);
    expect(
        &access(&agent, local)?,
        &[("environment", "pr-1"), ("backend", &one.at.to_string()), ("outcome", "ok")],
    );
    assert!(one.whole(0)?.0.ends_with(b"hello, again"));
    assert_eq!((one.count(), two.count()), (1, 1));
    Ok(())
}

#[test]
fn services_and_variants_that_come_and_go() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("come-and-go")?;
    let (real, one, two) = (scene.recorder("real")?, scene.recorder("one")?, scene.recorder("two")?);
    let vip = scene.vip();
    let workload = scene.workload("environment: pr-1");
    let with =
        |settings: &str| Routes::new().service("cart", &[real.at], settings).workload(workload.clone());
    let agent = scene.agent(&with(&variants(&[("pr-1", &[one.at])])), &[])?;
    let name = || -> Result<String> { Ok(answer(&hello(real.at).run(&scene.client)?).to_owned()) };
    assert_eq!(name()?, "one");
    let talker = Talker::in_pod(&scene.client)?;
    let old = talker.open(real.at)?;
    let local = old.names()?.local;
    old.send(b"hello")?;
    assert_eq!(old.receive(4)?.text(), "one\n");

    agent.routes(&with(&variants(&[("pr-1", &[two.at])])).to_string())?;
    assert_eq!(name()?, "two");
    agent.routes(&with(&variants(&[("pr-2", &[two.at])])).to_string())?;
    assert_eq!(name()?, "real");
    let lines = agent.wait_access(3, |line| line["outcome"] == "ok")?;
    expect(&lines[2], &[("reason", "no_variant"), ("backend", &real.at.to_string())]);
    // The service goes altogether: its address is one like any other.
    agent.routes(&Routes::new().workload(workload.clone()).to_string())?;
    assert_eq!(name()?, "real");
    assert_eq!(agent.access_lines().len(), 3, "nothing is relayed any more");
    // And one comes.
    let both = with(&variants(&[("pr-1", &[one.at])])).service("new", &[vip], &base(&[two.at]));
    agent.routes(&both.to_string())?;
    assert_eq!(name()?, "one");
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "two");

    old.send(b", again")?;
    old.finish()?;
    assert!(old.receive(1)?.eof);
    expect(&access(&agent, local)?, &[("outcome", "ok"), ("bytes_up", "12"), ("service", "cart")]);
    Ok(())
}

#[test]
fn a_file_that_is_refused_changes_nothing() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("refused-file")?;
    let (one, two) = (scene.recorder("one")?, scene.recorder("two")?);
    let vip = scene.vip();
    let routes = |server| {
        let to = variants(&[("pr-1", &[server])]);
        Routes::new().service("cart", &[vip], &to).workload(scene.workload("environment: pr-1"))
    };
    let agent = scene.agent(&routes(one.at), &[])?;
    let name = || -> Result<String> { Ok(answer(&hello(vip).run(&scene.client)?).to_owned()) };
    assert_eq!(name()?, "one");
    // The second one is right, but for its last line.
    let almost = format!("{}nonsense: true\n", routes(two.at));
    for (bad, place) in [("services: [", ":1:"), (almost.as_str(), ":3:"), ("", ": the file is empty")] {
        let refusal = agent.offer_routes(bad)?.ok_or("a bad file was taken")?;
        let error = refusal["error"].as_str().unwrap_or_default();
        let path = agent.routes_path().display().to_string();
        assert!(error.contains(&format!("{path}{place}")), "{error}");
        assert_eq!((refusal["level"].as_str(), refusal["version"].as_u64()), (Some("ERROR"), Some(1)));
        assert_eq!(name()?, "one");
    }
    agent.routes(&routes(two.at).to_string())?;
    assert_eq!(name()?, "two");
    Ok(())
}

/// More than the kernel's table holds: the relay does not go by it either, and the agent does not start on it.
#[test]
fn a_table_that_the_kernel_does_not_take_changes_nothing() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("too-large")?;
    let (one, two) = (scene.recorder("one")?, scene.recorder("two")?);
    let relayed = scene.cluster.pod("relayed")?;
    let vip = scene.vip();
    let routes = |server| {
        let to = variants(&[("pr-1", &[server])]);
        Routes::new()
            .service("cart", &[vip], &to)
            .workload(scene.workload("environment: pr-1, path: auto"))
            .workload(workload(&relayed, "environment: pr-1"))
    };
    // Of each address there is an entry for each endpoint: 256 times 16,500.
    let addresses: Vec<_> =
        (0..16_500).map(|n| SocketAddr::from(((0x0a61_0000_u32 + n).to_be_bytes(), 80))).collect();
    let endpoints: Vec<_> =
        (0..256).map(|n| SocketAddr::from(((0x0a62_0000_u32 + n).to_be_bytes(), 80))).collect();
    let too_large = routes(two.at).service("large", &addresses, &base(&endpoints)).to_string();

    let mut agent = scene.agent(&routes(one.at), &[])?;
    let expect_name = |name: &str| -> Result {
        for pod in [&scene.client, &relayed] {
            assert_eq!(answer(&hello(vip).run(pod)?), name, "from {}", pod.name());
        }
        Ok(())
    };
    expect_name("one")?;
    let refusal = agent.offer_routes(&too_large)?.ok_or("it was taken")?;
    let error = refusal["error"].as_str().unwrap_or_default();
    assert!(error.contains("entries, of which the kernel's table holds 4194304"), "{error}");
    assert_eq!((refusal["level"].as_str(), refusal["version"].as_u64()), (Some("ERROR"), Some(1)));
    expect_name("one")?;
    agent.routes(&routes(two.at).to_string())?;
    let last = agent.log_lines().into_iter().rfind(|line| line["message"] == "routes in effect");
    assert_eq!(last.ok_or("it was said")?["version"], 2);
    expect_name("two")?;

    agent.kill9()?;
    let options = AgentOptions { routes: too_large, ..AgentOptions::default() };
    let Err(error) = Agent::start_with(&scene.cluster, options) else { return Err("it started".into()) };
    assert!(error.to_string().contains("the kernel's table holds 4194304"), "{error}");
    Ok(())
}

#[test]
fn a_hangup_reads_the_file_again() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("hangup")?;
    let one = scene.recorder("one")?;
    let vip = scene.vip();
    let good = Routes::new()
        .service("cart", &[vip], &variants(&[("pr-1", &[one.at])]))
        .workload(scene.workload("environment: pr-1"));
    let agent = scene.agent(&good, &[])?;
    assert!(hang_up(&agent)?, "the same file again");
    assert!(agent.offer_routes("services: 1")?.is_some());
    assert!(!hang_up(&agent)?, "a bad file is refused again");
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "one");
    agent.routes(&good.to_string())?;
    assert!(hang_up(&agent)?);
    assert_eq!(answer(&hello(vip).run(&scene.client)?), "one");
    Ok(())
}

/// Sends SIGHUP; whether the file was found good.
fn hang_up(agent: &Agent) -> Result<bool> {
    let before = agent.log_lines().len();
    agent.signal(Signal::HUP)?;
    Ok(agent.verdict_since(before)?.is_none())
}
