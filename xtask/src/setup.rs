//! `cargo xtask setup`: what the chores need from the machine, and getting it.
//!
//! Nothing is asked of the network, and nothing changed, unless something is missing.

mod apt;
mod envoy;
mod kubectl;
mod linker;
mod mysql;
mod profiler;
mod tools;

use crate::toolchain::{self, Compiler, Toolchain};
use anyhow::{Context, Result, bail};
use apt::Apt;
use tools::Group;

/// Bring this machine to where picop builds: a compiler and linker for the eBPF side, and on demand what the
/// demo and the tests run.
///
/// Says what it installs and why; does nothing when nothing is missing.
#[derive(clap::Args)]
pub struct Args {
    /// Only say what is missing; exit with a failure if anything is.
    #[arg(long)]
    check: bool,

    /// Also get ready for these.
    #[arg(long = "for", value_name = "WHAT", value_delimiter = ',')]
    groups: Vec<Purpose>,
}

/// What the machine is to be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// The demo: namespaces and a real redis.
    Demo,
    /// The tests: real servers and clients, formatter and lints.
    Test,
    /// The kernel matrix.
    Vm,
    /// What the benchmarks run beside picop: the proxies it is measured against, and what counts instructions.
    Peers,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<()> {
    let Args { check, groups } = args;
    if check {
        return report(&groups);
    }
    let toolchain = ensure_toolchain()?;
    ensure(&groups)?;
    println!("ready: {}", describe(&toolchain));
    Ok(())
}

fn describe(toolchain: &Toolchain) -> String {
    format!("{}; {}", toolchain.compiler.describe(), toolchain.linker.display())
}

fn report(purposes: &[Purpose]) -> Result<()> {
    let mut missing = 0;
    if let Some(toolchain) = toolchain::find()? {
        println!("eBPF toolchain: {}", describe(&toolchain));
    } else {
        missing += 1;
        println!("eBPF toolchain: missing\n{}", by_hand());
    }
    for tool in Group::of(purposes).missing() {
        missing += 1;
        println!("{}: missing; {}", tool.program, tool.why);
    }
    if purposes.contains(&Purpose::Peers) && !envoy::is_installed() {
        missing += 1;
        println!("envoy: missing; a proxy the relay is measured against");
    }
    match missing {
        0 => Ok(()),
        missing => bail!("{missing} missing: cargo xtask setup installs them"),
    }
}

pub use apt::extract;
pub use envoy::ensure as ensure_envoy;
pub use kubectl::ensure as ensure_kubectl;
pub use mysql::ensure as ensure_mysql;
pub use profiler::ensure as ensure_profiler;
pub use tools::{NGINX_STREAM, Peer, ensure_peer};

/// The programs these purposes need; installs those that are missing.
pub fn ensure(purposes: &[Purpose]) -> Result<()> {
    Group::of(purposes).install_missing()?;
    if purposes.contains(&Purpose::Peers) {
        envoy::ensure()?;
    }
    Ok(())
}

/// Fetches the package lists, for those who look for packages in them.
pub fn refresh_package_lists() -> Result<()> {
    Apt::update()
}

/// A working toolchain for the eBPF side; installs what is missing for the route nearest to being complete.
pub fn ensure_toolchain() -> Result<Toolchain> {
    if let Some(toolchain) = toolchain::find()? {
        return Ok(toolchain);
    }
    if toolchain::compilers()?.is_empty() {
        install_compiler()?;
    }
    let compilers = toolchain::compilers()?;
    let mut failures = Vec::new();
    for compiler in &compilers {
        match linker::install(compiler) {
            Ok(()) => match toolchain::find()? {
                Some(toolchain) => return Ok(toolchain),
                None => failures.push(format!("bpf-linker does not work with {}", compiler.describe())),
            },
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("no working toolchain for the eBPF side: {}\n{}", failures.join("; "), by_hand());
}

/// Debian's compiler where the distribution has it, since it needs no other source; else rustup's nightly.
fn install_compiler() -> Result<()> {
    let packages = [
        ("rustc-web", "a compiler that knows the BPF target"),
        ("cargo-web", "the cargo that belongs to it"),
        ("libstd-rust-web-dev-bpf", "`core`, compiled for BPF"),
    ];
    if Apt::exists() {
        Apt::update()?;
        if packages.iter().all(|(package, _)| Apt::offers(package)) {
            return Apt::install(&packages);
        }
    }
    if crate::workspace::program("rustup").is_none() && Apt::exists() && Apt::offers("rustup") {
        Apt::install(&[("rustup", "it installs the nightly compiler, which can build `core` for BPF")])?;
    }
    let Some(rustup) = crate::workspace::program("rustup") else {
        bail!("no compiler for the eBPF side, and no known way to get one here\n{}", by_hand());
    };
    let mut install = std::process::Command::new(rustup);
    crate::exec::without_outer_cargo(&mut install).args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ]);
    crate::exec::run(
        "installing rustup's nightly with rust-src: it builds `core` for the BPF target",
        &mut install,
    )
    .with_context(by_hand)
}

fn by_hand() -> String {
    format!(
        "one of these is needed:
  1. rustup toolchain install nightly --profile minimal --component rust-src
     and bpf-linker built with the same LLVM (rustc +nightly -vV names it)
  2. on Debian: rustc-web, cargo-web and libstd-rust-web-dev-bpf (1.96 or later)
     and bpf-linker built with that LLVM
  bpf-linker: cargo install bpf-linker --version {} --no-default-features --features llvm-22 --locked
     with LLVM_PREFIX naming an LLVM 22 with its headers",
        linker::VERSION
    )
}

/// Names a compiler and its missing part, for messages.
fn for_compiler(compiler: &Compiler) -> String {
    format!("{} (LLVM {})", compiler.rustc.display(), compiler.llvm)
}
