//! The servers and clients on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where distributions keep servers that are not for everybody's `PATH`.
const ELSEWHERE: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Debian keeps each major version's programs in a directory of their own below this.
const POSTGRESQL: &str = "/usr/lib/postgresql";

/// A program's path, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(ELSEWHERE.map(PathBuf::from)).chain(postgresql_dirs());
    dirs.map(|dir| dir.join(program))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

/// The path of a program that [`present_or_skip`] has seen.
///
/// # Errors
/// When it is not installed.
pub fn path(program: &str) -> Result<PathBuf> {
    find(program).with_context(|| format!("{program} is not installed"))
}

/// Newest first.
fn postgresql_dirs() -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(POSTGRESQL)).into_iter().flatten().flatten();
    let version = |dir: &PathBuf| dir.file_name()?.to_str()?.parse::<u32>().ok();
    let mut dirs: Vec<_> = entries.map(|entry| entry.path()).filter(|dir| version(dir).is_some()).collect();
    dirs.sort_by_key(|dir| std::cmp::Reverse(version(dir)));
    dirs.into_iter().map(|dir| dir.join("bin")).collect()
}

/// For [`require!`](crate::require): whether all are installed. Says which are not, on a desk.
///
/// # Panics
/// When one is missing and `PICOP_REQUIRE_PRIVILEGE=1` says that none must be.
pub fn present_or_skip(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).copied().collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    assert!(
        env::var_os("PICOP_REQUIRE_PRIVILEGE").is_none_or(|value| value != "1"),
        "{test} needs {missing}, and PICOP_REQUIRE_PRIVILEGE=1 forbids to skip it (cargo xtask setup --for test)"
    );
    eprintln!("SKIPPED {test}: needs {missing} (cargo xtask setup --for test)");
    false
}

/// Returns from the test, saying so, without privilege or one of these programs; panics instead when
/// `PICOP_REQUIRE_PRIVILEGE=1`.
#[macro_export]
macro_rules! require {
    ($($program:literal),+) => {
        $crate::require_privilege!(Ok(()));
        if !$crate::programs::present_or_skip(module_path!(), &[$($program),+]) {
            return Ok(());
        }
    };
}
pub use require;

#[test]
fn an_installed_program_is_found_and_no_other() {
    assert!(find("sh").is_some_and(|path| path.is_absolute()));
    assert_eq!(find("picop-has-no-such-program"), None);
    assert!(present_or_skip("a test", &["sh"]));
}
