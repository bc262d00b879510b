//! Removing a cluster by its name, whoever made it.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};

use crate::bpffs;
use crate::cgroup::{remove_tree, v2_mount};
use crate::gate;
use crate::id::ClusterId;
use crate::net::NETNS_DIR;

/// A file in a cluster's directory that says it is to stay when its maker ends.
pub(crate) const KEEP_MARKER: &str = "keep";

/// A cluster's directory for files.
pub(crate) fn work_dir(id: ClusterId) -> PathBuf {
    env::temp_dir().join(id.to_string())
}

/// Everything on this machine that carries one of the testbed's names: cgroups, network namespaces, directories.
pub fn leftovers() -> Vec<String> {
    places().iter().flat_map(named_entries).map(|(_, path)| path.display().to_string()).collect()
}

/// What there is of one cluster.
pub fn leftovers_of(id: ClusterId) -> Vec<String> {
    let entries = places().into_iter().flat_map(|place| named_entries(&place));
    entries.filter(|(owner, _)| *owner == id).map(|(_, path)| path.display().to_string()).collect()
}

/// Removes the clusters whose processes are gone, except those that were left up on purpose. Says what it removed.
pub fn sweep() -> Result<Vec<ClusterId>> {
    remove(|id| !id.is_in_use() && !work_dir(id).join(KEEP_MARKER).exists())
}

/// Removes every cluster whose process is gone, also those left up on purpose. Says what it removed.
pub fn remove_kept() -> Result<Vec<ClusterId>> {
    remove(|id| !id.is_in_use())
}

/// Removes this process's own clusters, and lets it make nothing more: for when it was asked to end (by a signal) while
/// it uses them.
pub fn remove_own() -> Result<Vec<ClusterId>> {
    gate::close();
    remove(ClusterId::is_own)
}

fn remove(which: impl Fn(ClusterId) -> bool) -> Result<Vec<ClusterId>> {
    let ids: BTreeSet<_> =
        places().iter().flat_map(named_entries).map(|(id, _)| id).filter(|id| which(*id)).collect();
    for id in &ids {
        teardown(*id).with_context(|| format!("removing {id}"))?;
    }
    Ok(ids.into_iter().collect())
}

/// Removes all there is of a cluster: its processes first, its directory last. What is gone already is no error; the
/// first failure is returned after everything was tried.
pub(crate) fn teardown(id: ClusterId) -> Result<()> {
    let mut result = Ok(());
    for place in places() {
        for (_, path) in named_entries(&place).into_iter().filter(|(owner, _)| *owner == id) {
            let removed = match place {
                Place::Cgroups(_) => remove_tree(&path),
                Place::Namespaces => remove_netns(&path),
                Place::Files => bpffs::unmount_in(&path)
                    .and_then(|()| fs::remove_dir_all(&path).or_else(ignore_absent).map_err(Into::into)),
            };
            let removed = removed.with_context(|| format!("removing {}", path.display()));
            result = result.and(removed);
        }
    }
    result
}

/// Prints the end of every output file of a cluster, for the reader of a failed test.
pub(crate) fn show_logs(name: &str, dir: &Path) {
    const TAIL: usize = 4000;
    let mut files: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files.iter().filter(|f| matches!(f.extension().and_then(OsStr::to_str), Some("out" | "err")))
    {
        let text = fs::read(file).unwrap_or_default();
        if !text.is_empty() {
            let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]);
            eprintln!(
                "---- {name}: {} ----\n{}",
                file.file_name().unwrap_or_default().display(),
                tail.trim_end()
            );
        }
    }
}

/// Where things with the testbed's names are, in the order in which they can be removed.
enum Place {
    Cgroups(PathBuf),
    Namespaces,
    Files,
}

fn places() -> Vec<Place> {
    let cgroups = v2_mount().ok().map(Place::Cgroups);
    cgroups.into_iter().chain([Place::Namespaces, Place::Files]).collect()
}

fn named_entries(place: &Place) -> Vec<(ClusterId, PathBuf)> {
    let dir = match place {
        Place::Cgroups(mount) => mount.clone(),
        Place::Namespaces => PathBuf::from(NETNS_DIR),
        Place::Files => env::temp_dir(),
    };
    // No such directory, no leftovers: `ip netns` makes its own at its first use.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|e| Some((ClusterId::of_name(e.file_name().to_str()?)?, e.path())));
    let mut named: Vec<_> = named.collect();
    named.sort();
    named
}

fn remove_netns(path: &Path) -> Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        // Not (or no longer) a mount point: only the file is left.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error).context("unmounting"),
    }
    fs::remove_file(path).or_else(ignore_absent).context("unlinking")
}

fn ignore_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
