//! `picop support-bundle`: what somebody who is to help needs to see, in one file.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context as _, Result};

use super::print;
use crate::{admin::client::Client, cli::ask::Ask, telemetry::chain};

/// What the agent is asked for.
const ASKED: [(&str, &str); 9] = [
    ("status.json", "/v1/status"),
    ("config.json", "/v1/config"),
    ("routes.json", "/v1/routes"),
    ("routes-verify.json", "/v1/routes/verify"),
    ("environments.json", "/v1/environments"),
    ("workloads.json", "/v1/workloads"),
    ("connections.json", "/v1/connections"),
    ("log.json", "/v1/log"),
    ("metrics.txt", "/metrics"),
];

/// What the machine is asked for.
const FILES: [(&str, &str); 6] = [
    ("kernel.txt", "/proc/version"),
    ("command-line.txt", "/proc/cmdline"),
    ("memory.txt", "/proc/meminfo"),
    ("mounts.txt", "/proc/mounts"),
    ("sockets.txt", "/proc/net/sockstat"),
    ("load.txt", "/proc/loadavg"),
];

/// Writes the bundle. What cannot be had is told in it, and does not stop the rest.
pub fn support_bundle(ask: &Ask, to: Option<PathBuf>) -> Result<()> {
    let to = to.unwrap_or_else(|| format!("picop-support-{}.tar", seconds()).into());
    // Never over what is there already.
    let file = File::create_new(&to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut bundle = Bundle { tar: tar::Builder::new(file) };
    let mut problems = Vec::new();
    match Client::connect(&ask.admin_socket) {
        Ok(mut client) => {
            for (name, path) in ASKED {
                match client.raw(path) {
                    Ok(answer) => bundle.add(name, &answer)?,
                    Err(error) => problems.push(format!("{path}: {}", chain(&error))),
                }
            }
        }
        Err(error) => problems.push(chain(&error)),
    }
    for (name, path) in FILES {
        match std::fs::read(path) {
            Ok(content) => bundle.add(name, &content)?,
            Err(error) => problems.push(format!("{path}: {error}")),
        }
    }
    match doctor() {
        Ok(report) => bundle.add("doctor.json", &report)?,
        Err(error) => problems.push(format!("picop doctor: {error}")),
    }
    problems.push(format!("picop {}", env!("CARGO_PKG_VERSION")));
    bundle.add("README.txt", problems.join("\n").as_bytes())?;
    bundle.tar.into_inner().and_then(|file| file.sync_all()).context("cannot finish the bundle")?;
    said(&to, problems.len() - 1)
}

fn said(to: &Path, problems: usize) -> Result<()> {
    let of = if problems > 0 {
        format!(" ({problems} parts could not be had: README.txt in it)")
    } else {
        String::new()
    };
    print(&format!(
        "{}{of}\nIt names workloads, services, environments and addresses; look through it before you pass it on.\n",
        to.display()
    ))
}

struct Bundle {
    tar: tar::Builder<File>,
}

impl Bundle {
    fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds());
        let name = format!("picop-support/{name}");
        self.tar.append_data(&mut header, name, content).context("cannot write the bundle")
    }
}

fn doctor() -> io::Result<Vec<u8>> {
    Ok(Command::new(std::env::current_exe()?).args(["doctor", "--json"]).output()?.stdout)
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
