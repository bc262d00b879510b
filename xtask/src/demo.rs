//! `cargo xtask demo`: picop at work, in a little cluster on this machine.
//!
//! Three services deep, frontend -> cart -> db, where db is a real redis. Two environments share them: `pr-1` brings a
//! cart of its own, `pr-2` a db of its own; everything else is the base's.

mod ask;
pub(crate) mod interrupt;
mod keep;
mod proof;
mod report;
mod stage;
mod switch;

use std::time::Instant;

use anyhow::{Result, bail};
use testbed::{Privilege, privilege};

use crate::setup::Purpose;
use crate::{build, exec, setup};
use stage::Stage;

/// Show picop at work: make a little cluster on this machine, route requests in it by environment, and clean up.
///
/// Needs root: pods are network namespaces and cgroups. Nothing of the machine's own network is touched.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct Args {
    /// Take routes from a Kubernetes cluster's objects instead of a file: from a double of its API server, with pods laid out
    /// as a kubelet does it.
    #[arg(long, conflicts_with_all = ["keep", "clean"])]
    kubernetes: bool,

    /// Leave the cluster up at the end, and print commands to try in it.
    #[arg(long, conflicts_with = "clean")]
    keep: bool,

    /// End with one line of JSON on standard output.
    #[arg(long)]
    json: bool,

    /// Remove what --keep left up.
    #[arg(long)]
    clean: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    let &Args { kubernetes, keep, json, clean } = args;
    if let Privilege::Missing(what) = privilege() {
        bail!(
            "the demo makes network namespaces and cgroups and loads eBPF programs, and lacks {}: run it as root",
            what.join(", ")
        );
    }
    if clean {
        return keep::clean();
    }
    interrupt::watch()?;
    let result = show(kubernetes, keep, json);
    // Whoever cleans up after a signal also ends the process.
    interrupt::settle();
    result
}

fn show(kubernetes: bool, keep: bool, json: bool) -> Result<()> {
    let started = Instant::now();
    setup::ensure(&[Purpose::Demo])?;
    let programs = build::agent(build::PROFILE)?;
    testbed::set_programs(programs.picop, programs.hop)?;
    let built = started.elapsed();

    for id in testbed::sweep()? {
        exec::announce(&format!("removed what a killed run had left: {id}"));
    }
    exec::announce("making a cluster: each pod a network namespace and a cgroup on one bridge");
    let mut stage = Stage::build(kubernetes)?;
    exec::announce("starting picop");
    stage.start_agent()?;

    exec::announce("asking in each environment");
    let rows = ask::ask_all(&stage)?;
    report::print_table(&rows);
    ask::check(&rows)?;

    exec::announce("counting what redis got");
    let proof = proof::prove(&stage)?;
    report::print_proof(&proof);

    let by = if kubernetes { "its EndpointSlice" } else { "the route file" };
    exec::announce(&format!(
        "moving pr-1's cart to a second instance, by {by}, while its client keeps asking"
    ));
    let switch = switch::observe(&stage)?;
    report::print_switch(&switch);
    switch.check()?;

    let seconds = (built.as_secs_f64(), started.elapsed().as_secs_f64());
    if keep {
        keep::print_commands(&stage)?;
        stage.keep()?;
    } else {
        exec::announce("removing the cluster");
        stage.remove()?;
    }
    exec::announce(&format!("done in {:.1} s, of which building took {:.1} s", seconds.1, seconds.0));
    if json {
        println!("{}", report::json(&rows, &proof, &switch, seconds, keep));
    }
    Ok(())
}
