//! What was measured, and on what.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::cpu;
use crate::{exec, workspace};

/// The commit of the checkout, with `-dirty` if files differ from it; `unknown` outside of git.
pub fn commit() -> String {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        exec::capture(command.current_dir(workspace::root()).args(args)).map(|text| text.trim().to_owned())
    };
    match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain"])) {
        (Ok(commit), Ok(changes)) if changes.is_empty() => commit,
        (Ok(commit), _) => commit + "-dirty",
        (Err(_), _) => "unknown".to_owned(),
    }
}

/// The running kernel's release.
pub fn kernel() -> Result<String> {
    let path = "/proc/sys/kernel/osrelease";
    Ok(fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().to_owned())
}

/// One line for people.
pub fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let field = |name: &str| cpuinfo.lines().find(|line| line.starts_with(name))?.split_once(": ");
    let model = field("model name").map_or("unknown CPU", |(_, model)| model);
    let is_virtual =
        field("flags").is_some_and(|(_, flags)| flags.split(' ').any(|flag| flag == "hypervisor"));
    format!("{cpus} x {model}{}", if is_virtual { ", virtual" } else { "" })
}

/// How many CPUs this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does something that starts programs, which have one CPU at first, of those that this process has.
pub fn on_one_cpu<T>(job: impl FnOnce() -> T) -> Result<T> {
    let all = sched_getaffinity(None).context("reading which CPUs there are")?;
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).context("there is no CPU")?);
    sched_setaffinity(None, &one).context("keeping to one CPU")?;
    let result = job();
    sched_setaffinity(None, &all).context("going back to all CPUs")?;
    Ok(result)
}

/// Lets a process run on all the CPUs that this one may use.
pub fn onto_all_cpus(process: u32) -> Result<()> {
    let all = sched_getaffinity(None).context("reading which CPUs there are")?;
    for task in cpu::numbers_in(&format!("/proc/{process}/task"))? {
        let task = Pid::from_raw(i32::try_from(task)?).context("no task has that number")?;
        sched_setaffinity(Some(task), &all).with_context(|| format!("letting {task:?} run on all CPUs"))?;
    }
    Ok(())
}

/// In this network namespace: thousands of connections a second leave thousands of TIME_WAITs, each of which keeps a port
/// for a minute.
pub fn many_ports() -> Result<()> {
    for (name, value) in [("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))?;
    }
    Ok(())
}

/// CPU time since boot, of the whole machine, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    busy: u64,
    all: u64,
    stolen: u64,
}

impl Ticks {
    /// Reads `/proc/stat`.
    pub fn read() -> Result<Self> {
        let path = Path::new("/proc/stat");
        let text = fs::read_to_string(path).context("reading /proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line of all CPUs")
    }

    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_ascii_whitespace()
            .flat_map(str::parse)
            .collect();
        let &[_user, _nice, _system, idle, iowait, _irq, _softirq, stolen, ..] = &fields[..] else {
            return None;
        };
        // Guests' time, the last two, is in user's and nice's already.
        let all = fields[..8].iter().sum();
        Some(Self { busy: all - idle - iowait - stolen, all, stolen })
    }

    /// Shares of the machine since an earlier reading: how much was used, and how much its host took away.
    pub fn since(self, earlier: Self) -> (f64, f64) {
        let share = |part: u64| {
            let (part, all) = (u32::try_from(part).unwrap_or(u32::MAX), self.all - earlier.all);
            f64::from(part) / f64::from(u32::try_from(all).unwrap_or(u32::MAX).max(1))
        };
        (share(self.busy - earlier.busy), share(self.stolen - earlier.stolen))
    }

    /// All CPU time since an earlier reading, in seconds.
    pub fn busy_seconds_since(self, earlier: Self) -> f64 {
        // USER_HZ is 100 on every architecture Linux has been ported to in this century.
        f64::from(u32::try_from(self.busy - earlier.busy).unwrap_or(u32::MAX)) / 100.0
    }
}

/// What else the machine did during a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Seconds of CPU time of processes that are no part of the measurement (but for the benchmark's own).
    foreign: f64,
    /// Share of all CPU time.
    busy: f64,
    stolen: f64,
}

impl Load {
    /// From readings around the run, and what was measured in between.
    pub fn new(before: Ticks, after: Ticks, measured_ns: u64) -> Self {
        let (busy, stolen) = after.since(before);
        let own = std::time::Duration::from_nanos(measured_ns).as_secs_f64();
        Self { foreign: (after.busy_seconds_since(before) - own).max(0.0), busy, stolen }
    }

    /// For people.
    pub fn sentence(&self) -> String {
        format!(
            "during the run {:.0}% of the machine was busy, {:.1} s of that by others than client, server, agent and kernel \
             threads at work; its host took {:.1}% away",
            self.busy * 100.0,
            self.foreign,
            self.stolen * 100.0
        )
    }

    #[cfg(test)]
    pub fn quiet() -> Self {
        Self { foreign: 0.0, busy: 0.5, stolen: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_on_one_cpu_knows_of_one_and_this_thread_has_all_again() {
        let all = sched_getaffinity(None).expect("CPUs");
        let counted = on_one_cpu(cpus).expect("a CPU");
        assert_eq!(counted, 1);
        assert_eq!(sched_getaffinity(None).expect("CPUs"), all);
    }

    #[test]
    fn shares_are_of_the_time_between_readings() {
        let before = Ticks::parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1 1").expect("a line");
        let after = Ticks::parse("cpu  150 0 140 890 0 0 10 10 7 7\n").expect("a line");
        assert_eq!(after.since(before), (0.5, 0.05));
        assert!((after.busy_seconds_since(before) - 1.0).abs() < 1e-9);
        assert_eq!(Ticks::parse("intr 1"), None);
    }
}
