//! `cargo xtask build-ebpf`: the object that the agent embeds.

pub mod inputs;
mod reproducible;

use crate::toolchain::{TARGET, Toolchain};
use crate::{exec, setup, workspace};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Compile the eBPF programs to target/ebpf/picop.o, which the agent embeds.
///
/// Sets the toolchain up first if it is missing. The object's bytes do not depend on where the checkout is.
#[derive(clap::Args)]
pub struct Args {
    /// Build a copy of the sources in another directory too, and compare byte for byte.
    #[arg(long)]
    check_reproducible: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    let Args { check_reproducible } = *args;
    let toolchain = setup::ensure_toolchain()?;
    build(&toolchain)?;
    if check_reproducible {
        reproducible::check(&toolchain)?;
    }
    Ok(())
}

/// Builds the object unless the one that is there is of the sources as they are.
pub fn ensure() -> Result<()> {
    let object = workspace::ebpf_object();
    if object.is_file()
        && besides().iter().all(|(_, object)| object.is_file())
        && inputs::recorded(&object).is_some_and(|hash| inputs::hash(&workspace::root()).ok() == Some(hash))
    {
        return Ok(());
    }
    build(&setup::ensure_toolchain()?)
}

fn build(toolchain: &Toolchain) -> Result<()> {
    let root = workspace::root();
    // Taken before the compiler reads the sources: an edit while it runs makes the object stale, not fresh.
    let hash =
        inputs::hash(&root).with_context(|| format!("cannot read the eBPF sources in {}", root.display()))?;
    let started = Instant::now();
    let built = compile(toolchain, &root, &workspace::target().join("ebpf-build"))?;
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;

    let object = workspace::ebpf_object();
    for (name, object) in besides() {
        let built = built.with_file_name(name);
        let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        replace(&object, &bytes)?;
    }
    let changed = replace(&object, &bytes)?;
    replace(&inputs::record_of(&object), format!("{hash}\n").as_bytes())?;
    println!(
        "{}: {} bytes, {}, {:.1} s",
        object.display(),
        bytes.len(),
        if changed { "changed" } else { "as before" },
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Objects that no agent loads, by what they are built as: for tests, and for a benchmark.
fn besides() -> [(&'static str, PathBuf); 3] {
    [
        ("naive", workspace::naive_object()),
        ("floor", workspace::floor_object()),
        ("translate", workspace::translate_object()),
    ]
}

/// Compiles the workspace at `root`; returns where the object is.
fn compile(toolchain: &Toolchain, root: &Path, target_dir: &Path) -> Result<PathBuf> {
    let mut cargo = toolchain.cargo("build", root, target_dir);
    cargo.args(["--package", "picop-ebpf", "--profile", "ebpf", "--locked"]);
    exec::run(&format!("compiling the eBPF programs with {}", toolchain.compiler.describe()), &mut cargo)?;
    Ok(target_dir.join(TARGET).join("ebpf/picop-ebpf"))
}

/// Writes the file whole, and only if its content changes: its time is what the agent's build goes by.
fn replace(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let directory = path.parent().context("a file has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}", std::process::id()));
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}
