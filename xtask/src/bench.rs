//! `cargo xtask bench`: what picop costs, measured against the same thing without it, in one run.
//!
//! A suite alternates its variants in short rounds, in random order within a round, and compares them round by round: what
//! disturbs the machine for longer than a round disturbs all of them. One variant is the yardstick a second time; how far it
//! is from itself is how far the others can be trusted. No time decides whether a run fails; a connection that went
//! elsewhere than its variant says does.

mod connect;
mod cpu;
mod load;
pub mod machine;
mod relay;
mod report;
mod stats;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use testbed::{Privilege, privilege};

use crate::build::{self, Programs};
use crate::demo::interrupt;
use crate::workspace;

/// What is measured is what users run.
const PROFILE: &str = "release";

/// Measure what picop costs. Needs root; takes a quiet machine to mean anything.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(clap::Subcommand)]
enum Suite {
    Connect(connect::Args),
    Relay(relay::Args),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    if let Privilege::Missing(what) = privilege() {
        bail!(
            "the benchmarks make network namespaces and cgroups and load eBPF programs, and lack {}: run them as root",
            what.join(", ")
        );
    }
    interrupt::watch()?;
    let result = match &args.suite {
        Suite::Connect(args) => connect::run(args),
        Suite::Relay(args) => relay::run(args),
    };
    // Whoever cleans up after a signal also ends the process.
    interrupt::settle();
    result
}

/// The agent, built unless it is given, and the helper program.
fn programs(picop: Option<&Path>) -> Result<Programs> {
    let Some(picop) = picop else { return build::agent(PROFILE) };
    let picop = picop.canonicalize().with_context(|| format!("no picop at {}", picop.display()))?;
    let mut cargo = Command::new(workspace::cargo());
    cargo.current_dir(workspace::root());
    cargo.args(["build", "--profile", PROFILE, "--package", "picop-tests", "--bin", "hop"]);
    let built = build::executables("building the benchmark's client and server", &mut cargo)?;
    let hop = built.into_iter().next().context("cargo built no program")?.path;
    Ok(Programs { picop, hop })
}
