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
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For it to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// `picop gateway http`, which ends with this.
pub struct Gateway {
    pub address: SocketAddr,
    child: Child,
    /// Reads what it says, which must not fill the pipe.
    reading: JoinHandle<()>,
}

impl Gateway {
    /// Starts it, with one worker.
    pub async fn start(picop: &Path, server: SocketAddr, domain: &str) -> Result<Self> {
        let mut command = Command::new(picop);
        // What it is told by the user's environment is for other gateways.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PICOP_"))
        {
            command.env_remove(name);
        }
        let mut child = command
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
        let reading = tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Ok(Self { address, child, reading })
    }

    /// Has it end in order.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("it has ended")?;
        kill_process(pid, Signal::TERM).context("ending the gateway")?;
        let status = timeout(PATIENCE, self.child.wait()).await.context("it did not end in time")??;
        self.reading.await?;
        ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }
}

async fn listening(log: &mut Lines<BufReader<ChildStderr>>) -> Result<SocketAddr> {
    let mut said = Vec::new();
    while let Some(line) = log.next_line().await? {
        let event = serde_json::from_str::<Value>(&line).unwrap_or_default();
        if let (Some("http"), Some(address)) = (event["what"].as_str(), event["address"].as_str()) {
            return address.parse().with_context(|| format!("where does it listen? {line}"));
        }
        said.push(line);
    }
    anyhow::bail!("the gateway ended: {}", said.join("\n"))
}
