//! How often and how long the kernel ran an agent's programs. The kernel counts as long as somebody asks it to: it costs
//! each run some 20 ns, so nothing else is measured meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{AddAssign, Sub};
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramFd, loaded_programs};
use aya::sys::{Stats, enable_stats};

/// Runs of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    pub count: u64,
    pub ns: u64,
}

impl Sub for Runs {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, ns: self.ns - earlier.ns }
    }
}

impl AddAssign for Runs {
    fn add_assign(&mut self, more: Self) {
        self.count += more.count;
        self.ns += more.ns;
    }
}

/// An agent's programs, while the kernel counts.
#[derive(Debug)]
pub struct Watch {
    programs: Vec<(String, ProgramFd)>,
    /// The kernel counts until this is closed.
    _counting: std::os::fd::OwnedFd,
}

impl Watch {
    /// Finds the programs that a process has open, and has the kernel count.
    pub fn start(process: u32) -> Result<Self> {
        let open = open_programs(process)?;
        let mut programs = Vec::new();
        for info in loaded_programs() {
            // One that was unloaded meanwhile is none of a running agent's.
            let Ok(info) = info else { continue };
            if open.contains(&info.id()) {
                let name = info.name_as_str().context("a program without a name")?.to_owned();
                programs.push((name, info.fd().context("opening a program")?));
            }
        }
        ensure!(!programs.is_empty(), "process {process} has no programs open");
        let counting =
            enable_stats(Stats::RunTime).context("asking the kernel to count (Linux 5.8, CAP_SYS_ADMIN)")?;
        Ok(Self { programs, _counting: counting })
    }

    /// Counts so far, by program. (An agent may load a program more than once: its uses are one.)
    pub fn read(&self) -> Result<BTreeMap<String, Runs>> {
        let mut all: BTreeMap<String, Runs> = BTreeMap::new();
        for (name, fd) in &self.programs {
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            *all.entry(name.clone()).or_default() +=
                runs(&text).with_context(|| format!("{path}: {text}"))?;
        }
        Ok(all)
    }
}

/// The programs a process has open, by id.
fn open_programs(process: u32) -> Result<Vec<u32>> {
    let dir = format!("/proc/{process}/fdinfo");
    let mut ids = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {dir}"))? {
        // One that is closed meanwhile is no program.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        ids.extend(field(&text, "prog_id:").and_then(|id| u32::try_from(id).ok()));
    }
    Ok(ids)
}

fn runs(fdinfo: &str) -> Option<Runs> {
    Some(Runs { count: field(fdinfo, "run_cnt:")?, ns: field(fdinfo, "run_time_ns:")? })
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_fdinfo() {
        let text = "pos:\t0\nprog_type:\t18\nprog_id:\t42\nrun_time_ns:\t1500\nrun_cnt:\t3\n";
        assert_eq!(runs(text), Some(Runs { count: 3, ns: 1500 }));
        assert_eq!(field(text, "prog_id:"), Some(42));
        assert_eq!(runs("pos:\t0\n"), None);
    }
}
