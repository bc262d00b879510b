//! The compiler and linker for the eBPF side: which of the two known routes this machine offers.
//!
//! 1. a rustup nightly with the `rust-src` component, which compiles `core` itself;
//! 2. Debian's packaged compiler, which ships `core` for the BPF target.
//!
//! A route counts only when a tiny program has been compiled and linked by it: `bpf-linker` must be built with
//! an LLVM that reads what the compiler's LLVM wrote, and nothing but trying tells.

pub mod compiler;
mod probe;

pub use compiler::{Compiler, Route};

use crate::{exec, workspace};
use anyhow::Result;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What bpf-linker and the verifier call the little-endian BPF machine.
pub const TARGET: &str = "bpfel-unknown-none";

/// A compiler with a linker that is known to work with it.
#[derive(Debug, Clone)]
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: PathBuf,
}

/// Looks for a working toolchain, best route first.
pub fn find() -> Result<Option<Toolchain>> {
    for compiler in compiler::installed()? {
        if let Some(linker) = probe::working_linker(&compiler)? {
            return Ok(Some(Toolchain { compiler, linker }));
        }
    }
    Ok(None)
}

/// The compilers that could build the eBPF side if they had a linker, best route first.
pub fn compilers() -> Result<Vec<Compiler>> {
    compiler::installed()
}

impl Toolchain {
    /// `cargo SUBCOMMAND` for the BPF target, for the workspace at `root`, with every output under `target_dir`.
    ///
    /// Paths of this machine are replaced in what the compiler writes, so that two checkouts give one object.
    pub fn cargo(&self, subcommand: &str, root: &Path, target_dir: &Path) -> Command {
        let Compiler { route, cargo, rustc, sysroot, .. } = &self.compiler;
        let mut command = Command::new(cargo);
        exec::without_outer_cargo(&mut command)
            .current_dir(root)
            .arg(subcommand)
            .args(["--target", TARGET])
            .arg("--target-dir")
            .arg(target_dir)
            .env("RUSTC", rustc)
            .env("PATH", path_with(cargo.parent()))
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags(root, target_dir, sysroot));
        match route {
            // `core` for a BPF target comes with no rustup channel.
            Route::Nightly => command.arg("-Zbuild-std=core"),
            // A stable compiler, and aya-ebpf needs one unstable feature.
            Route::Packaged => command.env("RUSTC_BOOTSTRAP", "1"),
        };
        command
    }

    /// Takes the place of flags from the user's environment and configuration: they are for other targets.
    fn rustflags(&self, root: &Path, target_dir: &Path, sysroot: &Path) -> OsString {
        let mut flags: Vec<OsString> = Vec::new();
        let mut linker = OsString::from("-Clinker=");
        linker.push(&self.linker);
        flags.push(linker);
        flags.extend(["-Clink-arg=--btf", "-Cdebuginfo=2"].map(OsString::from));
        // The last match wins: the target directory may lie inside the workspace.
        let home = workspace::cargo_home();
        for (path, name) in
            [(sysroot, "/rust"), (&*home, "/cargo"), (root, "/picop"), (target_dir, "/target")]
        {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(path);
            flag.push("=");
            flag.push(name);
            flags.push(flag);
        }
        flags.join(&OsString::from("\u{1f}"))
    }
}

/// `PATH` with that directory first: cargo looks there for its subcommands and for the compiler's companions.
fn path_with(first: Option<&Path>) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = first.map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(directories).unwrap_or(path)
}
