//! Cgroups, version 2: where they are, and how to get rid of one with all that runs in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait::eventually;

/// Where cgroup v2 is mounted. On hybrid machines that is not `/sys/fs/cgroup`, so it is read from the mount table.
pub fn v2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mount table")?;
    find_v2(&mounts)
        .context("no cgroup2 file system is mounted here (see /proc/self/mounts); mount one to run pods")
}

fn find_v2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let target = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(target.replace("\\040", " ")))
    })
}

/// Kills every process in `dir` and below, and removes the tree. Nothing there is success.
pub(crate) fn remove_tree(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let emptied = eventually(Duration::from_secs(10), || {
        kill(dir);
        !is_populated(dir)
    });
    anyhow::ensure!(emptied, "processes in cgroup {} do not die", dir.display());
    let mut last = None;
    let removed = eventually(Duration::from_secs(5), || match remove_dirs(dir) {
        Ok(()) => true,
        Err(error) => {
            // A process that was on its way in when the others died has arrived since.
            kill(dir);
            last = Some(error);
            false
        }
    });
    if removed {
        return Ok(());
    }
    Err(last.expect("a removal that failed left its error"))
        .with_context(|| format!("removing cgroup {}", dir.display()))
}

/// Asks the kernel to kill all of the tree at once, which no fork can outrun (Linux 5.14); pid by pid before that.
fn kill(dir: &Path) {
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for sub in tree(dir) {
        for pid in pids(&sub) {
            // Gone already is what was wanted; whoever stays is met again in the next round.
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
    }
}

fn is_populated(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

fn pids(dir: &Path) -> Vec<i32> {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    procs.lines().filter_map(|line| line.parse().ok()).collect()
}

/// `dir` and everything below it, parents first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_path_buf()];
    let mut next = 0;
    while let Some(current) = found.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(&current).into_iter().flatten().flatten();
        found.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    found
}

fn remove_dirs(dir: &Path) -> io::Result<()> {
    for sub in tree(dir).iter().rev() {
        match fs::remove_dir(sub) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_is_found_wherever_it_is() {
        let pure = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let odd = "none /mnt/my\\040groups cgroup2 rw 0 0\n";
        assert_eq!(find_v2(pure), Some("/sys/fs/cgroup".into()));
        assert_eq!(find_v2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_v2(odd), Some("/mnt/my groups".into()));
        assert_eq!(find_v2("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
    }
}
