//! Names that say which process made a thing, so that leftovers can be told from what is in use.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// What every name the testbed gives out starts with.
pub(crate) const PREFIX: &str = "picop-t";

/// The name of one cluster: the process that made it (pid and start time, so that a reused pid is not mistaken for it)
/// and a serial number within that process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId {
    pid: u32,
    /// In clock ticks since boot, as in `/proc/<pid>/stat`.
    start: u64,
    serial: u32,
}

impl ClusterId {
    /// A name that no cluster of this machine has yet.
    pub(crate) fn next() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let pid = std::process::id();
        let start = start_time(pid).expect("/proc shows the process that reads it");
        Self { pid, start, serial: SERIAL.fetch_add(1, Ordering::Relaxed) }
    }

    /// Reads the id that `name` starts with, if it is a name of the testbed's.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let pid = parts.next()?.parse().ok()?;
        let start = parts.next()?.parse().ok()?;
        let serial = parts.next()?.parse().ok()?;
        Some(Self { pid, start, serial })
    }

    /// Whether the process that made the cluster still runs.
    pub fn is_in_use(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Whether this process made the cluster.
    pub fn is_own(self) -> bool {
        self.pid == std::process::id() && self.is_in_use()
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.pid, self.start, self.serial)
    }
}

/// The start time of a running process; `None` when there is none of that pid, or only its zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The second field is the program's name, which may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // Start time is field 22 of the line; the state was field 3.
    let ticks = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_id() {
        let id = ClusterId::next();
        assert_eq!(ClusterId::of_name(&id.to_string()), Some(id));
        assert_eq!(ClusterId::of_name(&format!("{id}-node")), Some(id));
        assert!(id.is_own());
    }

    #[test]
    fn other_names_have_none() {
        for name in ["", "picop-t", "picop-test", "picop-t12", "picop-t12-34", "picop-t1-2-x", "system.slice"]
        {
            assert_eq!(ClusterId::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_reused_pid_is_not_the_same_process() {
        let mut id = ClusterId::next();
        assert!(id.is_in_use());
        id.start += 1;
        assert!(!id.is_in_use());
    }

    #[test]
    fn start_time_is_found_behind_an_odd_program_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 1";
        assert_eq!(parse_start_time(stat), Some(4242));
        assert_eq!(parse_start_time(&stat.replace(" S ", " Z ")), None);
    }
}
