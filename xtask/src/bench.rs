//! `cargo xtask bench`: what picop costs, measured against the same thing without it, in one run.
//!
//! A suite alternates its variants in short rounds, in random order within a round, and compares them round by round: what
//! disturbs the machine for longer than a round disturbs all of them. One variant is the yardstick a second time; how far it
//! is from itself is how far the others can be trusted. No time decides whether a run fails; a connection that went
//! elsewhere than its variant says does.

mod book;
mod compare;
mod connect;
mod consumption;
mod counts;
mod cpu;
mod delay;
mod doc;
mod gateway;
mod load;
pub mod machine;
mod noise;
mod paced;
mod peer;
mod progress;
mod reduction;
mod relay;
mod report;
mod results;
mod scale;
mod stats;
mod watch;
mod web;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use testbed::{Privilege, privilege};

use crate::build::{self, Programs};
use crate::demo::interrupt;
use crate::{exec, program, setup};
use results::{Extent, Results};

/// Measure what picop costs: all suites, or one of them. Needs root; takes a quiet machine to mean anything.
///
/// What is measured is the program that `cargo xtask dist` installs, which takes a quarter of an hour to build. `--picop` names another.
///
/// Results are kept in bench-results/, with a report made of the last ones of all suites.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    suite: Option<Suite>,

    /// All suites, each as short as shows whether something is much slower, in a few minutes; compared with the last time.
    #[arg(long)]
    quick: bool,

    /// End with one line of JSON on standard output for each suite.
    #[arg(long)]
    json: bool,

    /// Measure this build of picop, rather than building one.
    #[arg(long, value_name = "PATH")]
    picop: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Suite {
    Connect(connect::Args),
    Relay(relay::Args),
    Delay(delay::Args),
    Gateway(gateway::Args),
    Consumption(consumption::Args),
    Scale(scale::Args),
    Counts(counts::Args),
    Reduction(reduction::Args),
    Report(book::Args),
}

/// What a suite came to.
pub struct Outcome {
    /// One object; its form is that of all suites.
    json: Value,
    /// For people.
    text: String,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    if let Some(Suite::Report(args)) = &args.suite {
        return book::run(args);
    }
    if let Some(Suite::Reduction(args)) = &args.suite {
        // Needs no privilege: it computes.
        return finish(reduction::run(args)?, args.extent(), args.json);
    }
    if let Privilege::Missing(what) = privilege() {
        bail!(
            "the benchmarks make network namespaces and cgroups and load eBPF programs, and lack {}: run them as root",
            what.join(", ")
        );
    }
    interrupt::watch()?;
    let result = match &args.suite {
        Some(suite) => suite.programs().and_then(|programs| suite.run(&programs)),
        None => all(args),
    };
    // Whoever cleans up after a signal also ends the process.
    interrupt::settle();
    result
}

/// All suites, one after the other; those after one that fails as well.
fn all(args: &Args) -> Result<()> {
    let began = Instant::now();
    let programs = programs(args.picop.as_deref())?;
    let mut failed = Vec::new();
    for suite in Suite::all(args.quick, args.json)? {
        let started = Instant::now();
        if let Err(error) = suite.run(&programs) {
            // If it is a signal that made it fail, this is where the process ends.
            interrupt::settle();
            eprintln!("error: {}: {error:#}", suite.name());
            failed.push(suite.name());
        }
        exec::announce(&format!("{} took {:.0} s", suite.name(), started.elapsed().as_secs_f64()));
    }
    exec::announce(&format!("all suites took {:.0} s", began.elapsed().as_secs_f64()));
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

impl Suite {
    /// As they are run without a word about how.
    fn all(quick: bool, json: bool) -> Result<Vec<Self>> {
        let words: Vec<_> = [(quick, "--quick"), (json, "--json")]
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, word)| *word)
            .collect();
        Ok(vec![
            Self::Connect(with(&words)?),
            Self::Relay(with(&words)?),
            Self::Delay(with(&words)?),
            Self::Gateway(with(&words)?),
            Self::Consumption(with(&words)?),
            Self::Reduction(with(&words)?),
            Self::Scale(with(&words)?),
            Self::Counts(with(&words)?),
        ])
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Relay(_) => "relay",
            Self::Delay(_) => delay::SUITE,
            Self::Gateway(_) => gateway::SUITE,
            Self::Consumption(_) => consumption::SUITE,
            Self::Scale(_) => scale::SUITE,
            Self::Counts(_) => counts::SUITE,
            Self::Reduction(_) => reduction::SUITE,
            Self::Report(_) => "report",
        }
    }

    fn programs(&self) -> Result<Programs> {
        programs(match self {
            Self::Connect(args) => args.picop.as_deref(),
            Self::Relay(args) => args.picop.as_deref(),
            Self::Delay(args) => args.picop.as_deref(),
            Self::Gateway(args) => args.picop.as_deref(),
            Self::Consumption(args) => args.picop.as_deref(),
            Self::Scale(args) => args.picop.as_deref(),
            Self::Counts(args) => args.picop.as_deref(),
            Self::Reduction(_) | Self::Report(_) => None,
        })
    }

    fn run(&self, programs: &Programs) -> Result<()> {
        match self {
            Self::Connect(args) => finish(connect::run(args, programs)?, args.extent(), args.json),
            Self::Relay(args) => finish(relay::run(args, programs)?, args.extent(), args.json),
            Self::Delay(args) => finish(delay::run(args, programs)?, args.extent(), args.json),
            Self::Gateway(args) => finish(gateway::run(args, programs)?, args.extent(), args.json),
            Self::Consumption(args) => finish(consumption::run(args, programs)?, args.extent(), args.json),
            Self::Scale(args) => finish(scale::run(args, programs)?, args.extent(), args.json),
            Self::Counts(args) => finish(counts::run(args, programs)?, args.extent(), args.json),
            Self::Reduction(args) => finish(reduction::run(args)?, args.extent(), args.json),
            Self::Report(args) => book::run(args),
        }
    }
}

/// A suite's arguments, from these words.
fn with<A: clap::Args>(words: &[&str]) -> Result<A> {
    let command = A::augment_args(clap::Command::new("bench").no_binary_name(true));
    Ok(A::from_arg_matches(&command.try_get_matches_from(words)?)?)
}

/// Shows a result, keeps it, and makes the report anew.
fn finish(outcome: Outcome, extent: Extent, as_json: bool) -> Result<()> {
    let Outcome { json, text } = outcome;
    let results = Results::here();
    let suite = json["suite"].as_str().unwrap_or_default().to_owned();
    // What can be compared is a run of the same extent; a part of a suite is what somebody looks at right now.
    let earlier = if extent == Extent::Part { None } else { results.last(&suite, extent)? };
    let json = results.store(extent, json)?;
    print!("{text}");
    if let Some(earlier) = earlier {
        print!("{}", compare::section(&earlier, &json).plain());
    }
    if extent == Extent::Whole {
        book::write(&results)?;
    }
    if as_json {
        println!("{json}");
    }
    Ok(())
}

/// Tells the testbed which programs to run, and removes what killed runs have left.
fn use_programs(programs: &Programs) -> Result<()> {
    let Programs { picop, hop } = programs.clone();
    if testbed::picop_bin().ok().as_ref() != Some(&picop) || testbed::hop_bin().ok().as_ref() != Some(&hop) {
        testbed::set_programs(picop, hop)?;
    }
    for id in testbed::sweep()? {
        exec::announce(&format!("removed what a killed run had left: {id}"));
    }
    Ok(())
}

/// The agent as it is installed, unless another one is given, and the helper program.
fn programs(picop: Option<&Path>) -> Result<Programs> {
    setup::ensure(&[setup::Purpose::Demo])?;
    let picop = match picop {
        Some(picop) => picop.canonicalize().with_context(|| format!("no picop at {}", picop.display()))?,
        None => program::build()?,
    };
    Ok(Programs { picop, hop: build::hop()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_suites_run_wholly_by_default_and_quickly_if_asked() {
        for (quick, extent) in [(false, Extent::Whole), (true, Extent::Quick)] {
            let suites = Suite::all(quick, false).expect("defaults");
            assert_eq!(suites.len(), 8);
            for suite in suites {
                let found = match &suite {
                    Suite::Connect(args) => args.extent(),
                    Suite::Relay(args) => args.extent(),
                    Suite::Delay(args) => args.extent(),
                    Suite::Gateway(args) => args.extent(),
                    Suite::Consumption(args) => args.extent(),
                    Suite::Scale(args) => args.extent(),
                    Suite::Counts(args) => args.extent(),
                    Suite::Reduction(args) => args.extent(),
                    Suite::Report(_) => panic!("no suite"),
                };
                assert_eq!(found, extent, "{}", suite.name());
            }
        }
    }
}
