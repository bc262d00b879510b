//! `cargo xtask soak`: very many connections, each of which is checked, and then whether anything was left behind or lost
//! on the way. How fast it was is told; it decides nothing.

mod connect;

use anyhow::{Result, bail};
use testbed::{Privilege, privilege};

use crate::demo::interrupt;

/// Make very many connections, and look for what they leave behind. Needs root.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(clap::Subcommand)]
enum Suite {
    Connect(connect::Args),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    if let Privilege::Missing(what) = privilege() {
        bail!(
            "the soak makes network namespaces and cgroups and loads eBPF programs, and lacks {}: run it as root",
            what.join(", ")
        );
    }
    interrupt::watch()?;
    let result = match &args.suite {
        Suite::Connect(args) => connect::run(args),
    };
    // Whoever cleans up after a signal also ends the process.
    interrupt::settle();
    result
}
