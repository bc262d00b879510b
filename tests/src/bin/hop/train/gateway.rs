//! The gateway itself.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

/// For it to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// `picop gateway http`, which ends with this.
pub struct Gateway {
    pub address: SocketAddr,
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Gateway {
    /// Starts it, with one worker.
    pub async fn start(picop: &Path, server: SocketAddr, domain: &str) -> Result<Self> {
        let mut child = Command::new(picop)
            .args(["gateway", "http", "--listen", "127.0.0.1:0", "--workers", "1", "--cookie", "env"])
            .args(["--log", "info,access=off", "--log-format", "json"])
            .args(["--upstream", &server.to_string()])
            .args(["--host-pattern", &format!("{{env}}.{domain}")])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", picop.display()))?;
        let mut log = BufReader::new(child.stderr.take().context("no standard error")?).lines();
        let address = timeout(PATIENCE, listening(&mut log)).await.context("it did not listen in time")??;
        Ok(Self { address, child, log })
    }

    /// Has it end in order.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it has ended")?;
        kill_process(pid, Signal::TERM).context("ending the gateway")?;
        let ended = async {
            // What it says to the end must not fill the pipe.
            while self.log.next_line().await?.is_some() {}
            self.child.wait().await
        };
        let status = timeout(PATIENCE, ended).await.context("it did not end in time")??;
        ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }
}

async fn listening(log: &mut Lines<BufReader<ChildStderr>>) -> Result<SocketAddr> {
    let mut said = Vec::new();
    while let Some(line) = log.next_line().await? {
        let address = serde_json::from_str::<Value>(&line).ok();
        if let Some(address) = address.as_ref().and_then(|line| line["address"].as_str()) {
            return address.parse().with_context(|| format!("where does it listen? {line}"));
        }
        said.push(line);
    }
    anyhow::bail!("the gateway ended: {}", said.join("\n"))
}
