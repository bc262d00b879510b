//! `cargo xtask bench report`: all suites' last results as one report.

mod connections;
mod losses;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::doc::Section;
use super::results::{self, Extent, Results};
use super::{consumption, counts, delay, gateway, reduction, scale};
use crate::{exec, workspace};

/// Write the report anew from the results that are kept, without measuring.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also docs/BENCHMARKS.md: the same without the plots, to be committed.
    #[arg(long)]
    docs: bool,
}

/// In the order of the report.
const SUITES: [&str; 8] = [
    "connect",
    "relay",
    delay::SUITE,
    gateway::SUITE,
    consumption::SUITE,
    reduction::SUITE,
    scale::SUITE,
    counts::SUITE,
];

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    let results = Results::here();
    let book = write(&results)?;
    exec::announce(&format!("wrote {}", results.directory().join("report.md").display()));
    if args.docs {
        let path = workspace::root().join("docs/BENCHMARKS.md");
        results::write(&path, &book.markdown(false))?;
        exec::announce(&format!("wrote {}", path.display()));
    }
    Ok(())
}

/// Writes report and plots of what there is.
pub fn write(results: &Results) -> Result<Book> {
    let book = Book::read(results)?;
    for plot in book.sections.iter().flat_map(Section::plots) {
        results.write(&format!("{}.svg", plot.name), &plot.svg()?)?;
    }
    results.write("report.md", &book.markdown(true))?;
    Ok(book)
}

/// All of it.
#[derive(Debug)]
pub struct Book {
    stamps: Vec<String>,
    missing: Vec<&'static str>,
    losses: Vec<String>,
    sections: Vec<Section>,
}

impl Book {
    /// From the last whole results.
    fn read(results: &Results) -> Result<Self> {
        let mut all = BTreeMap::new();
        for suite in SUITES {
            if let Some(result) = results.last(suite, Extent::Whole)? {
                all.insert(suite, result);
            }
        }
        ensure!(!all.is_empty(), "there are no results yet: run `cargo xtask bench`");
        Self::of(&all)
    }

    fn of(all: &BTreeMap<&'static str, Value>) -> Result<Self> {
        let mut sections = Vec::new();
        for suite in SUITES {
            if let Some(result) = all.get(suite) {
                sections.push(section(suite, result).with_context(|| format!("the last result of {suite}"))?);
            }
        }
        Ok(Self {
            stamps: stamps(all),
            missing: SUITES.into_iter().filter(|suite| !all.contains_key(suite)).collect(),
            losses: losses::all(all),
            sections,
        })
    }

    fn markdown(&self, with_plots: bool) -> String {
        let mut text = "# What picop costs\n\n\
            <!-- Written by `cargo xtask bench report --docs` from the last results of all suites; do not edit. -->\n\n\
            `cargo xtask bench` measures all of this (as root, on a quiet machine; about three quarters of an hour on two CPUs), `cargo xtask \
            bench SUITE` a part of it. Everything is compared within one run, in which the variants alternate; intervals are of 95%. \
            Client, servers and everything in between share one machine, so a proxy's CPU time also shows in response times. \
            HAProxy, nginx and Envoy have one worker each, as the agent has where they are compared.\n"
            .to_owned();
        for stamp in &self.stamps {
            write!(text, "\n- {stamp}").expect("a String takes all");
        }
        text.push('\n');
        if !self.missing.is_empty() {
            writeln!(text, "\nNot measured yet: {}.", self.missing.join(", ")).expect("a String takes all");
        }
        text.push_str("\n## Where picop loses\n\n");
        if self.losses.is_empty() {
            text.push_str("Nothing that was measured says so; more should be measured.\n");
        }
        for loss in &self.losses {
            writeln!(text, "- {loss}").expect("a String takes all");
        }
        for section in &self.sections {
            text.push('\n');
            text.push_str(&section.markdown(with_plots));
        }
        text
    }
}

/// One line for each machine and commit, with its suites.
fn stamps(all: &BTreeMap<&'static str, Value>) -> Vec<String> {
    let mut by_stamp: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for suite in SUITES {
        let Some(result) = all.get(suite) else { continue };
        let of = |key: &str| result[key].as_str().unwrap_or("unknown").to_owned();
        let stamp = format!("commit {}, Linux {}, {}", of("commit"), of("kernel"), of("machine"));
        by_stamp.entry(stamp).or_default().push(format!("{suite} ({})", of("when")));
    }
    by_stamp.into_iter().map(|(stamp, suites)| format!("{stamp}: {}", suites.join(", "))).collect()
}

fn section(suite: &str, result: &Value) -> Result<Section> {
    match suite {
        "connect" => connections::connect(result),
        "relay" => connections::relay(result),
        delay::SUITE => delay::section(&typed(result)?),
        gateway::SUITE => Ok(gateway::section(&typed(result)?)),
        consumption::SUITE => consumption::section(&typed(result)?),
        reduction::SUITE => Ok(reduction::section(&typed(result)?)),
        scale::SUITE => Ok(scale::section(&typed(result)?)),
        _ => Ok(counts::section(&typed(result)?)),
    }
}

fn typed<T: DeserializeOwned>(result: &Value) -> Result<T> {
    serde_json::from_value(result.clone()).context("it is of another version of the suite: measure again")
}

#[cfg(test)]
mod tests;
