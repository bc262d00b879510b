//! That each variant's connections took the path they are named after.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use testbed::wait_until;

use super::super::super::load::{Block, Served};
use super::super::variant::Variant;
use super::Stage;

/// For the server to have counted what it has answered.
const PATIENCE: Duration = Duration::from_secs(10);

impl Stage {
    /// From where no program is attached, no service can be reached; that connections to one arrive later is picop's doing.
    pub(super) fn check_control(&mut self) -> Result<()> {
        let cgroup = self.client_cgroup(Variant::None);
        let mut block = Block {
            cgroup: &cgroup,
            to: vec![self.backend(Variant::None)?],
            header: "",
            warm_up: 0,
            port: None,
        };
        self.client.run(&block)?;
        for (variant, service) in self.services.clone() {
            block.to = vec![service];
            let reached = self.client.run(&block).is_ok();
            ensure!(
                !reached,
                "{} was reached from where picop is not: whatever did that is measured",
                variant.name()
            );
        }
        Ok(())
    }

    /// Each variant's connections arrived at its own port, with a header or without, and the relay's passed the agent.
    /// `made` is how many each has made.
    pub fn check(&mut self, variants: &[Variant], made: u64) -> Result<()> {
        for variant in variants {
            let port = self.backend(*variant)?.port();
            // One more for the yardstick: `check_control`.
            let count = if *variant == Variant::None { made + 1 } else { made };
            let expected = if variant.brings_header() {
                Served { with_header: count, without: 0, bad: 0 }
            } else {
                Served { with_header: 0, without: count, bad: 0 }
            };
            let mut got = Served::default();
            // It counts a connection when that has ended.
            let arrived = wait_until("the server's count", PATIENCE, || {
                got = self.server.served().ok()?.get(&port).copied().unwrap_or_default();
                (got == expected).then_some(())
            });
            ensure!(arrived.is_ok(), "{}: the server has seen {got:?}, not {expected:?}", variant.name());
        }
        for relayed in [Variant::Relay, Variant::RelayWatched] {
            if variants.contains(&relayed) {
                let (_, agent) = self.agent_of(relayed)?;
                let count = usize::try_from(made)?;
                agent.wait_access(count, |line| line["service"] == relayed.name())?;
            }
        }
        if let Some(floor) = &self.floor {
            // One message a connection, the first: its ACK takes the socket out.
            let seen = floor.seen()?;
            ensure!(seen == made, "sockhash-floor: {seen} messages of {made} connections met a sockhash");
        }
        for (place, agent) in &self.agents {
            let lines = agent.access_lines();
            let relayed = [Variant::Relay, Variant::RelayWatched].map(Variant::name);
            let passed =
                lines.iter().find(|line| !relayed.iter().any(|name| line["service"] == name.as_str()));
            if let Some(line) = passed {
                bail!(
                    "under {place:?} a connection that is the kernel's alone was relayed or logged, which is measured: {line}"
                );
            }
        }
        Ok(())
    }
}
