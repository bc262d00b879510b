//! The direct path: what the kernel decides and does by itself, without the agent between client and server.

mod behaviour;
mod by_client;
mod failures;
mod fastopen;
mod forms;
mod leave;
mod logs;
mod many;
mod memory;
mod pins;
mod routing;
mod slots;
mod stale;
mod status;
mod wait;
mod weights;

use std::net::SocketAddr;

use anyhow::Context as _;
use serde_json::Value;
use testbed::Agent;

use crate::common::{Recorder, Result, Routes, Scene, header, variants};

/// What a workload is like that is routed by the kernel.
const AUTO: &str = "environment: pr-1, path: auto";

/// A service with a variant in pr-1, and a client there.
struct Direct {
    scene: Scene,
    server: Recorder,
    vip: SocketAddr,
    vip6: SocketAddr,
    agent: Agent,
}

impl Direct {
    /// `policy` is that of the service's headers.
    fn new(name: &str, policy: &str) -> Result<Self> {
        Self::with(name, policy, AUTO)
    }

    fn with(name: &str, policy: &str, workload: &str) -> Result<Self> {
        let scene = Scene::new(name)?;
        let server = scene.recorder("variant")?;
        let (vip, vip6) = (scene.vip(), scene.vip6());
        let settings = format!("header: {policy}, {}", variants(&[("pr-1", &[server.at, server.at6])]));
        let routes =
            Routes::new().service("cart", &[vip, vip6], &settings).workload(scene.workload(workload));
        let agent = scene.agent(&routes, &[])?;
        Ok(Self { scene, server, vip, vip6, agent })
    }
}

/// What the kernel writes for a workload in pr-1.
fn pr_1() -> Vec<u8> {
    header(&[("Env-Id", "pr-1")])
}

/// The access lines of connections to `original`, of which there are at least `count`, and of nothing else.
fn told(agent: &Agent, original: SocketAddr, count: usize) -> Result<Vec<Value>> {
    let original = original.to_string();
    let lines = agent.wait_access(count, |line| line["original"] == *original)?;
    Ok(lines)
}

/// The last of these.
fn last_told(agent: &Agent, original: SocketAddr, count: usize) -> Result<Value> {
    let lines = told(agent, original, count)?;
    assert_eq!(lines.len(), count, "{lines:?}");
    Ok(lines.into_iter().last().context("at least one line")?)
}
