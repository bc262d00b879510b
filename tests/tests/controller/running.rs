//! Controllers that run, and that are killed.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::Result;
use crate::http::ask;

/// How long one may take to begin to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A controller, which may be killed and started again. It is killed when this is dropped.
pub struct Controller {
    database: String,
    child: Child,
    at: Place,
    log: Arc<Mutex<Vec<String>>>,
}

/// Where a controller is now.
#[derive(Clone)]
pub struct Place(Arc<RwLock<SocketAddr>>);

impl Place {
    pub fn now(&self) -> SocketAddr {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, at: SocketAddr) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

impl Controller {
    pub async fn start(database: &str) -> Result<Self> {
        let log = Arc::default();
        let (child, at) = spawn(database, &log).await?;
        Ok(Self { database: database.to_owned(), child, at: Place(Arc::new(RwLock::new(at))), log })
    }

    pub fn place(&self) -> Place {
        self.at.clone()
    }

    /// kill -9, and another one after it.
    pub async fn kill_and_restart(&mut self) -> Result {
        self.child.kill().await?;
        let (child, at) = spawn(&self.database, &self.log).await?;
        self.child = child;
        self.at.is(at);
        Ok(())
    }

    fn pid(&self) -> Result<Pid> {
        self.child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).context("it has ended")
    }

    pub fn signal(&self, signal: Signal) -> Result {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Has it do nothing from here on, until [SIGCONT](Signal::CONT).
    pub fn hang(&self) -> Result {
        self.signal(Signal::STOP)?;
        // Until then some of its threads may still run.
        waitid(WaitId::Pid(self.pid()?), WaitIdOptions::STOPPED)?;
        Ok(())
    }

    /// An end in order.
    pub async fn stop(mut self) -> Result {
        self.signal(Signal::TERM)?;
        let status = timeout(PATIENCE, self.child.wait()).await.context("it does not stop")??;
        anyhow::ensure!(status.success(), "{status}: {}", self.log());
        Ok(())
    }

    /// What it, and those before it, have logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Asks for something that is done.
    pub async fn good(&self, method: &str, path: &str, body: &Value) -> Result {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = ask(self.at.now(), method, path, body).await?;
        anyhow::ensure!(answer == (200, String::new()), "{method} {path}: {answer:?}\n{}", self.log());
        Ok(())
    }
}

async fn spawn(database: &str, log: &Arc<Mutex<Vec<String>>>) -> Result<(Child, SocketAddr)> {
    let mut command = Command::new(testbed::picop_bin()?);
    command.args([
        "controller",
        "--listen",
        "127.0.0.1:0",
        "--retry-interval",
        "300ms",
        "--log-format",
        "json",
    ]);
    command.args(["--database", database]).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("starting a controller")?;
    let mut lines = BufReader::new(child.stderr.take().context("it is piped")?).lines();
    let answers = async {
        while let Some(line) = lines.next_line().await? {
            let said: Value = serde_json::from_str(&line).unwrap_or_default();
            note(log, line);
            if said["message"] == "the controller answers" {
                return Ok(said["address"].as_str().context("no address")?.parse()?);
            }
        }
        bail!("a controller ended:\n{}", log.lock().unwrap_or_else(PoisonError::into_inner).join("\n"))
    };
    let at = timeout(PATIENCE, answers).await.context("a controller does not begin")??;
    let log = Arc::clone(log);
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            note(&log, line);
        }
    });
    Ok((child, at))
}

fn note(log: &Mutex<Vec<String>>, line: String) {
    log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}
