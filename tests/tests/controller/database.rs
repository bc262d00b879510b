//! A MySQL or MariaDB of the test's own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use testbed::mysql::Engine;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::Result;

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of MySQL's protocol. The address is the test's own.
const PORT: u16 = 3306;

/// An address of loopback for a server of this process, its own if no other test has that number.
pub fn address(number: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(127, high, low, number).into(), PORT)
}

/// What a server begins with, if a test wants no more.
const DATABASE: &str = "CREATE DATABASE IF NOT EXISTS picop;\n";

/// A server. It is killed when this is dropped.
pub struct Database {
    engine: Engine,
    dir: PathBuf,
    /// Where it answers besides its Unix socket.
    at: Option<SocketAddr>,
    options: Vec<String>,
    child: Child,
}

impl Database {
    /// At a Unix socket alone.
    pub async fn start(engine: &Engine, dir: &Path) -> Result<Self> {
        Self::of(engine, dir, None, "", &[]).await
    }

    /// At [an address](address) too. It begins with the statements, one a line, of which each may be done again.
    pub async fn at(
        engine: &Engine,
        dir: &Path,
        at: SocketAddr,
        statements: &str,
        options: &[String],
    ) -> Result<Self> {
        Self::of(engine, dir, Some(at), statements, options).await
    }

    async fn of(
        engine: &Engine,
        dir: &Path,
        at: Option<SocketAddr>,
        statements: &str,
        options: &[String],
    ) -> Result<Self> {
        let install = Command::from(std::process::Command::from(engine.install(dir))).output().await?;
        ensure!(install.status.success(), "{install:?}");
        fs::write(dir.join("init.sql"), format!("{DATABASE}{statements}"))?;
        let child = spawn(engine, dir, at, options).await?;
        Ok(Self { engine: engine.clone(), dir: dir.to_owned(), at, options: options.to_vec(), child })
    }

    /// How a controller finds it.
    pub fn url(&self) -> String {
        Self::url_in(&self.dir)
    }

    /// How a controller finds one that is started there, or will be.
    pub fn url_in(dir: &Path) -> String {
        url(dir, "root", "")
    }

    /// The same for a user, who may have a password, and with more settings (`&name=value`).
    pub fn url_of(&self, user: &str, settings: &str) -> String {
        url(&self.dir, user, settings)
    }

    /// kill -9.
    pub async fn kill(&mut self) -> Result {
        self.child.kill().await?;
        fs::remove_file(self.dir.join("sock")).context("its socket")?;
        Ok(())
    }

    /// kill -9, and the same data again.
    pub async fn kill_and_restart(&mut self) -> Result {
        self.kill().await?;
        self.child = spawn(&self.engine, &self.dir, self.at, &self.options).await?;
        Ok(())
    }
}

fn url(dir: &Path, user: &str, settings: &str) -> String {
    format!("mysql://{user}@localhost/picop?socket={}{settings}", dir.join("sock").display())
}

async fn spawn(engine: &Engine, dir: &Path, at: Option<SocketAddr>, options: &[String]) -> Result<Child> {
    let network = at.map_or_else(
        || vec!["--skip-networking".to_owned()],
        |at| vec![format!("--bind-address={}", at.ip()), format!("--port={}", at.port())],
    );
    let log = fs::File::options().create(true).append(true).open(dir.join("log"))?;
    let mut child = Command::from(std::process::Command::from(engine.serve(dir)))
        .args(network)
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting a database server")?;
    let end = Instant::now() + PATIENCE;
    while UnixStream::connect(dir.join("sock")).await.is_err() {
        let says = || fs::read_to_string(dir.join("log")).unwrap_or_default();
        ensure!(child.try_wait()?.is_none() && Instant::now() < end, "it does not begin:\n{}", says());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(child)
}
