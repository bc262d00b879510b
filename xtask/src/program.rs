//! picop as it is installed: one static program, laid out by what it was seen doing (profile-guided optimization).
//!
//! It is compiled twice: with counters in it, for `hop train` to have it do a gateway's work; then by what they counted. All that did
//! nothing then, the agent most of all, is compiled as ever: the profile is of functions that ran, and has no zeros that would call the
//! others cold. Everything is in target/program, and is made anew when the program changes, or what it is given to do.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::{build, build_ebpf, exec, setup, workspace};

/// Where the program with counters is built, and the one without a profile.
const COUNTING: &str = "counting";
const PLAIN: &str = "plain";
/// In the directory that is named after the program that was watched.
const PROFILE: &str = "picop.profdata";

/// Builds it for this machine's architecture. Where there can be no profile, that is said, and it is built without.
pub fn build() -> Result<PathBuf> {
    build_ebpf::ensure()?;
    let base = workspace::target().join("program");
    let profdata = match setup::ensure_profiler() {
        Ok(profdata) => profdata,
        Err(error) => {
            exec::announce(&format!(
                "picop is built without a profile, and somewhat slower for it: {error:#}"
            ));
            return compile("building picop with the C library inside", &base.join(PLAIN), None);
        }
    };
    let what = "building picop with counters in it, to see what it does (1 of 2)";
    let counting = compile(what, &base.join(COUNTING), Some("-Cprofile-generate".into()))?;
    let key = digest(&[&[counting.clone()][..], &training()?].concat())?;
    let own = base.join(&key);
    let profile = own.join(PROFILE);
    if !profile.exists() {
        forget_others(&base, &key)?;
        watch(&counting, &profdata, &own)?;
    }
    let mut flag = OsString::from("-Cprofile-use=");
    flag.push(&profile);
    compile("building picop by what it was seen doing (2 of 2)", &own.join("build"), Some(flag))
}

/// Naming the target keeps the flags from build scripts and macros, which must be dynamic and count nothing. Flags of the user's
/// environment and configuration give way: what is installed is the same for all.
fn compile(what: &str, directory: &Path, flag: Option<OsString>) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let flags: Vec<_> = [OsString::from("-Ctarget-feature=+crt-static")].into_iter().chain(flag).collect();
    let mut cargo = Command::new(workspace::cargo());
    cargo.current_dir(workspace::root());
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")));
    // Names of functions stay, for backtraces and profilers; what debuggers want is three quarters of the program.
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "false").env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    cargo.args(["build", "--locked", "--release", "--package", "picop-agent", "--bin", "picop"]);
    cargo.args(["--target", &target, "--target-dir"]).arg(directory);
    let built = build::executables(what, &mut cargo)?;
    let picop = built.into_iter().find(|executable| executable.name == "picop");
    Ok(picop.context("cargo built no program picop")?.path)
}

/// Has the program do its work, and puts together what it counted. Whole, or not there: what a run that was broken off has left is
/// no part of it.
fn watch(counting: &Path, profdata: &Path, own: &Path) -> Result<()> {
    let counted = own.join("counted");
    match fs::remove_dir_all(own) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", own.display()));
        }
        _ => {}
    }
    fs::create_dir_all(&counted).with_context(|| format!("creating {}", counted.display()))?;
    let mut train = Command::new(build::hop()?);
    train.args(["train", "--picop"]).arg(counting);
    train.env("LLVM_PROFILE_FILE", counted.join("%p.profraw"));
    exec::run_quietly("having picop do a gateway's work, and counting", &mut train)?;
    let is_counted = fs::read_dir(&counted).with_context(|| format!("reading {}", counted.display()))?.next();
    ensure!(is_counted.is_some(), "{} has counted nothing", counting.display());
    let (profile, partial) = (own.join(PROFILE), own.join("picop.profdata.partial"));
    let mut merge = Command::new(profdata);
    merge.args(["merge", "--sparse", "--output"]).arg(&partial).arg(&counted);
    exec::run_quietly("putting together what was counted", &mut merge)?;
    fs::rename(&partial, &profile).with_context(|| format!("renaming {}", partial.display()))?;
    fs::remove_dir_all(&counted).with_context(|| format!("removing {}", counted.display()))
}

/// Removes what was built by other profiles: a gigabyte each.
fn forget_others(base: &Path, key: &str) -> Result<()> {
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading {}", base.display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && [COUNTING, PLAIN, key].iter().all(|name| path.file_name() != Some(name.as_ref()))
        {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// What decides what the program is seen doing.
fn training() -> Result<Vec<PathBuf>> {
    let hop = workspace::root().join("tests/src/bin/hop");
    let directory = hop.join("train");
    let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut files = vec![hop.join("train.rs")];
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

/// Half a digest, in hexadecimal, is enough to tell programs and trainings apart.
fn digest(files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        // Each digest is as long as the next, so that no two lists of files look alike.
        hash.update(Sha256::digest(fs::read(file).with_context(|| format!("reading {}", file.display()))?));
    }
    Ok(testbed::hex::encode(&hash.finalize()[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_profiles_made_is_removed_and_nothing_else() {
        let base = tempfile::tempdir().expect("a directory");
        forget_others(&base.path().join("none"), "1").expect("nothing to do");
        for name in [COUNTING, PLAIN, "1", "2"] {
            fs::create_dir_all(base.path().join(name).join("build")).expect("made");
        }
        fs::write(base.path().join("note"), "").expect("written");
        forget_others(base.path(), "1").expect("removed");
        let mut left: Vec<_> =
            fs::read_dir(base.path()).expect("there").map(|entry| entry.expect("one").file_name()).collect();
        left.sort();
        assert_eq!(left, ["1", COUNTING, "note", PLAIN]);
    }

    #[test]
    fn programs_and_trainings_are_told_apart() {
        let base = tempfile::tempdir().expect("a directory");
        let file = |name: &str, content: &str| {
            let path = base.path().join(name);
            fs::write(&path, content).expect("written");
            path
        };
        let of = |files: &[PathBuf]| digest(files).expect("readable");
        let (ab, c, a, bc) = (file("1", "ab"), file("2", "c"), file("3", "a"), file("4", "bc"));
        assert_eq!(of(&[ab.clone(), c.clone()]), of(&[ab.clone(), c.clone()]));
        assert_ne!(of(&[ab.clone(), c.clone()]), of(&[a, bc]));
        assert_ne!(of(&[ab.clone(), c.clone()]), of(&[c, ab]));
        assert!(digest(&[base.path().join("none")]).is_err());
        assert!(training().expect("there").len() > 2);
    }
}
