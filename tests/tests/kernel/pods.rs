//! Pods that come, go and come back, and programs of others beside ours.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use testbed::{Agent, AgentOptions, PodSpec, Talker, eventually, require_privilege};

use crate::common::{
    Result, Routes, Scene, access, answer, expect, hello, logged, soon, until_routed, variants, workload,
};

/// A service with one variant, and a pod of the pattern `web-*`, all of which are managed.
fn scene(name: &str) -> Result<(Scene, SocketAddr, Vec<testbed::Proc>, Agent)> {
    let scene = Scene::new(name)?;
    let (real, real_echo) = scene.echo("real")?;
    let (variant, echo) = scene.echo("variant")?;
    let routes = Routes::new()
        .service("cart", &[real], &variants(&[("pr-1", &[variant])]))
        .workload(format!("{{cgroup: \"{}/web-*\", environment: pr-1, path: relay}}", scene.cluster.id()));
    let agent = scene.agent(&routes, &[])?;
    Ok((scene, real, vec![real_echo, echo], agent))
}

/// Ends every process of a cgroup: this process's own pods'.
fn end_all(cgroup: &Path) -> Result {
    fs::write(cgroup.join("cgroup.kill"), "1")?;
    let empty = || fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty());
    assert!(eventually(soon(), empty), "the processes of {} do not end", cgroup.display());
    Ok(())
}

#[test]
fn a_pod_that_starts_anew_in_the_same_cgroup() -> Result {
    require_privilege!(Ok(()));
    let (scene, service, _servers, agent) = scene("restart")?;
    let first = scene.cluster.pod(PodSpec::new("first").cgroup("web-1"))?;
    until_routed(&agent, &first, service)?;

    let before = agent.log_lines().len();
    end_all(first.cgroup_dir())?;
    let second = scene.cluster.pod(PodSpec::new("second").cgroup("web-1"))?;
    logged(&agent, before, "workload is gone")?;
    until_routed(&agent, &second, service)?;
    for _ in 0..3 {
        let report = hello(service).run(&second)?;
        assert_eq!(answer(&report), "hello");
        expect(&access(&agent, report.local)?, &[("reason", "variant"), ("outcome", "ok")]);
    }
    Ok(())
}

#[test]
fn connections_outlive_their_pods_cgroup() -> Result {
    require_privilege!(Ok(()));
    let (scene, service, _servers, agent) = scene("outlives")?;
    let elsewhere = scene.cluster.pod("elsewhere")?;
    let pod = scene.cluster.pod(PodSpec::new("pod").cgroup("web-1"))?;
    until_routed(&agent, &pod, service)?;
    let talker = Talker::in_pod(&pod)?;
    let running = talker.open(service)?;
    running.echo("as long as there is a cgroup")?;
    let local = running.names()?.local;

    let before = agent.log_lines().len();
    // The process leaves, so that its cgroup can be removed.
    fs::write(elsewhere.cgroup_dir().join("cgroup.procs"), talker.pid().to_string())?;
    end_all(pod.cgroup_dir())?;
    let mut removed = Ok(());
    let gone = eventually(soon(), || {
        removed = fs::remove_dir(pod.cgroup_dir());
        removed.is_ok() || removed.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    });
    assert!(gone, "{removed:?}");
    logged(&agent, before, "workload is gone")?;
    running.echo("and without one")?;
    // What connects from its new cgroup is nobody's business.
    let new = talker.open(service)?;
    new.echo("untouched")?;
    assert_eq!(new.names()?.local.map(|local| local.ip()), Some(pod.addr4().into()));
    running.finish()?;
    assert!(running.receive(1)?.eof);
    expect(&access(&agent, local)?, &[("outcome", "ok"), ("reason", "variant")]);

    // A pod of the same name is another pod.
    let again = scene.cluster.pod(PodSpec::new("again").cgroup("web-1"))?;
    until_routed(&agent, &again, service)
}

#[test]
fn two_agents_at_the_same_cgroup() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("two-agents")?;
    let (one, two) = (scene.recorder("one")?, scene.recorder("two")?);
    let vip = scene.vip();
    let routes = |server| {
        let to = variants(&[("pr-1", &[server])]);
        Routes::new().service("cart", &[vip], &to).workload(scene.workload("environment: pr-1"))
    };
    let first = scene.agent(&routes(one.at), &[])?;
    let second = scene.agent(&routes(two.at), &[])?;
    let local = {
        let report = hello(vip).run(&scene.client)?;
        // Programs run in the order in which they were attached; what the first one rewrote is no service to the second.
        assert_eq!((answer(&report), report.peer), ("one", Some(vip)));
        report.local
    };
    expect(&access(&first, local)?, &[("outcome", "ok"), ("reason", "variant")]);
    assert_eq!(second.access_lines().len(), 0);
    // The second one takes over as soon as the first is going.
    assert!(first.stop()?.success());
    let report = hello(vip).run(&scene.client)?;
    assert_eq!((answer(&report), report.peer), ("two", Some(vip)));
    expect(&access(&second, report.local)?, &[("outcome", "ok"), ("reason", "variant")]);
    Ok(())
}

#[test]
fn an_agent_above_and_an_agent_below() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("nested")?;
    let inner = scene.cluster.pod(PodSpec::new("inner").cgroup("slice/inner"))?;
    let (outer_server, inner_server) = (scene.recorder("outer")?, scene.recorder("inner-server")?);
    let vip = scene.vip();
    let routes = |server, pod| {
        let to = variants(&[("pr-1", &[server])]);
        Routes::new().service("cart", &[vip], &to).workload(workload(pod, "environment: pr-1"))
    };
    let below = AgentOptions {
        routes: routes(inner_server.at, &inner).to_string(),
        cgroup: Some(scene.cluster.cgroup_dir().join("slice")),
        ..AgentOptions::default()
    };
    let above = scene.agent(&routes(outer_server.at, &scene.client), &[])?;
    let below = Agent::start_with(&scene.cluster, below)?;
    for _ in 0..2 {
        let report = hello(vip).run(&scene.client)?;
        assert_eq!(answer(&report), "outer");
        expect(&access(&above, report.local)?, &[("outcome", "ok")]);
        let report = hello(vip).run(&inner)?;
        assert_eq!(answer(&report), "inner-server");
        expect(&access(&below, report.local)?, &[("outcome", "ok")]);
    }
    Ok(())
}
