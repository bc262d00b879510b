//! Programs that picop is measured with or against: finding, starting.

pub mod configuration;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testbed::{Cluster, Pod, Proc};

use crate::{setup, workspace};

/// Enough for any of the programs.
pub const DESCRIPTORS: u64 = 65_536;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With its module for TCP.
    Nginx,
    Haproxy,
    Envoy,
}

/// A program that is here.
#[derive(Clone, Debug)]
pub struct Program {
    kind: Kind,
    path: PathBuf,
    /// As it says itself.
    pub version: String,
}

impl Program {
    /// Finds it; installs it if it is missing.
    pub fn find(kind: Kind) -> Result<Self> {
        let on_path = |name: &str| workspace::program(name).with_context(|| format!("there is no {name}"));
        let (path, option) = match kind {
            Kind::Nginx => {
                setup::ensure_peer(setup::Peer::NginxStream)?;
                (on_path("nginx")?, "-v")
            }
            Kind::Haproxy => {
                setup::ensure_peer(setup::Peer::Haproxy)?;
                (on_path("haproxy")?, "-v")
            }
            Kind::Envoy => (setup::ensure_envoy()?, "--version"),
        };
        let mut ask = Command::new(&path);
        // nginx says it on standard error.
        let said = ask.arg(option).output().with_context(|| format!("cannot start {}", path.display()))?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let version = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let version = version.replace(&*path.to_string_lossy(), "");
        let version = version.trim_start().trim_start_matches("version:");
        Ok(Self { kind, path, version: version.trim().to_owned() })
    }
}

/// A running one.
#[derive(Debug)]
pub struct Peer {
    pub proc: Proc,
    pub version: String,
    /// Its whole configuration.
    pub configuration: String,
}

impl Peer {
    /// Starts it in a pod, and waits until it listens on `port`. `configuration` is asked for with the directory that is its own.
    pub fn start(
        program: &Program,
        cluster: &Cluster,
        pod: &Pod,
        name: &str,
        port: u16,
        configuration: impl FnOnce(&Path) -> String,
    ) -> Result<Self> {
        let Program { kind, path, version } = program;
        let directory = cluster.dir().join(name);
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let configuration = configuration(&directory);
        // Envoy goes by the name's end.
        let file = directory.join(if *kind == Kind::Envoy { "configuration.yaml" } else { "configuration" });
        fs::write(&file, &configuration).with_context(|| format!("writing {}", file.display()))?;
        let mut command = pod.command(path)?;
        match kind {
            Kind::Nginx => command.args(["-e", "stderr", "-p"]).arg(&directory).arg("-c").arg(&file),
            Kind::Envoy => command
                .args(["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"])
                .arg("--config-path")
                .arg(&file),
            Kind::Haproxy => command.arg("-db").arg("-f").arg(&file),
        };
        let mut proc = pod.spawn(name, command)?;
        proc.wait_for_port(port)?;
        Ok(Self { proc, version: version.clone(), configuration })
    }
}

/// As many descriptors as this process may have, or as are wanted, for all that it starts; says how many.
pub fn raise_limits(wanted: u64) -> Result<u64> {
    let limit = |current, maximum| setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum });
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = maximum.map_or(wanted, |maximum| maximum.max(wanted));
    // More than the maximum only with CAP_SYS_RESOURCE.
    if limit(wanted, Some(all)).is_ok() {
        return Ok(wanted);
    }
    let descriptors = maximum.context("descriptors without a maximum could not be had")?;
    limit(descriptors, maximum).with_context(|| format!("asking for {descriptors} descriptors"))?;
    Ok(descriptors)
}

/// How many connections a program of so many descriptors can carry, each of which takes two; it has others besides.
pub fn connections(descriptors: u64) -> u64 {
    descriptors.saturating_sub(500) / 2
}
