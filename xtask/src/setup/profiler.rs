//! What it takes to compile by a profile: the compiler's counters, and the program that puts together what they counted.

use super::Apt;
use crate::{exec, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `llvm-profdata` of the LLVM that is in the compiler in use: another one may not read what it writes. Installed if it is missing.
pub fn ensure() -> Result<PathBuf> {
    let rustc =
        std::env::var_os("RUSTC").map_or_else(|| workspace::cargo().with_file_name("rustc"), PathBuf::from);
    let told = exec::capture(Command::new(&rustc).arg("-vV"))?;
    let sysroot = exec::capture(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let (host, llvm) = about(&told).with_context(|| format!("{} -vV says: {told}", rustc.display()))?;
    let own = Path::new(sysroot.trim()).join("lib/rustlib").join(host);
    ensure!(
        has_counters(&own.join("lib"))?,
        "the standard library of {} has no counters (profiler_builtins)",
        rustc.display()
    );
    let component = own.join("bin/llvm-profdata");
    if workspace::is_executable(&component) {
        return Ok(component);
    }
    if std::env::var_os("RUSTUP_TOOLCHAIN").is_some() {
        exec::run(
            "adding llvm-tools to your Rust toolchain: a profile is put together by it",
            Command::new("rustup").args(["component", "add", "llvm-tools"]),
        )?;
        ensure!(workspace::is_executable(&component), "llvm-tools is installed, but without llvm-profdata");
        return Ok(component);
    }
    let name = format!("llvm-profdata-{llvm}");
    if let Some(packaged) = workspace::program(&name) {
        return Ok(packaged);
    }
    let package = format!("llvm-{llvm}");
    if !Apt::exists() {
        bail!("there is no {name}: install LLVM {llvm}");
    }
    Apt::update()?;
    ensure!(Apt::offers(&package), "there is no {name}, and no package {package}");
    Apt::install(&[(&package, "a profile is put together by its llvm-profdata")])?;
    workspace::program(&name).with_context(|| format!("{package} is installed, but there is no {name}"))
}

/// The compiler's own machine, and the major version of its LLVM.
fn about(told: &str) -> Option<(&str, u32)> {
    let line = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some((line("host:")?, line("LLVM version:")?.split('.').next()?.parse().ok()?))
}

fn has_counters(libraries: &Path) -> Result<bool> {
    let entries = fs::read_dir(libraries).with_context(|| format!("reading {}", libraries.display()))?;
    for entry in entries {
        if entry?.file_name().to_string_lossy().starts_with("libprofiler_builtins-") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compiler_says_of_itself() {
        let told = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(about(told), Some(("x86_64-unknown-linux-gnu", 22)));
        assert_eq!(about("rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\n"), None);
        assert_eq!(about("host: x\nLLVM version: twenty\n"), None);
    }

    #[test]
    fn a_library_with_counters_has_that_name() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(!has_counters(dir.path()).expect("readable"));
        fs::write(dir.path().join("libprofiler_builtins-0123.rlib"), "").expect("written");
        assert!(has_counters(dir.path()).expect("readable"));
        assert!(has_counters(&dir.path().join("none")).is_err());
    }
}
