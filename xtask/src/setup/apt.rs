//! Installing Debian packages: said first, removing nothing, starting nothing.

use crate::{exec, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Installing a server on Debian starts it, and picop's tests start their own: for as long as the installation
/// takes, the policy file that the distribution provides for this says no. An administrator's own policy stays.
const INSTALL: &str = r#"set -eu
policy=/usr/sbin/policy-rc.d
mark='picop: cargo xtask setup'
if [ ! -e "$policy" ] && [ ! -L "$policy" ] || grep -qs "$mark" "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\n# %s: start no daemons while it installs packages\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --quiet --no-install-recommends --no-remove \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
"#;

/// The package lists need fetching once a run, whoever asks first.
static UPDATED: AtomicBool = AtomicBool::new(false);

/// The package manager.
pub struct Apt;

impl Apt {
    /// Whether this is a system with apt.
    pub fn exists() -> bool {
        workspace::program("apt-get").is_some() && workspace::program("dpkg").is_some()
    }

    /// Whether the package lists name an installable version.
    pub fn offers(package: &str) -> bool {
        exec::capture(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))
            .is_ok_and(|policy| has_candidate(&policy))
    }

    /// Fetches the package lists, once a run. A source that cannot be reached matters only if a package is then
    /// missing, and then the installation says so.
    pub fn update() -> Result<()> {
        if UPDATED.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let mut update = exec::as_root("apt-get")?;
        update.args(["update", "--quiet", "-o", "DPkg::Lock::Timeout=300"]);
        if let Err(error) = exec::run_quietly("fetching package lists (apt-get update)", &mut update) {
            eprintln!("    {error:#}; going on with the lists that are there");
        }
        Ok(())
    }

    /// Installs the packages, each with its reason.
    pub fn install(packages: &[(&str, &str)]) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        eprintln!("==> this machine needs, by apt-get install:");
        for (package, why) in packages {
            eprintln!("    {package:<26} {why}");
        }
        Self::update()?;
        let names: Vec<&str> = packages.iter().map(|(package, _)| *package).collect();
        let mut install = exec::as_root("sh")?;
        install.args(["-c", INSTALL, "picop-setup"]).args(&names);
        exec::run_quietly(&format!("installing {}", names.join(" ")), &mut install).with_context(|| {
            format!(
                "could not install {}; apt may say above what it would have had to remove",
                names.join(" ")
            )
        })
    }

    /// The first of some packages that the lists offer.
    pub fn first_offered<'a>(alternatives: &[&'a str]) -> Result<&'a str> {
        Self::update()?;
        match alternatives.iter().find(|package| Self::offers(package)) {
            Some(package) => Ok(package),
            None => bail!("none of the packages {} is offered here", alternatives.join(", ")),
        }
    }
}

/// Unpacks the packages in `archives` below `root`, without installing them.
pub fn extract(archives: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    let entries = fs::read_dir(archives).with_context(|| format!("cannot read {}", archives.display()))?;
    for entry in entries {
        let archive = entry.with_context(|| format!("cannot read {}", archives.display()))?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            exec::capture(Command::new("dpkg").arg("--extract").args([&archive, root]))?;
        }
    }
    Ok(())
}

fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .any(|version| version != "(none)")
}

#[cfg(test)]
mod tests {
    use super::has_candidate;

    #[test]
    fn candidate_is_read_from_the_policy() {
        let offered = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n";
        assert!(has_candidate(offered));
        assert!(!has_candidate("rustup:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
