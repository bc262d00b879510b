//! The kernel matrix: Debian's kernels, booted under emulation, running the tests of the eBPF programs.
//!
//! Nothing is installed: kernels, emulator and busybox are packages unpacked under target/vm. Emulation, since
//! virtual machines seldom offer KVM; times inside therefore mean nothing.

mod cpio;
mod initramfs;
mod kernel;
mod modules;
mod packages;
mod qemu;

use crate::build::{Executable, Programs};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;

/// The kernels that must work: the oldest that picop supports, and the next long-term one.
pub const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Why the matrix cannot run on this machine at all, if so.
pub fn unsupported() -> Option<String> {
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!("the kernel matrix is made for x86_64, this is {}", std::env::consts::ARCH));
    }
    let missing = ["apt-get", "apt-cache", "dpkg", "ldd"]
        .into_iter()
        .find(|tool| workspace::program(tool).is_none())?;
    Some(format!("the kernel matrix takes its kernels from Debian's packages, and there is no {missing}"))
}

/// What is run in each kernel.
pub struct Payload<'a> {
    pub programs: &'a Programs,
    pub test: &'a Executable,
    /// Arguments of the test program: filters.
    pub arguments: &'a [String],
}

/// Boots the newest kernel of a series and runs the tests in it. The lines that the machine writes go to
/// `on_line`. Answers the kernel's version and the test program's exit status.
pub fn run(series: &str, payload: &Payload<'_>, mut on_line: impl FnMut(&str)) -> Result<(String, i32)> {
    let kernel = kernel::newest(series)?;
    let busybox = packages::unpacked("busybox", &["busybox-static"])?.join("bin/busybox");
    let emulator = qemu::Emulator::find()?;
    let archive = initramfs::build(&kernel, &busybox, payload)
        .with_context(|| format!("cannot make the file system for kernel {}", kernel.version))?;
    let path = workspace::target().join("vm").join(format!("initramfs-{}", kernel.version));
    fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
    let status = emulator.boot(&kernel.image, &path, &mut on_line)?;
    Ok((kernel.version, status))
}
