//! Compilers with `core` for the BPF target.

use crate::{exec, workspace};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How `core` comes to the BPF target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A rustup nightly that compiles `core` from the `rust-src` component.
    Nightly,
    /// The distribution's compiler, with `core` prebuilt.
    Packaged,
}

impl Route {
    /// A word for file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Packaged => "packaged",
        }
    }
}

/// A compiler that can make BPF bitcode.
#[derive(Debug, Clone)]
pub struct Compiler {
    pub route: Route,
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    pub sysroot: PathBuf,
    /// The major version of the LLVM inside: bpf-linker's must not be older.
    pub llvm: u32,
    /// All of `rustc -vV`: two compilers that differ at all differ here.
    pub version: String,
}

/// Those of the two routes whose compiler is installed, best first.
pub fn installed() -> Result<Vec<Compiler>> {
    let mut compilers = Vec::new();
    compilers.extend(nightly()?);
    compilers.extend(packaged()?);
    Ok(compilers)
}

fn nightly() -> Result<Option<Compiler>> {
    let Some(rustup) = workspace::program("rustup") else { return Ok(None) };
    let mut which = Command::new(rustup);
    // Asking where a toolchain is must not install it.
    exec::without_outer_cargo(&mut which).env("RUSTUP_AUTO_INSTALL", "0");
    let Ok(rustc) = exec::capture(which.args(["which", "--toolchain", "nightly", "rustc"])) else {
        return Ok(None);
    };
    let rustc = PathBuf::from(rustc.trim());
    let Some(sysroot) = rustc.parent().and_then(Path::parent) else { return Ok(None) };
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
        return Ok(None);
    }
    Compiler::inspect(Route::Nightly, rustc.clone(), sysroot.to_path_buf()).map(Some)
}

const PACKAGED_RUSTC: &str = "/usr/bin/rustc";
const PACKAGED_CARGO: &str = "/usr/bin/cargo";

/// Whether the distribution's compiler is here, with `core` for the BPF target.
pub fn packaged_is_installed() -> bool {
    Path::new("/usr/lib/rustlib").join(super::TARGET).join("lib").is_dir()
        && [PACKAGED_RUSTC, PACKAGED_CARGO].iter().all(|program| workspace::is_executable(Path::new(program)))
}

fn packaged() -> Result<Option<Compiler>> {
    if !packaged_is_installed() {
        return Ok(None);
    }
    Compiler::inspect(Route::Packaged, PathBuf::from(PACKAGED_RUSTC), PathBuf::from("/usr")).map(Some)
}

impl Compiler {
    fn inspect(route: Route, rustc: PathBuf, sysroot: PathBuf) -> Result<Self> {
        let mut ask = Command::new(&rustc);
        let version = exec::capture(exec::without_outer_cargo(&mut ask).arg("-vV"))?;
        let llvm = llvm_major(&version)
            .with_context(|| format!("{} -vV names no LLVM version: {version}", rustc.display()))?;
        Ok(Self { route, cargo: rustc.with_file_name("cargo"), rustc, sysroot, llvm, version })
    }

    /// The compiler in a few words.
    pub fn describe(&self) -> String {
        let release = self.version.lines().next().unwrap_or("rustc");
        format!("{release} at {}, LLVM {}", self.rustc.display(), self.llvm)
    }
}

fn llvm_major(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn llvm_version_is_read_from_the_compiler() {
        let text =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(text), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
        assert_eq!(llvm_major("LLVM version: next\n"), None);
    }
}
