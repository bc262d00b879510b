//! How many connections are borne.

use testbed::{Agent, Talker, require_privilege};

use crate::common::{Result, Routes, Scene, change_workloads, expect, expect_reset, variants, workload};

/// A scene with an echo server behind a service, and two workloads.
struct Limited {
    scene: Scene,
    second: testbed::Pod,
    routes: Routes,
    vip: std::net::SocketAddr,
    _echo: testbed::Proc,
}

impl Limited {
    fn new(name: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let second = scene.cluster.pod("second")?;
        let (at, echo) = scene.echo("echo")?;
        let vip = scene.vip();
        let routes = Routes::new().service("cart", &[vip], &variants(&[("pr-1", &[at])]));
        Ok(Self { scene, second, routes, vip, _echo: echo })
    }

    /// The routes, with these settings for the first of the two workloads.
    fn with(&self, first: &str) -> Routes {
        let routes = self.routes.clone().workload(self.scene.workload(first));
        routes.workload(workload(&self.second, "environment: pr-1"))
    }
}

/// A further connection of `talker` is reset, for there being too many.
fn refused(agent: &Agent, talker: &Talker, vip: std::net::SocketAddr) -> Result {
    let before = agent.access_lines().len();
    let said = talker.try_open(vip)?;
    match said.socket {
        Some(_) => expect_reset(&talker.made(&said)?.receive(1)?),
        None => expect_reset(&said),
    }
    let lines = agent.wait_access(before + 1, |_| true)?;
    expect(&lines[before], &[("outcome", "limit"), ("backend", "-"), ("reason", "-")]);
    Ok(())
}

#[test]
fn one_workload_does_not_take_more_than_its_share() -> Result {
    require_privilege!(Ok(()));
    let limited = Limited::new("per-workload")?;
    let agent =
        limited.scene.agent(&limited.with("environment: pr-1"), &["--max-connections-per-workload", "2"])?;
    let (first, second) = (Talker::in_pod(&limited.scene.client)?, Talker::in_pod(&limited.second)?);
    let talks = [first.open(limited.vip)?, first.open(limited.vip)?];
    for talk in talks {
        talk.echo("within the limit")?;
    }
    refused(&agent, &first, limited.vip)?;
    for talk in talks {
        talk.echo("still here")?;
    }
    second.open(limited.vip)?.echo("a limit of its own")?;
    talks[0].close()?;
    agent.wait_access(1, |line| line["outcome"] == "ok")?;
    first.open(limited.vip)?.echo("room again")?;
    refused(&agent, &first, limited.vip)
}

#[test]
fn the_route_files_limit_goes_before_the_agents_and_changes_with_it() -> Result {
    require_privilege!(Ok(()));
    let limited = Limited::new("by-file")?;
    let agent = limited.scene.agent(
        &limited.with("environment: pr-1, max_connections: 1"),
        &["--max-connections-per-workload", "5"],
    )?;
    let first = Talker::in_pod(&limited.scene.client)?;
    let talk = first.open(limited.vip)?;
    talk.echo("the only one")?;
    refused(&agent, &first, limited.vip)?;
    change_workloads(&agent, &limited.with("environment: pr-1, max_connections: 2"))?;
    first.open(limited.vip)?.echo("the second")?;
    refused(&agent, &first, limited.vip)?;
    talk.echo("still here")?;
    Ok(())
}

#[test]
fn all_workloads_together_do_not_take_more_than_the_agents() -> Result {
    require_privilege!(Ok(()));
    let limited = Limited::new("total")?;
    let agent = limited.scene.agent(&limited.with("environment: pr-1"), &["--max-connections", "2"])?;
    let (first, second) = (Talker::in_pod(&limited.scene.client)?, Talker::in_pod(&limited.second)?);
    first.open(limited.vip)?.echo("one")?;
    let talk = second.open(limited.vip)?;
    talk.echo("two")?;
    refused(&agent, &first, limited.vip)?;
    refused(&agent, &second, limited.vip)?;
    talk.close()?;
    agent.wait_access(1, |line| line["outcome"] == "ok")?;
    first.open(limited.vip)?.echo("room again")?;
    Ok(())
}
