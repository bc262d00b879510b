//! Building bpf-linker with the LLVM of the compiler it is to serve.

use super::{Apt, for_compiler};
use crate::toolchain::Compiler;
use crate::{exec, workspace};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release whose features [`install`] names.
pub const VERSION: &str = "0.13.0";

/// Builds bpf-linker for that compiler. A `bpf-linker` that the user has already is left alone: it may serve
/// another project.
pub fn install(compiler: &Compiler) -> Result<()> {
    let llvm = compiler.llvm;
    let prefix = llvm_prefix(llvm)?;
    let mut install = Command::new(workspace::cargo());
    exec::without_outer_cargo(&mut install)
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", path_after(&prefix.join("bin"))?);
    if workspace::cargo_home().join("bin/bpf-linker").exists() {
        install.arg("--force").arg("--root").arg(workspace::tools());
    }
    exec::run_quietly(
        &format!("building bpf-linker {VERSION} with LLVM {llvm}, for {} (a minute)", for_compiler(compiler)),
        &mut install,
    )
}

/// An LLVM with its headers, of that major version.
fn llvm_prefix(major: u32) -> Result<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    let complete = || {
        workspace::is_executable(&prefix.join("bin/llvm-config"))
            && ["/usr/include/zstd.h", "/usr/include/zlib.h"].iter().all(|header| Path::new(header).is_file())
            && prefix.join("lib/libPolly.a").is_file()
            && has_cxx_library()
    };
    if complete() {
        return Ok(prefix);
    }
    anyhow::ensure!(
        Apt::exists(),
        "bpf-linker needs LLVM {major} with its headers, and this system has no apt"
    );
    let (llvm, polly) = (format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"));
    let mut packages = vec![
        (llvm.as_str(), "the compiler's LLVM, to build bpf-linker with"),
        (polly.as_str(), "a part of it that is packaged apart"),
        ("libzstd-dev", "a library LLVM is linked with"),
        ("zlib1g-dev", "a library LLVM is linked with"),
    ];
    if !has_cxx_library() {
        packages.push(("g++", "the C++ library LLVM is linked with"));
    }
    Apt::install(&packages)?;
    anyhow::ensure!(complete(), "installed {llvm}, but {} is not a complete LLVM", prefix.display());
    Ok(prefix)
}

/// Whether the C compiler finds a C++ library to link with.
fn has_cxx_library() -> bool {
    // A name that is not found is answered as it was asked.
    exec::capture(Command::new("cc").arg("-print-file-name=libstdc++.so"))
        .is_ok_and(|answer| Path::new(answer.trim()).is_absolute())
}

fn path_after(first: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(first.to_path_buf()).chain(std::env::split_paths(&path)))
        .context("PATH cannot be extended")
}
