//! Entering a pod. Only a process of its own can join a cgroup and a namespace without `unsafe` (there is no fork here),
//! so the testbed starts every program through this.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::fd::AsFd as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

#[derive(clap::Args)]
pub struct Args {
    /// The cgroup directory to join
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// The network namespace to join, as a path
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

pub fn run(args: Args) -> Result<()> {
    if let Some(dir) = args.cgroup {
        let procs = dir.join("cgroup.procs");
        // 0 stands for the writing process.
        fs::write(&procs, "0").with_context(|| format!("joining through {}", procs.display()))?;
    }
    if let Some(path) = args.netns {
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("entering {}", path.display()))?;
    }
    // Thousands of connections at once are a test of the agent, not of the shell's defaults.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("raising the limit of open files")?;
    let (program, arguments) = args.program.split_first().context("no program to run")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}
