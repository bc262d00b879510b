//! The graft: payload carried past the agent, in order and whole, and back through it whenever it must.

mod cork;
mod counts;
mod ends;
mod order;
mod switch;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use testbed::stream::StreamReport;
use testbed::{Agent, Pod, Proc, wait_until};

use crate::common::{Result, Routes, Scene, access_again, variants};

/// While somebody writes without a break, the graft begins only at a moment when the agent is done and the writer has not sent
/// anew. Within a connection that ends after milliseconds there may be none, so no test may ask for it of a single one.
pub const CONNECTIONS: usize = 10;

/// A server and a client under the test's control, with the agent between them, which grafts.
pub struct Grafted {
    pub scene: Scene,
    pub agent: Agent,
    pub server_pod: Pod,
    pub vip: SocketAddr,
    pub at: SocketAddr,
}

/// What both ends of a connection say, and the agent's line about it.
pub struct Outcome {
    pub client: StreamReport,
    pub server: StreamReport,
    pub line: Value,
}

impl Grafted {
    pub fn new(name: &str) -> Result<Self> {
        Self::with(name, "graft: always", false)
    }

    pub fn with(name: &str, settings: &str, v6: bool) -> Result<Self> {
        Self::in_scene(Scene::new(name)?, settings, v6, &[])
    }

    /// The same, with arguments for the agent.
    pub fn in_scene(scene: Scene, settings: &str, v6: bool, args: &[&str]) -> Result<Self> {
        let server_pod = scene.cluster.pod("server")?;
        let (vip, at) =
            if v6 { (scene.vip6(), server_pod.at6(8080)) } else { (scene.vip(), server_pod.at4(8080)) };
        let routes = Routes::new()
            .service("cart", &[vip], &format!("{settings}, {}", variants(&[("pr-1", &[at])])))
            .workload(scene.workload("environment: pr-1"));
        let agent = scene.agent(&routes, args)?;
        Ok(Self { scene, agent, server_pod, vip, at })
    }

    /// Starts the server's end, `hop stream`.
    pub fn serve(&self, args: &str) -> Result<Proc> {
        Ok(self.server_pod.serve("stream", self.at, args.split_whitespace())?)
    }

    /// Connections against that server until bytes were grafted both ways; what they said. Each is whole.
    ///
    /// # Panics
    ///
    /// If none of [`CONNECTIONS`] were: what all of them were like.
    pub fn exchange_until_grafted(&self, server: &Proc, args: &str) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        let (mut up, mut down) = (0, 0);
        while up == 0 || down == 0 {
            let lines = outcomes.iter().map(|outcome: &Outcome| &outcome.line);
            assert!(
                outcomes.len() < CONNECTIONS,
                "grafted {up} up, {down} down: {:#?}",
                lines.collect::<Vec<_>>()
            );
            let outcome = self.exchange(server, outcomes.len(), args)?;
            let grafted = outcome.whole().grafted();
            (up, down) = (up + grafted.0, down + grafted.1);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// One connection against that server, the `number`th: what both ends say.
    pub fn exchange(&self, server: &Proc, number: usize, args: &str) -> Result<Outcome> {
        let mut command = vec!["stream".to_owned(), "--to".to_owned(), self.vip.to_string()];
        command.extend(args.split_whitespace().map(str::to_owned));
        let before = self.agent.access_lines().len();
        let output = self.scene.client.run(self.scene.client.hop(command)?, Duration::from_secs(120))?;
        let client: StreamReport =
            serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))?;
        let server = wait_until("the server's report", Duration::from_secs(60), || {
            let text = server.stdout();
            let line = text.split_inclusive('\n').nth(number)?;
            serde_json::from_str::<StreamReport>(line.strip_suffix('\n')?).ok()
        })?;
        let line = access_again(&self.agent, client.local, before)?;
        Ok(Outcome { client, server, line })
    }
}

impl Outcome {
    /// Both ends got everything.
    #[track_caller]
    pub fn whole(&self) -> &Self {
        let Self { client, server, line } = self;
        assert!(client.ok && server.ok, "client {client:?}\nserver {server:?}\nagent {line}");
        assert_eq!(line["outcome"], "ok", "{line}");
        assert_eq!(line["relayed_for"], "relay_asked", "{line}");
        assert_eq!(line["bytes_up"], server.received, "{line}");
        assert_eq!(line["bytes_down"], client.received, "{line}");
        self
    }

    /// Bytes grafted: up, down.
    pub fn grafted(&self) -> (u64, u64) {
        let field = |name: &str| self.line[name].as_u64().unwrap_or(0);
        (field("grafted_up"), field("grafted_down"))
    }
}
