//! A MariaDB of the test's own, at a Unix socket.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::{Result, programs};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What makes it small. Every commit is on the disk when it is answered, as it is by default.
const SMALL: [&str; 3] =
    ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M", "--performance-schema=OFF"];

/// A server. It is killed when this is dropped.
pub struct MariaDb {
    dir: PathBuf,
    child: Child,
}

impl MariaDb {
    pub async fn start(dir: &Path) -> Result<Self> {
        let data = format!("--datadir={}", dir.join("data").display());
        let install = Command::new(programs::path("mariadb-install-db")?)
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", &data, "--innodb-log-file-size=8M"])
            .output()
            .await?;
        ensure!(install.status.success(), "{install:?}");
        std::fs::write(dir.join("init.sql"), "CREATE DATABASE IF NOT EXISTS picop;\n")?;
        let child = spawn(dir).await?;
        Ok(Self { dir: dir.to_owned(), child })
    }

    /// How a controller finds it.
    pub fn database(&self) -> String {
        Self::database_in(&self.dir)
    }

    /// How a controller finds one that is started there, or will be.
    pub fn database_in(dir: &Path) -> String {
        format!("mysql://root@localhost/picop?socket={}", dir.join("sock").display())
    }

    /// kill -9, and the same data again.
    pub async fn kill_and_restart(&mut self) -> Result {
        self.child.kill().await?;
        std::fs::remove_file(self.dir.join("sock")).context("its socket")?;
        self.child = spawn(&self.dir).await?;
        Ok(())
    }
}

async fn spawn(dir: &Path) -> Result<Child> {
    let at = |option: &str, name: &str| format!("--{option}={}", dir.join(name).display());
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log"))?;
    let mut child = Command::new(programs::path("mariadbd")?)
        .args(["--no-defaults", "--user=root", "--skip-networking"])
        .args(SMALL)
        .args([
            at("datadir", "data"),
            at("socket", "sock"),
            at("pid-file", "pid"),
            at("init-file", "init.sql"),
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting mariadbd")?;
    let end = Instant::now() + PATIENCE;
    while UnixStream::connect(dir.join("sock")).await.is_err() {
        let says = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        ensure!(child.try_wait()?.is_none() && Instant::now() < end, "mariadbd does not begin:\n{}", says());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(child)
}
