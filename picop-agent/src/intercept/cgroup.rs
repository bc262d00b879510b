//! The cgroup v2 tree: where it is mounted, which cgroup is whose, which workloads are in it.

use std::{
    collections::HashMap,
    fs, io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::route::PodUid;

/// Where kubelets keep their pods: below the root, or below a `--cgroup-root`.
const POD_ROOTS: [&str; 4] =
    ["kubepods.slice", "kubepods", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods"];

/// How deep below a cgroup pods are looked for. A node that is a container adds a few levels to the kubelet's three.
const POD_DEPTH: u32 = 8;

/// What can be wrong with cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 in the mount table.
    #[error(
        "no cgroup v2 mount in /proc/self/mounts; mount one (`mount -t cgroup2 none /sys/fs/cgroup/unified`) or, in a \
         container, mount the host's /sys/fs/cgroup into it"
    )]
    NotMounted,
    /// A path is not a cgroup v2 directory.
    #[error("{path} is not a directory of the cgroup v2 mount at {mount}; give --cgroup a path below it")]
    NotACgroup {
        /// What was given.
        path: PathBuf,
        /// Where cgroup v2 is.
        mount: PathBuf,
    },
    /// The agent does not see its own place in the tree.
    #[error(
        "cannot tell which cgroup of {mount} this process is in (/proc/self/cgroup says {said}): it is in a cgroup \
         namespace of its own; have it enter the host's (--cgroup-namespace /proc/1/ns/cgroup, with hostPID)"
    )]
    Namespaced {
        /// Where cgroup v2 is.
        mount: PathBuf,
        /// What the kernel says.
        said: String,
    },
    /// A cgroup namespace cannot be entered.
    #[error(
        "cannot enter cgroup namespace {path}; this takes CAP_SYS_ADMIN and CAP_SYS_PTRACE and, for that of the node's first \
         process, the node's pids (hostPID)"
    )]
    Enter {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The mount point of the cgroup v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMount(PathBuf);

/// A cgroup: its directory, its id, its depth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The directory.
    pub dir: PathBuf,
    /// The path relative to the mount, without a leading slash; empty for the root.
    pub rel: String,
    /// What `bpf_get_current_cgroup_id` calls it: the kernfs inode number.
    pub id: u64,
    /// Depth below the root, which is 0.
    pub level: u32,
}

/// Moves the calling thread, and those it starts, into a cgroup namespace. For a process that has no other thread yet.
pub fn enter_namespace(path: &Path) -> Result<(), CgroupError> {
    let enter = || -> io::Result<()> {
        let file = fs::File::open(path)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        Ok(())
    };
    enter().map_err(|source| CgroupError::Enter { path: path.into(), source })
}

impl CgroupMount {
    /// Finds it in this process's mount table. On hybrid machines it is not at `/sys/fs/cgroup`.
    pub fn find() -> Result<Self, CgroupError> {
        let path = PathBuf::from("/proc/self/mounts");
        let mounts = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        Self::parse(&mounts).ok_or(CgroupError::NotMounted)
    }

    fn parse(mounts: &str) -> Option<Self> {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
            // Blanks in paths are written as octal escapes (getmntent(3)).
            (kind == "cgroup2").then(|| Self(PathBuf::from(target.replace("\\040", " "))))
        })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The cgroup at a directory, absolute or relative to the mount.
    pub fn cgroup(&self, path: &Path) -> Result<Cgroup, CgroupError> {
        let not = || CgroupError::NotACgroup { path: path.into(), mount: self.0.clone() };
        let dir = if path.starts_with(&self.0) {
            path.to_owned()
        } else {
            self.0.join(path.strip_prefix("/").unwrap_or(path))
        };
        let dir = fs::canonicalize(&dir).map_err(|_| not())?;
        let rel = dir.strip_prefix(&self.0).map_err(|_| not())?.to_string_lossy().into_owned();
        let (meta, root) =
            (fs::metadata(&dir).map_err(|_| not())?, fs::metadata(&self.0).map_err(|_| not())?);
        if !meta.is_dir() || meta.dev() != root.dev() {
            return Err(not());
        }
        let level =
            u32::try_from(rel.split('/').filter(|part| !part.is_empty()).count()).map_err(|_| not())?;
        Ok(Cgroup { dir, rel, id: meta.ino(), level })
    }

    /// This process's own cgroup.
    pub fn own(&self) -> Result<Cgroup, CgroupError> {
        let path = PathBuf::from("/proc/self/cgroup");
        let text = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        let rel = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let own = self.cgroup(Path::new(rel))?;
        // In a cgroup namespace the path is relative to the namespace's root, and names another cgroup of the host's tree.
        let procs = fs::read_to_string(own.dir.join("cgroup.procs")).unwrap_or_default();
        let pid = std::process::id().to_string();
        if procs.lines().any(|line| line == pid) {
            Ok(own)
        } else {
            Err(CgroupError::Namespaced { mount: self.0.clone(), said: format!("/{rel}") })
        }
    }

    /// Where to attach when the operator does not say: the kubelet's pods, else everything.
    pub fn default_attach_point(&self) -> Result<Cgroup, CgroupError> {
        POD_ROOTS
            .iter()
            .find_map(|name| self.cgroup(Path::new(name)).ok())
            .map_or_else(|| self.cgroup(Path::new("")), Ok)
    }
}

impl Cgroup {
    /// The first process found in the cgroup or below it.
    pub fn first_process(&self) -> Option<u32> {
        first_process(&self.dir)
    }

    /// The first process of every cgroup here and below, by the cgroups' names, but for those of CRI-O's monitors.
    pub fn first_processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        first_processes(&self.dir, &mut found);
        found
    }

    /// The pods' cgroups below this one, by pod.
    pub fn pods(&self) -> HashMap<PodUid, PathBuf> {
        let mut found = HashMap::new();
        // A pod is known by the names above it too.
        let above = if self.rel.is_empty() { String::new() } else { format!("{}/", self.rel) };
        pods(&self.dir, &above, POD_DEPTH, &mut found);
        found
    }
}

fn pods(dir: &Path, rel: &str, depth: u32, found: &mut HashMap<PodUid, PathBuf>) {
    if depth == 0 {
        return;
    }
    for child in children(dir) {
        let Some(name) = child.file_name().and_then(|name| name.to_str()) else { continue };
        let path = format!("{rel}{name}");
        if let Some(uid) = PodUid::of_cgroup(&path) {
            found.insert(uid, child);
        } else if !matches!(name.rsplit_once('.'), Some((_, "scope" | "service"))) {
            // Scopes and services are systemd's leaves: what is below them is their own.
            pods(&child, &format!("{path}/"), depth - 1, found);
        }
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut children: Vec<_> = entries
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
        .collect();
    children.sort();
    children
}

fn first_processes(dir: &Path, found: &mut Vec<u32>) {
    found.extend(first_here(dir));
    for child in children(dir) {
        let monitor =
            child.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("crio-conmon-"));
        if !monitor {
            first_processes(&child, found);
        }
    }
}

fn first_process(dir: &Path) -> Option<u32> {
    first_here(dir).or_else(|| children(dir).iter().find_map(|child| first_process(child)))
}

fn first_here(dir: &Path) -> Option<u32> {
    // A read of cgroup.procs fails for threaded cgroups and for ones that vanish meanwhile: no process there for us.
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    // A process of another pid namespace reads as 0.
    procs.lines().filter_map(|l| l.parse().ok()).find(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_is_found_on_hybrid_machines() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(CgroupMount::parse(hybrid).unwrap().path(), Path::new("/sys/fs/cgroup/unified"));
        let unified = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(CgroupMount::parse(unified).unwrap().path(), Path::new("/sys/fs/cgroup"));
        let blank = "cgroup2 /a\\040b cgroup2 rw 0 0\n";
        assert_eq!(CgroupMount::parse(blank).unwrap().path(), Path::new("/a b"));
        assert_eq!(CgroupMount::parse("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
