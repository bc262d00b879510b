//! CPU time, by the scheduler's own account: nanoseconds on a CPU per task (`/proc/PID/task/TID/schedstat`).
//!
//! Counted are the client, the server, the agent, and every kernel thread: sockets and their eBPF storage are freed later,
//! by kernel threads. What runs in a softirq within one of them (on a bridge of veths nearly all of the receive path) is on
//! its account, unless the kernel was built with `CONFIG_IRQ_TIME_ACCOUNTING`; what interrupts an idle CPU is on nobody's.
//! Other processes are not counted, so a busy machine shows in the times, hardly here.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

/// The parent of all kernel threads.
const KTHREADD: u32 = 2;

/// Nanoseconds each task has been on a CPU since it started.
#[derive(Debug, Default)]
pub struct Usage(HashMap<u32, u64>);

impl Usage {
    /// Reads the tasks of these processes, and the kernel's.
    pub fn read(processes: &[u32]) -> Result<Self> {
        let mut usage = Self::of(processes)?;
        for thread in numbers_in("/proc")?.into_iter().filter(|pid| is_kernel_thread(*pid)) {
            usage.add(thread, &format!("/proc/{thread}/schedstat"));
        }
        Ok(usage)
    }

    /// Reads the tasks of these processes only.
    pub fn of(processes: &[u32]) -> Result<Self> {
        let mut usage = Self::default();
        for process in processes {
            let tasks = format!("/proc/{process}/task");
            for task in numbers_in(&tasks)? {
                usage.add(task, &format!("{tasks}/{task}/schedstat"));
            }
        }
        Ok(usage)
    }

    /// Nanoseconds used since an earlier reading. A task that ended in between is not in it.
    pub fn since(&self, earlier: &Self) -> u64 {
        let used = |(task, now): (&u32, &u64)| now.saturating_sub(earlier.0.get(task).copied().unwrap_or(0));
        self.0.iter().map(used).sum()
    }

    /// A task that is gone when it is read has nothing to add.
    fn add(&mut self, task: u32, schedstat: &str) {
        let on_cpu = fs::read_to_string(schedstat).ok().and_then(|text| text.split(' ').next()?.parse().ok());
        if let Some(on_cpu) = on_cpu {
            self.0.insert(task, on_cpu);
        }
    }
}

/// A process, its children, and theirs.
pub fn family(process: u32) -> Result<Vec<u32>> {
    let mut family = vec![process];
    let mut at = 0;
    while let Some(process) = family.get(at).copied() {
        for task in numbers_in(&format!("/proc/{process}/task"))? {
            let path = format!("/proc/{process}/task/{task}/children");
            let children = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            family.extend(children.split_ascii_whitespace().flat_map(str::parse::<u32>));
        }
        at += 1;
    }
    Ok(family)
}

/// The entries of a directory that are numbers: of `/proc`, processes.
pub fn numbers_in(directory: &str) -> Result<Vec<u32>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {directory}"))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn is_kernel_thread(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| parent(&stat) == Some(KTHREADD))
}

/// The second field is the program's name, which may itself hold spaces and parentheses.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_computes_is_counted_and_what_it_waits_is_not() {
        let own = [std::process::id()];
        let before = Usage::read(&own).expect("/proc");
        let start = std::time::Instant::now();
        let mut random = super::super::stats::Random::new(1);
        // Long enough that the scheduler's clock ticks in between, whoever else runs.
        while start.elapsed() < std::time::Duration::from_millis(50) {
            assert!(random.below(10) < 10);
        }
        let after = Usage::read(&own).expect("/proc");
        assert!(after.since(&before) > 1_000_000, "{} ns", after.since(&before));
        assert_eq!(before.since(&before), 0);
    }

    #[test]
    fn the_parent_is_found_behind_an_odd_program_name() {
        assert_eq!(parent("7 (a) b (c) S 2 7 7 0 -1"), Some(KTHREADD));
        assert_eq!(parent("7"), None);
    }
}
