//! MySQL's own server, which Debian has in its unstable suite only. It is unpacked in the checkout with all that it is linked to,
//! down to the C library: nothing on the machine changes, and MariaDB stays what the machine has.

use super::{Apt, apt};
use crate::{exec, workspace};
use anyhow::{Context, Result, bail, ensure as require};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The suite that has it. What is there moves on; what was fetched stays.
const SUITE: &str = "unstable";

const PACKAGE: &str = "mysql-server-core";

/// Runs the server by the loader and with the files that came with it.
const PROGRAM: &str = r#"#!/bin/sh
# Written by `cargo xtask test --mysql`.
root=$(dirname "$(readlink -f "$0")")/root
for libraries in "$root"/usr/lib/*-linux-*; do :; done
for loader in "$libraries"/ld-linux-*.so.*; do :; done
exec "$loader" --library-path "$libraries:$root/usr/lib/mysql/private" "$root/usr/sbin/mysqld" "$@" \
    --basedir="$root/usr" --lc-messages-dir="$root/usr/share/mysql"
"#;

/// A Debian mirror, as apt on this machine has it.
struct Mirror {
    uri: String,
    architecture: String,
}

/// The server; fetches it if it is missing.
pub fn ensure() -> Result<PathBuf> {
    let directory = workspace::tools().join("mysql");
    let program = directory.join("mysqld");
    if !workspace::is_executable(&program) {
        fetch(&directory, &program).context(
            "cannot fetch a MySQL; PICOP_TEST_MYSQLD=PATH names one that is there, without --mysql",
        )?;
    }
    let version = exec::capture(Command::new(&program).args(["--no-defaults", "--version"]))
        .with_context(|| format!("remove {} to fetch it anew", directory.display()))?;
    exec::announce(&format!("the tests have a MySQL: {}", version.trim()));
    Ok(program)
}

fn fetch(directory: &Path, program: &Path) -> Result<()> {
    require!(Apt::exists(), "it comes by apt, which this system does not have");
    let targets = exec::capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(CODENAME) $(ARCHITECTURE) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let Some(mirror) = mirror(&targets) else {
        bail!("no source of this machine's apt is Debian's main archive (apt-get update may help)");
    };
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    let own = Own::new(&directory.join("apt"), &mirror)?;
    exec::run_quietly(&format!("fetching the list of Debian {SUITE}'s packages"), own.get().arg("update"))?;
    let mut install = own.get();
    install.args(["install", "--yes", "--download-only", "--no-install-recommends", PACKAGE]);
    exec::run_quietly(&format!("fetching {PACKAGE} and what it needs (60 MB)"), &mut install)?;
    apt::extract(&own.archives(), &directory.join("root"))?;
    fs::remove_dir_all(&own.directory)
        .with_context(|| format!("cannot remove {}", own.directory.display()))?;
    // Last: a directory without it was left half done.
    fs::write(program, PROGRAM).with_context(|| format!("cannot write {}", program.display()))?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", program.display()))
}

/// The archive that has releases, among all that apt knows; not that of security updates, which has no unstable.
fn mirror(targets: &str) -> Option<Mirror> {
    targets.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["Debian", "main", codename, architecture, uri] = words[..] else { return None };
        let release = !codename.contains('-');
        release.then(|| Mirror { uri: uri.to_owned(), architecture: architecture.to_owned() })
    })
}

/// An apt that knows one source, and of no installed package.
struct Own {
    directory: PathBuf,
    settings: Vec<String>,
}

impl Own {
    fn new(directory: &Path, mirror: &Mirror) -> Result<Self> {
        let made = |what: &str| {
            let path = directory.join(what);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))
        };
        for what in ["lists/partial", "cache/archives/partial"] {
            made(what)?;
        }
        let written = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        written("source.list", &format!("deb {} {SUITE} main\n", mirror.uri))?;
        written("status", "")?;
        let at = |name: &str| directory.join(name).display().to_string();
        let settings = vec![
            format!("Dir::Etc::SourceList={}", at("source.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State={}", directory.display()),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::State::Status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("APT::Architecture={}", mirror.architecture),
            format!("APT::Architectures={}", mirror.architecture),
            // root's apt fetches as a user who may not get to a checkout.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { directory: directory.to_owned(), settings })
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.arg("--quiet");
        for setting in &self.settings {
            command.args(["-o", setting]);
        }
        command
    }

    fn archives(&self) -> PathBuf {
        self.directory.join("cache/archives")
    }
}

#[cfg(test)]
mod tests {
    use super::mirror;

    #[test]
    fn the_archive_of_releases_is_found_among_apts_sources() {
        let targets = "Somebody main stable amd64 https://packages.example/\n\
                       Debian main bookworm-security amd64 http://mirror.example/debian-security/\n\
                       Debian contrib bookworm amd64 http://mirror.example/debian/\n\
                       Debian main bookworm amd64 http://mirror.example/debian/\n";
        let found = mirror(targets).expect("a mirror");
        assert_eq!((&*found.uri, &*found.architecture), ("http://mirror.example/debian/", "amd64"));
        assert!(mirror("Ubuntu main noble amd64 http://mirror.example/ubuntu/\n").is_none());
    }
}
