//! `cargo xtask lint`: formatting, and clippy on both sides of the kernel's border.

use crate::{build_ebpf, exec, setup, workspace};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// What of `picop-common` is for other programs: its examples and some of its tests are built only with these.
pub const LIBRARY_FEATURES: &str = "picop-common/tokio,picop-common/opentelemetry,picop-common/schemars";

/// Check formatting and run clippy, warnings denied, on user space and on the eBPF programs.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    let Args {} = args;
    build_ebpf::ensure()?;
    setup::ensure(&[setup::Purpose::Test])?;
    format()?;
    clippy()?;
    if let Some(reason) = clippy_ebpf()? {
        println!("clippy on the eBPF programs skipped: {reason}");
    }
    Ok(())
}

/// Is everything formatted?
pub fn format() -> Result<()> {
    exec::run("checking formatting", cargo().args(["fmt", "--all", "--", "--check"]))
}

/// Clippy on everything that runs in user space.
pub fn clippy() -> Result<()> {
    let mut clippy = cargo();
    clippy.args(["clippy", "--all-targets", "--features", LIBRARY_FEATURES, "--", "-D", "warnings"]);
    exec::run("clippy on user space", &mut clippy)
}

/// Clippy on the eBPF programs; the reason, if the compiler that builds them has no clippy.
pub fn clippy_ebpf() -> Result<Option<String>> {
    let toolchain = setup::ensure_toolchain()?;
    let beside = |name: &str| workspace::is_executable(&toolchain.compiler.cargo.with_file_name(name));
    if !beside("cargo-clippy") {
        return Ok(Some(format!("{} has no clippy", toolchain.compiler.describe())));
    }
    let target_dir = workspace::target().join("ebpf-build");
    let mut clippy = toolchain.cargo("clippy", Path::new(&workspace::root()), &target_dir);
    clippy.args(["--package", "picop-ebpf", "--profile", "ebpf", "--locked", "--", "-D", "warnings"]);
    exec::run("clippy on the eBPF programs", &mut clippy)?;
    Ok(None)
}

fn cargo() -> Command {
    let mut cargo = Command::new(workspace::cargo());
    cargo.current_dir(workspace::root());
    cargo
}
