//! Debian packages unpacked under target/vm, not installed: no root, nothing on the machine changes.

use crate::{exec, setup, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The directory in which those packages are unpacked; fetched once, until the list of packages changes.
pub fn unpacked(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let directory = workspace::target().join("vm").join(name);
    let manifest = directory.join("packages");
    let list = packages.join("\n");
    if fs::read_to_string(&manifest).is_ok_and(|unpacked| unpacked == list) {
        return Ok(directory);
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    let archives = directory.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("cannot make {}", archives.display()))?;
    exec::run_quietly(
        &format!("fetching {}, to unpack in {}", abridged(packages), directory.display()),
        Command::new("apt-get").args(["download", "--quiet"]).args(packages).current_dir(&archives),
    )?;
    setup::extract(&archives, &directory)?;
    fs::remove_dir_all(&archives).with_context(|| format!("cannot remove {}", archives.display()))?;
    // Last: a directory without it was left half done.
    fs::write(&manifest, list).with_context(|| format!("cannot write {}", manifest.display()))?;
    Ok(directory)
}

fn abridged(packages: &[&str]) -> String {
    match packages {
        [first, _, _, ..] => format!("{first} and {} packages it needs", packages.len() - 1),
        few => few.join(", "),
    }
}

/// The package and those it needs that this machine lacks, as the package manager resolves it.
pub fn with_dependencies(package: &str) -> Result<Vec<String>> {
    let plan = exec::capture(
        Command::new("apt-get")
            .args(["install", "--simulate", "--no-install-recommends", package])
            .env("LC_ALL", "C"),
    )
    .with_context(|| format!("cannot tell what {package} needs (apt-get update may help)"))?;
    let mut packages: Vec<String> = installed_by(&plan).map(str::to_owned).collect();
    // The list's order is the order of installation, which may change between runs.
    packages.sort();
    if let Some(at) = packages.iter().position(|name| name == package) {
        packages[..=at].rotate_right(1);
    }
    if packages.is_empty() {
        bail!("apt-get would install nothing for {package}");
    }
    Ok(packages)
}

fn installed_by(plan: &str) -> impl Iterator<Item = &str> {
    plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::{abridged, installed_by};

    #[test]
    fn packages_are_read_from_a_simulation() {
        let plan = "NOTE: This is only a simulation!\nRemv qemu-utils [1:10.0.2]\nInst seabios (1.16 Debian:12 [all])\n\
                    Inst qemu-system-x86 [1:7.1] (1:7.2 Debian:12 [amd64])\nConf seabios (1.16 Debian:12 [all])\n";
        assert_eq!(installed_by(plan).collect::<Vec<_>>(), ["seabios", "qemu-system-x86"]);
    }

    #[test]
    fn long_lists_are_abridged() {
        assert_eq!(abridged(&["a", "b"]), "a, b");
        assert_eq!(abridged(&["a", "b", "c"]), "a and 2 packages it needs");
    }
}
