//! MariaDB's or MySQL's servers, which know nothing of PiCoP.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testbed::mysql::Engine;
use testbed::wait_until;

use crate::Result;

/// A server with a table `demo.things`. It is killed when this is dropped.
pub struct Database {
    child: Child,
    pub at: SocketAddr,
}

/// Makes a data directory with the system's tables, to be copied: making one takes seconds.
pub fn install(engine: &Engine, dir: &Path) -> Result {
    fs::create_dir(dir)?;
    let output = Command::from(engine.install(dir)).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Database {
    /// Starts the server number `number` of this process, on an address of loopback that is its own.
    pub fn start(engine: &Engine, template: &Path, dir: &Path, number: u8) -> Result<Self> {
        let own = dir.join(format!("database-{number}"));
        assert!(Command::new("cp").arg("-a").args([template, &own]).status()?.success());
        let [.., high, low] = std::process::id().to_be_bytes();
        let at = SocketAddr::new(Ipv4Addr::new(127, high, low, number).into(), 3306);
        fs::write(
            own.join("init.sql"),
            "CREATE USER app@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON *.* TO app@'%';\nCREATE DATABASE demo;\n\
             CREATE TABLE demo.things (name VARCHAR(50));\n",
        )?;
        let log = fs::File::create(own.join("log"))?;
        let child = Command::from(engine.serve(&own))
            .args(["--skip-name-resolve", &format!("--bind-address={}", at.ip())])
            .arg(format!("--port={}", at.port()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let database = Self { child, at };
        wait_until("a database", Duration::from_secs(60), || TcpStream::connect(at).ok())?;
        Ok(database)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs a statement on the server that answers at `at`, with MariaDB's own client.
pub fn query(at: SocketAddr, statement: &str) -> Result<String> {
    let output = Command::new("mariadb")
        .args(["--no-defaults", "--protocol=tcp", "--skip-ssl", "--user=app", "--password=secret"])
        .args(["--batch", "--skip-column-names", "--connect-timeout=20"])
        .args([format!("--host={}", at.ip()), format!("--port={}", at.port())])
        .args(["-e", statement])
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?.split_whitespace().collect::<Vec<_>>().join(","));
    }
    Err(String::from_utf8_lossy(&output.stderr).into())
}
