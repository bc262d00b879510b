//! What `hop soak-client` is told, and what it says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::pod::Pod;
use crate::process::Proc;

/// Connections to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// How many, in all.
    pub count: u64,
    /// By so many threads.
    pub threads: usize,
    /// Where to, in turn.
    pub targets: Vec<Target>,
}

/// Where to connect to, and what is to come of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// The address.
    pub to: SocketAddr,
    /// By an IPv6 socket, to the v4-mapped address.
    pub mapped: bool,
    /// The number of the server that is to answer.
    pub server: u16,
    /// What the server is to be sent ahead of the request, in hexadecimal.
    pub header: String,
}

/// How far a client is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Whether this is its last word.
    pub ended: bool,
    /// Connections of which everything was right.
    pub done: u64,
    /// Those of them whose server was to be sent a header, and was.
    pub with_header: u64,
    /// Connections of which something was wrong.
    pub failed: u64,
    /// What, of the first ones.
    pub errors: Vec<String>,
}

/// A running `hop soak-client`.
#[derive(Debug)]
pub struct SoakClient {
    proc: Proc,
}

impl SoakClient {
    /// Starts one in a pod.
    pub fn start(pod: &Pod, plan: &Plan) -> Result<Self> {
        let command = pod.hop(["soak-client", "--plan", &serde_json::to_string(plan)?])?;
        Ok(Self { proc: pod.spawn("soak-client", command)? })
    }

    /// What it said last.
    ///
    /// # Errors
    /// When it has ended without a last word.
    pub fn progress(&mut self) -> Result<Progress> {
        let ended = self.proc.try_wait()?;
        let text = self.proc.stdout();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let last = whole.lines().last().map(serde_json::from_str::<Progress>).transpose();
        let last = last.with_context(|| format!("not a soak client's words: {whole}"))?.unwrap_or_default();
        match ended {
            Some(status) if !last.ended => {
                bail!("a client ended ({status}) without a last word: {}", self.proc.stderr())
            }
            _ => Ok(last),
        }
    }

    /// Waits for its end, which its last word announced.
    pub fn wait(mut self, deadline: Duration) -> Result<()> {
        self.proc.wait(deadline).map(drop)
    }
}
