//! `picop`: the node agent and its command line.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use picop_agent::{
    app,
    cli::{Cli, Command, controller::ControllerArgs},
    controller, ctl, gateway,
    intercept::{
        canary, cgroup,
        pins::{self, Uninstalled},
    },
    source::{file, kubernetes::crd},
    sys::Allocator,
    telemetry,
};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    // Where the system has huge pages for everybody, what the allocator has in reserve would be memory that is never used. Where they
    // cannot be declined (a seccomp filter may say so), there is more of that, and nothing else is wrong.
    let _is_declined = rustix::thread::disable_transparent_huge_pages(true);
    // Some take the flags of programs written in Go.
    let cli = Cli::parse_from(gateway::args::go_style(std::env::args_os()));
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // One line: what, and why, down to the first cause.
            eprintln!("picop: {}", telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => {
            let logs = telemetry::logs::init(args.log_format, &args.log).context("--log")?;
            if let Some(file) = &args.cgroup_namespace {
                cgroup::enter_namespace(file)?;
            }
            // What carries connections has runtimes of its own: see `relay::threads`.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")?;
            runtime.block_on(app::run(*args, logs))?;
        }
        Command::Gateway(command) => gateway::run(*command)?,
        Command::Curl(args) => return Ok(gateway::terminal::curl(args)?),
        Command::Connect(args) => gateway::terminal::connect(&args)?,
        Command::Decode(args) => gateway::decode::run(&args)?,
        Command::Doctor(args) => return Ok(picop_agent::doctor::run(&args)),
        Command::Controller(args) => control(args)?,
        Command::Status(args) => picop_agent::status::run(&args)?,
        Command::Connections(args) => ctl::connections(&args)?,
        Command::Routes(args) => return ctl::routes(&args),
        Command::Environments(ask) => ctl::environments(&ask)?,
        Command::Workloads(ask) => ctl::workloads(&ask)?,
        Command::Explain(args) => ctl::explain(&args)?,
        Command::Trace(args) => ctl::trace(&args)?,
        Command::Top(args) => ctl::top(&args)?,
        Command::Config(command) => ctl::config(&command)?,
        Command::Log(command) => ctl::log_level(&command)?,
        Command::SupportBundle { ask, output } => ctl::support_bundle(&ask, output)?,
        Command::Completions { shell } => ctl::completions(shell)?,
        Command::Man { dir } => ctl::man(dir.as_deref())?,
        Command::Uninstall { pin_dir, header_grace } => {
            let Uninstalled { sets, kept, left } = pins::uninstall(&pin_dir, header_grace)?;
            for set in &sets {
                println!("removed {}", set.display());
            }
            if sets.is_empty() {
                println!("nothing is pinned in {}", pin_dir.display());
            }
            for set in &kept {
                println!("the agent of {} still runs, and keeps its programs until it ends", set.display());
            }
            if left > 0 {
                eprintln!(
                    "picop: warning: {left} sockets were still enrolled after {header_grace:?}: what they send first has \
                     no header"
                );
            }
        }
        Command::Check { file } => {
            let found = file::check(&file)?;
            println!(
                "{}: {} services ({} addresses, {} variants), {} environments, {} workload entries",
                file.display(),
                found.services,
                found.addresses,
                found.variants,
                found.environments,
                found.workloads
            );
        }
        Command::Schema => print!("{}", file::schema()),
        Command::IsReady { file } => {
            return Ok(if file.exists() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Crds => print!("{}", crd::yaml()?),
        Command::Canary { cgroup, home } => canary::process(&cgroup, &home).context("the canary failed")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn control(args: ControllerArgs) -> Result<()> {
    telemetry::logs::init(args.log_format, &args.log).context("--log")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let mut stop = app::Stop::new()?;
        // There is nothing to reload.
        let reload = tokio::sync::Notify::new();
        let stopped = async move { stop.requested(&reload).await };
        Ok(controller::run(args.options(), stopped).await?)
    })
}
