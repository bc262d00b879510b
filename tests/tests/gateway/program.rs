//! `picop`, started as users start it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testbed::{picop_bin, wait_timeout, wait_until};

use crate::Result;

pub const SOON: Duration = Duration::from_secs(30);

/// The program, without what the environment of whoever runs the tests says.
fn picop() -> Result<Command> {
    let mut command = Command::new(picop_bin()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PICOP_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Result<Output> {
    Ok(picop()?.args(args).stdin(Stdio::null()).output()?)
}

/// The same, with standard input, which ends.
pub fn feed(args: &[&str], input: &[u8]) -> Result<Output> {
    let mut command = picop()?;
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().ok_or("piped")?, input)?;
    Ok(child.wait_with_output()?)
}

/// What it says on standard output, if it succeeds.
pub fn said(args: &[&str]) -> Result<String> {
    let output = run(args)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "picop {args:?}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A gateway that runs. It is killed when this is dropped.
pub struct Gateway {
    child: Child,
    log: PathBuf,
}

impl Gateway {
    /// Starts one, with its log in `dir`.
    pub fn start(dir: &Path, args: &[&str]) -> Result<Self> {
        Self::spawn(dir, &[&["gateway"], args].concat())
    }

    /// A controller, which is no gateway and is run in the same way.
    pub fn controller(dir: &Path, database: &str) -> Result<Self> {
        let often = ["--retry-interval", "300ms"];
        Self::spawn(
            dir,
            &[&["controller", "--listen", "127.0.0.1:0", "--database", database], &often[..]].concat(),
        )
    }

    fn spawn(dir: &Path, args: &[&str]) -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let log = dir.join(format!("gateway-{}.log", SERIAL.fetch_add(1, Ordering::Relaxed)));
        let mut command = picop()?;
        command.args(args).args(["--log-format", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        Ok(Self { child: command.spawn()?, log })
    }

    /// What it has logged so far.
    pub fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Where it listens, on loopback.
    pub fn address(&self, what: &str) -> Result<SocketAddr> {
        self.said_where(what, |line| line["message"] == "listening" && line["what"] == what)
    }

    /// Where a controller does.
    pub fn answers_at(&self) -> Result<SocketAddr> {
        self.said_where("a controller", |line| line["message"] == "the controller answers")
    }

    fn said_where(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<SocketAddr> {
        let said = || {
            let lines = self.lines();
            lines.iter().find(|line| is_it(line))?["address"].as_str()?.parse::<SocketAddr>().ok()
        };
        let at = wait_until(what, SOON, said)
            .with_context(|| fs::read_to_string(&self.log).unwrap_or_default())?;
        Ok(SocketAddr::new([127, 0, 0, 1].into(), at.port()))
    }

    /// Its access lines so far.
    pub fn access(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["target"] == "access").collect()
    }

    pub fn signal(&self, signal: Signal) -> Result {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(wait_timeout(&mut self.child, SOON)?.ok_or("it does not end")?)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A proxy like the reference's, told through its admin API, or by a controller.
pub struct Proxy {
    _gateway: Gateway,
    pub at: SocketAddr,
    pub admin: SocketAddr,
}

impl Proxy {
    pub fn start(dir: &Path, default: SocketAddr, propagate: bool) -> Result<Self> {
        Self::start_with(dir, default, propagate, &[])
    }

    /// One that takes what it is told from the controller at `url`, as the proxy `id`.
    pub fn of_controller(
        dir: &Path,
        default: SocketAddr,
        propagate: bool,
        url: &str,
        id: &str,
    ) -> Result<Self> {
        Self::start_with(dir, default, propagate, &["--controller-url", url, "--id", id])
    }

    fn start_with(dir: &Path, default: SocketAddr, propagate: bool, more: &[&str]) -> Result<Self> {
        let (default, propagate) = (default.to_string(), format!("--propagate={propagate}"));
        let args =
            ["proxy", "--proxy-port", "0", "--admin-port", "0", "--default-addr", &default, &propagate];
        let gateway = Gateway::start(dir, &[&args[..], more].concat())?;
        Ok(Self {
            at: gateway.address("connections")?,
            admin: gateway.address("admin API")?,
            _gateway: gateway,
        })
    }

    /// Tells it where an environment's connections go, by `picop curl`.
    pub fn put(&self, environment: &str, to: SocketAddr) -> Result {
        let url = format!("http://{}/admin/envs", self.admin);
        let data = json!([{"env_id": environment, "destination": to.to_string()}]).to_string();
        tell("PUT", &url, &data)
    }

    /// What its admin API says of an environment; none if it has no such environment.
    pub fn get(&self, environment: &str) -> Result<Option<Value>> {
        let url = format!("http://{}/admin/env/{environment}", self.admin);
        let output = run(&["curl", "--url", &url, "--fail"])?;
        if !output.status.success() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&output.stdout)?))
    }
}

/// Has something be done by `picop curl`; the answer is 200 and nothing else.
pub fn tell(method: &str, url: &str, data: &str) -> Result {
    assert_eq!(said(&["curl", "--url", url, "--method", method, "--data", data, "--fail"])?, "");
    Ok(())
}
