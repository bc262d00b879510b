//! A BPF filesystem of a cluster's own, for an agent's pins.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::cluster::Cluster;
use crate::gate;

/// Its name in a cluster's directory.
const NAME: &str = "bpf";

/// A mounted BPF filesystem. Unmounted when dropped, and what is pinned there goes with it; at the latest with its
/// cluster.
#[derive(Debug)]
pub struct BpfFs(PathBuf);

impl BpfFs {
    /// Mounts the cluster's; it has one.
    pub fn mount(cluster: &Cluster) -> Result<Self> {
        let _open = gate::enter()?;
        let path = cluster.dir().join(NAME);
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        mount("bpf", &path, "bpf", MountFlags::empty(), None)
            .with_context(|| format!("mounting a BPF filesystem at {}", path.display()))?;
        Ok(Self(path))
    }

    /// A directory for an agent's pins, which the agent makes.
    pub fn pin_dir(&self) -> PathBuf {
        self.0.join("picop")
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        if let Err(error) = unmounted(&self.0) {
            eprintln!("testbed: {} stays mounted: {error}", self.0.display());
        }
    }
}

/// Unmounts that of the cluster whose directory this is, if there is one.
pub(crate) fn unmount_in(cluster_dir: &Path) -> Result<()> {
    let path = cluster_dir.join(NAME);
    unmounted(&path).with_context(|| format!("unmounting {}", path.display()))
}

fn unmounted(path: &Path) -> rustix::io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        // Not (or no longer) a mount point.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        failed => failed,
    }
}
