//! Pins: what keeps the direct path going while there is no agent, and lets the next agent take over without a gap.
//!
//! ```text
//! DIR/<cgroup id>-<object hash>/map-NAME     what the agent shares with the programs
//!                              /link-NAME    one per attachment
//! ```
//! An agent of the same build adopts them as they are. One of another build attaches its own programs beside the old
//! ones, which come first and still decide, and when its own are proven has the old ones [retired](Pins::retire_others).
//! Retired are the connect hooks at once; the others serve the connections they know until the second build after them,
//! or until nobody is enrolled in their sockmap at that time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, SockHash},
    pin::PinError,
    programs::links::{FdLink, LinkError, PinnedLink},
};

use super::{
    cgroup::Cgroup,
    maps::{MapSource, MapsError, SHARED},
    object,
    programs::{Attached, link_names},
};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: u64 = 0xcafe_4a11;

/// Pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// Not where pins can be.
    #[error(
        "--pin-dir {path} is not on a BPF filesystem; mount one (`mount -t bpf bpf /sys/fs/bpf`) and give a directory below it"
    )]
    NotBpffs {
        /// What was given.
        path: PathBuf,
    },
    /// A file system operation failed.
    #[error("cannot use {path}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An object cannot be pinned.
    #[error("cannot pin {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<PinError>,
    },
    /// A pinned link cannot be opened.
    #[error("cannot adopt {path}")]
    Link {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<LinkError>,
    },
    /// A map is missing.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// The pins of one build of the programs on one cgroup.
#[derive(Debug)]
pub struct Pins {
    base: PathBuf,
    cgroup: u64,
    dir: PathBuf,
}

impl Pins {
    /// Those of this build, there or not.
    pub fn new(base: &Path, root: &Cgroup) -> Result<Self, PinsError> {
        let io = |source| PinsError::Io { path: base.into(), source };
        // The directory itself may have to be made; its parents are the operator's.
        match fs::create_dir(base) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io(e)),
            _ => {}
        }
        let stat = rustix::fs::statfs(base).map_err(|e| io(e.into()))?;
        if u64::try_from(stat.f_type).ok() != Some(BPF_FS) {
            return Err(PinsError::NotBpffs { path: base.into() });
        }
        let dir = base.join(format!("{}-{:016x}", root.id, object::hash()));
        Ok(Self { base: base.into(), cgroup: root.id, dir })
    }

    /// Whether a whole set is there. A part of one is what an agent left that died in the middle.
    pub fn are_whole(&self) -> bool {
        SHARED.iter().all(|name| self.map_path(name).exists())
            && link_names().all(|name| self.link_path(name).exists())
    }

    /// Pins all maps, then all links: a set is whole only with its last link.
    pub fn pin(&self, ebpf: &Ebpf, attached: Attached) -> Result<Attached, PinsError> {
        remove_dir(&self.dir)?;
        fs::create_dir(&self.dir).map_err(|source| PinsError::Io { path: self.dir.clone(), source })?;
        for name in SHARED {
            let path = self.map_path(name);
            let map = ebpf.map(name).ok_or(MapsError::Missing { name, source: None })?;
            map.pin(&path).map_err(|source| PinsError::Pin { path, source: Box::new(source) })?;
        }
        let Attached { links, ids } = attached;
        let links = links.into_iter().map(|(name, link)| {
            let path = self.link_path(name);
            let pinned =
                link.pin(&path).map_err(|source| PinsError::Pin { path, source: Box::new(source) })?;
            Ok((name, FdLink::from(pinned)))
        });
        Ok(Attached { links: links.collect::<Result<_, PinsError>>()?, ids })
    }

    /// Takes over the attachments as they are.
    pub fn adopt(&self) -> Result<Attached, PinsError> {
        let mut links = Vec::new();
        let mut ids = Vec::new();
        for name in link_names() {
            let path = self.link_path(name);
            let failed = |source| PinsError::Link { path: path.clone(), source: Box::new(source) };
            let link = FdLink::from(PinnedLink::from_pin(&path).map_err(failed)?);
            ids.push(link.info().map_err(failed)?.program_id());
            links.push((name, link));
        }
        Ok(Attached { links, ids })
    }

    /// Retires the programs of other builds on the same cgroup: see the module. Returns how many sets were found.
    pub fn retire_others(&self) -> Result<usize, PinsError> {
        let mut found = 0;
        for dir in sets(&self.base)? {
            if dir == self.dir || cgroup_of(&dir) != Some(self.cgroup) {
                continue;
            }
            found += 1;
            let hooks = ["connect4", "connect6"].map(|name| link_path(&dir, name));
            if hooks.iter().any(|hook| hook.exists()) {
                for hook in hooks {
                    remove_file(&hook)?;
                }
                tracing::info!(dir = %dir.display(), "another build's connect hooks are retired");
            } else if is_empty(&dir) {
                remove_dir(&dir)?;
                tracing::info!(dir = %dir.display(), "another build's programs are removed");
            }
        }
        Ok(found)
    }

    fn map_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("map-{name}"))
    }

    fn link_path(&self, name: &str) -> PathBuf {
        link_path(&self.dir, name)
    }
}

impl MapSource for Pins {
    fn map(&mut self, name: &'static str) -> Result<Map, MapsError> {
        MapData::from_pin(self.map_path(name))
            .and_then(Map::from_map_data)
            .map_err(|source| MapsError::Missing { name, source: Some(source) })
    }
}

/// Removes everything pinned under a directory, and the directory: programs are detached, maps freed. Returns what there
/// was. Agents that still run keep their own until they end.
pub fn uninstall(base: &Path) -> Result<Vec<PathBuf>, PinsError> {
    let sets = sets(base)?;
    for dir in &sets {
        remove_dir(dir)?;
    }
    match fs::remove_dir(base) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(PinsError::Io { path: base.into(), source }),
    }
    Ok(sets)
}

fn link_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("link-{name}"))
}

fn cgroup_of(dir: &Path) -> Option<u64> {
    dir.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

/// Whether no socket waits in a set's sockmap. One that cannot be looked at is taken for empty.
fn is_empty(dir: &Path) -> bool {
    let socks = MapData::from_pin(dir.join("map-SOCKS")).and_then(Map::from_map_data);
    let socks = socks.and_then(|map| -> Result<SockHash<MapData, u64>, MapError> { map.try_into() });
    socks.is_ok_and(|socks| socks.keys().next().is_none())
}

fn sets(base: &Path) -> Result<Vec<PathBuf>, PinsError> {
    let io = |source| PinsError::Io { path: base.into(), source };
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(io(e)),
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if cgroup_of(&path).is_some() {
            dirs.push(path);
        }
    }
    Ok(dirs)
}

/// Links go first, the connect hooks before the rest: nothing is rewritten any more when what serves it goes.
fn remove_dir(dir: &Path) -> Result<(), PinsError> {
    let mut links: Vec<_> = link_names().collect();
    links.reverse();
    for name in links {
        remove_file(&link_path(dir, name))?;
    }
    for name in SHARED {
        remove_file(&dir.join(format!("map-{name}")))?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(PinsError::Io { path: dir.into(), source: e }),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), PinsError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(PinsError::Io { path: path.into(), source: e }),
        _ => Ok(()),
    }
}
