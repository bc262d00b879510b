//! `cargo xtask`: the project's chores, from a bare machine to a passing test run.
//!
//! Each subcommand is a file: what it needs from the machine it asks [`setup`] for, so that any of them can be
//! the first command a newcomer types.

mod bench;
mod build;
mod build_ebpf;
mod demo;
mod dist;
mod exec;
mod lint;
mod manifests;
mod memory;
mod program;
mod setup;
mod soak;
mod test;
mod toolchain;
mod vm;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "picop's chores: setup, build, demo, test")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    BuildEbpf(build_ebpf::Args),
    Lint(lint::Args),
    Manifests(manifests::Args),
    Bench(bench::Args),
    Demo(demo::Args),
    Dist(dist::Args),
    Soak(soak::Args),
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(args),
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Manifests(args) => manifests::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Test(args) => test::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
