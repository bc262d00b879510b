//! Changes while connections are made all the time: every single one of them must be answered.

use std::net::SocketAddr;
use std::process::{ChildStdin, Stdio};

use serde_json::Value;
use testbed::{Pod, Proc, require_privilege, wait_until};

use crate::common::{Result, Routes, Scene, emulated, soon, variants};

/// `hop load` in a pod.
struct Load {
    proc: Proc,
    stdin: ChildStdin,
}

impl Load {
    fn start(pod: &Pod, to: SocketAddr) -> Result<Self> {
        let patience = (soon().as_millis()).to_string();
        let mut command = pod.hop(["load", "--to", &to.to_string(), "--timeout-ms", &patience])?;
        command.stdin(Stdio::piped());
        let mut proc = pod.spawn("load", command)?;
        let stdin = proc.take_stdin().ok_or("its standard input was asked to be a pipe")?;
        Ok(Self { proc, stdin })
    }

    fn lines(&self) -> Vec<String> {
        let text = self.proc.stdout();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
    }

    /// Waits until `count` more requests were answered by the server of this name.
    fn more_from(&self, name: &str, count: usize) -> Result {
        let marker = format!("[\\\"{name}\\\"]");
        let before = self.lines().len();
        let what = format!("{count} more answers from {name}");
        Ok(wait_until(&what, soon(), || {
            let lines = self.lines();
            (lines.iter().skip(before).filter(|line| line.contains(&marker)).count() >= count).then_some(())
        })?)
    }

    /// Ends it. All it ever asked was answered.
    fn finish(self) -> Result<usize> {
        let Self { mut proc, stdin } = self;
        drop(stdin);
        proc.wait(soon())?;
        let lines = proc.stdout();
        let lines: Vec<Value> =
            lines.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
        let failed: Vec<_> = lines.iter().filter(|line| !line["error"].is_null()).collect();
        assert!(
            failed.is_empty(),
            "{} of {} failed: {:?}",
            failed.len(),
            lines.len(),
            &failed[..failed.len().min(5)]
        );
        Ok(lines.len())
    }
}

/// Servers that say who they are: one at the service's own address, one for the variant.
fn servers(scene: &Scene) -> Result<(SocketAddr, SocketAddr, [Proc; 2])> {
    let start = |name: &str| -> Result<(SocketAddr, Proc)> {
        let pod = scene.cluster.pod(name)?;
        Ok((pod.at4(8080), pod.serve("serve", pod.at4(8080), ["--name", name])?))
    };
    let (real, variant) = (start("real")?, start("variant")?);
    Ok((real.0, variant.0, [real.1, variant.1]))
}

fn rounds() -> usize {
    if emulated() { 1 } else { 10 }
}

#[test]
fn agents_come_and_go() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("agents-under-load")?;
    let (real, variant, _servers) = servers(&scene)?;
    let routes = Routes::new()
        .service("cart", &[real], &variants(&[("pr-1", &[variant])]))
        .workload(scene.workload("environment: pr-1"));
    let load = Load::start(&scene.client, real)?;
    for _ in 0..rounds() {
        load.more_from("real", 20)?;
        let agent = scene.agent(&routes, &[])?;
        load.more_from("variant", 20)?;
        let status = agent.stop()?;
        assert!(status.success(), "{status}");
    }
    load.more_from("real", 20)?;
    load.finish()?;
    Ok(())
}

#[test]
fn variants_come_and_go() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("variants-under-load")?;
    let (real, variant, _servers) = servers(&scene)?;
    let routes = |env: &str| {
        let routes = Routes::new().service("cart", &[real], &variants(&[(env, &[variant])]));
        routes.workload(scene.workload("environment: pr-1")).to_string()
    };
    let agent = scene.agent(&Routes::new().workload(scene.workload("environment: pr-1")), &[])?;
    let load = Load::start(&scene.client, real)?;
    for _ in 0..rounds() {
        agent.routes(&routes("pr-1"))?;
        load.more_from("variant", 20)?;
        agent.routes(&routes("pr-2"))?;
        load.more_from("real", 20)?;
        agent.routes("services: []")?;
        load.more_from("real", 20)?;
    }
    load.finish()?;
    agent.wait_access(rounds() * 20, |line| line["reason"] == "variant" && line["outcome"] == "ok")?;
    let bad: Vec<_> = agent.access_lines().into_iter().filter(|line| line["outcome"] != "ok").collect();
    assert!(bad.is_empty(), "{bad:?}");
    Ok(())
}

#[test]
fn workloads_come_and_go() -> Result {
    require_privilege!(Ok(()));
    let scene = Scene::new("workloads-under-load")?;
    let (real, variant, _servers) = servers(&scene)?;
    let service = Routes::new().service("cart", &[real], &variants(&[("pr-1", &[variant])]));
    let managed = service.clone().workload(scene.workload("environment: pr-1")).to_string();
    let bypassed = service.clone().workload(scene.workload("environment: pr-1, bypass: true")).to_string();
    let agent = scene.agent(&service, &[])?;
    let load = Load::start(&scene.client, real)?;
    for _ in 0..rounds() {
        agent.routes(&managed)?;
        load.more_from("variant", 20)?;
        agent.routes(&bypassed)?;
        load.more_from("real", 20)?;
        agent.routes(&managed)?;
        load.more_from("variant", 20)?;
        // Its listeners go.
        agent.routes(&service.to_string())?;
        load.more_from("real", 20)?;
    }
    load.finish()?;
    let bad: Vec<_> = agent.access_lines().into_iter().filter(|line| line["outcome"] != "ok").collect();
    assert!(bad.is_empty(), "{bad:?}");
    Ok(())
}
