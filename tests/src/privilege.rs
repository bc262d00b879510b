//! Whether this process may do what the testbed needs.

use std::env;
use std::fs;

use crate::cgroup::v2_mount;

/// What the testbed may do here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Namespaces, cgroups and eBPF.
    Full,
    /// Something is missing; each entry says what.
    Missing(Vec<String>),
}

/// The capabilities that making pods and running the agent take: bit and name.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

/// Looks at the process's capabilities and at the cgroup v2 mount.
pub fn privilege() -> Privilege {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut missing = missing_capabilities(&status);
    match v2_mount() {
        Err(error) => missing.push(error.to_string()),
        Ok(mount) => {
            if rustix::fs::access(&mount, rustix::fs::Access::WRITE_OK).is_err() {
                missing.push(format!("write access to {}", mount.display()));
            }
        }
    }
    if missing.is_empty() { Privilege::Full } else { Privilege::Missing(missing) }
}

fn missing_capabilities(status: &str) -> Vec<String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    NEEDED.iter().filter(|(bit, _)| mask & (1 << bit) == 0).map(|(_, name)| (*name).to_owned()).collect()
}

/// For [`require_privilege!`](crate::require_privilege): whether the test can run. Says why not, on a desk.
///
/// # Panics
/// When something is missing and `PICOP_REQUIRE_PRIVILEGE=1` says that it must not be.
pub fn enter_or_skip(test: &str) -> bool {
    match privilege() {
        Privilege::Full => true,
        Privilege::Missing(what) => {
            let what = what.join(", ");
            assert!(
                env::var_os("PICOP_REQUIRE_PRIVILEGE").is_none_or(|v| v != "1"),
                "{test} needs {what}, and PICOP_REQUIRE_PRIVILEGE=1 forbids to skip it"
            );
            eprintln!("SKIPPED {test}: needs {what} (run as root)");
            false
        }
    }
}

/// Returns from the test, saying so, when this process may not make pods; panics instead when
/// `PICOP_REQUIRE_PRIVILEGE=1`.
#[macro_export]
macro_rules! require_privilege {
    ($skipped:expr) => {
        if !$crate::enter_or_skip(module_path!()) {
            return $skipped;
        }
    };
    () => {
        if !$crate::enter_or_skip(module_path!()) {
            return;
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_absent_capability_is_named() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing_capabilities("CapEff:\t000001fffeffefff\n"), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities("CapEff:\t0000000000000000\n").len(), NEEDED.len());
        assert_eq!(missing_capabilities("").len(), NEEDED.len());
    }
}
