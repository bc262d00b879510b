//! Where the programs of this workspace are.

use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};

static PROGRAMS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();

/// Says where the agent and the helper program are, once, for whoever has just built them.
///
/// # Errors
/// When it was said before.
pub fn set_programs(picop: PathBuf, hop: PathBuf) -> Result<()> {
    ensure!(PROGRAMS.set((picop, hop)).is_ok(), "the programs were set before");
    Ok(())
}

/// The agent: as [`set_programs`] said, else `PICOP_BIN`, else the newest build of it in the target directory.
pub fn picop_bin() -> Result<PathBuf> {
    if let Some((picop, _)) = PROGRAMS.get() {
        return Ok(picop.clone());
    }
    find("picop", "PICOP_BIN", "cargo build -p picop-agent")
}

/// The helper program the testbed runs inside pods: found as the agent is, with `PICOP_HOP_BIN`.
pub fn hop_bin() -> Result<PathBuf> {
    if let Some((_, hop)) = PROGRAMS.get() {
        return Ok(hop.clone());
    }
    find("hop", "PICOP_HOP_BIN", "cargo build -p picop-tests")
}

fn find(name: &str, variable: &str, hint: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        let path = PathBuf::from(path);
        let path = path.canonicalize().with_context(|| format!("{variable}={}", path.display()))?;
        return Ok(path);
    }
    let exe = env::current_exe().context("finding this program's own path")?;
    // A test binary sits in <target>/<profile>/deps, a program in <target>/<profile>: its own profile comes first.
    for dir in exe.ancestors().skip(1).take(2) {
        let candidate = dir.join(name);
        if candidate.is_file() && candidate != exe {
            return Ok(candidate);
        }
    }
    let built = exe.ancestors().skip(1).take(4).flat_map(|target| {
        ["demo", "debug", "release"].into_iter().map(move |profile| target.join(profile).join(name))
    });
    let newest = built.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max();
    match newest {
        Some((_, path)) => Ok(path),
        None => bail!("no `{name}` near {}: run `{hint}`, or set {variable}", exe.display()),
    }
}
