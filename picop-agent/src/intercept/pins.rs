//! Pins: what keeps the direct path going while there is no agent, and lets the next agent take over without a gap.
//!
//! ```text
//! DIR/<cgroup id>-<object hash>/map-NAME     what the agent shares with the programs
//!                              /prog-agent_ops  for the agent's own cgroup, which is another one after its pod's restart
//!                              /link-NAME    one per attachment
//! ```
//! An agent of the same build adopts them as they are. One of another build attaches its own programs beside the old
//! ones, which come first and still decide, and when its own are proven has the old ones [retired](Pins::retire_others).
//! Retired are the connect hooks at once; the others serve the connections they know until the second build after them,
//! or until nobody is enrolled in their sockmap at that time.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError, SockHash},
    pin::PinError,
    programs::{
        ProgramError, SockOps,
        links::{FdLink, LinkError, PinnedLink},
    },
};

use picop_common::{connect::HEARTBEAT_STALE_NS, maps::SOCKS_MAX};

use super::{
    cgroup::Cgroup,
    heartbeat, leave,
    maps::{self, MapSource, MapsError, SHARED},
    object,
    programs::{self, AGENT_OPS, AttachError, Attached, CONNECT, link_names},
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
    /// A pinned program cannot be opened.
    #[error("cannot adopt {path}")]
    Program {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map is missing.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// A program is missing.
    #[error(transparent)]
    Attach(#[from] AttachError),
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
        let dir = base.join(name(root.id));
        Ok(Self { base: base.into(), cgroup: root.id, dir })
    }

    /// Whether a whole set is there. A part of one is what an agent left that died in the middle.
    pub fn are_whole(&self) -> bool {
        SHARED.iter().all(|name| self.map_path(name).exists())
            && self.program_path().exists()
            && link_names().all(|name| self.link_path(name).exists())
    }

    /// Pins all maps, then all links: a set is whole only with its last link.
    pub fn pin(&self, ebpf: &mut Ebpf, attached: Attached) -> Result<Attached, PinsError> {
        remove_dir(&self.dir)?;
        fs::create_dir(&self.dir).map_err(|source| PinsError::Io { path: self.dir.clone(), source })?;
        for name in SHARED {
            let path = self.map_path(name);
            let map = Ebpf::map(ebpf, name).ok_or(MapsError::Missing { name, source: None })?;
            map.pin(&path).map_err(|source| PinsError::Pin { path, source: Box::new(source) })?;
        }
        let path = self.program_path();
        programs::agent_ops(ebpf)?
            .pin(&path)
            .map_err(|source| PinsError::Pin { path, source: Box::new(source) })?;
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

    /// The program for the agent's own cgroup.
    pub fn agent_ops(&self) -> Result<SockOps, PinsError> {
        let path = self.program_path();
        SockOps::from_pin(&path).map_err(|source| PinsError::Program { path, source: Box::new(source) })
    }

    /// Retires the programs of other builds on the same cgroup: see the module. Returns how many sets were found.
    pub fn retire_others(&self) -> Result<usize, PinsError> {
        let mut found = 0;
        for dir in set_dirs(&self.base)? {
            if dir == self.dir || cgroup_of(&dir) != Some(self.cgroup) {
                continue;
            }
            found += 1;
            if CONNECT.iter().any(|name| link_path(&dir, name).exists()) {
                remove_connect(&dir)?;
                tracing::info!(dir = %dir.display(), "another build's connect hooks are retired");
            } else if enrolled(&dir) == 0 {
                remove_dir(&dir)?;
                tracing::info!(dir = %dir.display(), "another build's programs are removed");
            }
        }
        Ok(found)
    }

    fn program_path(&self) -> PathBuf {
        program_path(&self.dir)
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
        pinned_map(&self.dir, name)
    }
}

/// What is pinned of one build on one cgroup.
#[derive(Debug)]
pub struct Set {
    dir: PathBuf,
    cgroup: u64,
}

impl Set {
    /// Where.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The id of the cgroup it is attached to.
    pub fn cgroup(&self) -> u64 {
        self.cgroup
    }

    /// Whether its maps are laid out as this build's are.
    pub fn is_of_this_build(&self) -> bool {
        self.dir.file_name() == Some(name(self.cgroup).as_ref())
    }

    /// Whether its connect hooks are there.
    pub fn routes_connections(&self) -> bool {
        CONNECT.iter().any(|name| link_path(&self.dir, name).exists())
    }
}

impl MapSource for Set {
    fn map(&mut self, name: &'static str) -> Result<Map, MapsError> {
        pinned_map(&self.dir, name)
    }
}

/// All that is pinned under a directory.
pub fn sets(base: &Path) -> Result<Vec<Set>, PinsError> {
    let set = |dir: PathBuf| cgroup_of(&dir).map(|cgroup| Set { dir, cgroup });
    Ok(set_dirs(base)?.into_iter().filter_map(set).collect())
}

/// What [`uninstall`] did.
#[derive(Debug)]
pub struct Uninstalled {
    /// The sets that were removed.
    pub sets: Vec<PathBuf>,
    /// Those among them whose agent lives: it keeps programs and maps until it ends.
    pub kept: Vec<PathBuf>,
    /// Sockets that were still enrolled at the end of the grace: they were to begin with a header, which nobody writes now.
    pub left: usize,
}

/// Removes everything pinned under a directory, and the directory: programs are detached, maps freed. Connections that
/// were routed and have yet to send their header have until `grace` for that; see [`leave`].
pub fn uninstall(base: &Path, grace: Duration) -> Result<Uninstalled, PinsError> {
    let sets = set_dirs(base)?;
    for dir in &sets {
        remove_connect(dir)?;
    }
    let (kept, going): (Vec<_>, Vec<_>) = sets.iter().cloned().partition(|dir| is_alive(dir));
    let left =
        if going.is_empty() { 0 } else { leave::wait(grace, || going.iter().map(|dir| enrolled(dir)).sum()) };
    for dir in &sets {
        remove_dir(dir)?;
    }
    match fs::remove_dir(base) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(PinsError::Io { path: base.into(), source }),
    }
    Ok(Uninstalled { sets, kept, left })
}

fn link_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("link-{name}"))
}

/// The name of this build's set on a cgroup.
fn name(cgroup: u64) -> String {
    format!("{cgroup}-{:016x}", object::hash())
}

fn pinned_map(dir: &Path, name: &'static str) -> Result<Map, MapsError> {
    MapData::from_pin(dir.join(format!("map-{name}")))
        .and_then(Map::from_map_data)
        .map_err(|source| MapsError::Missing { name, source: Some(source) })
}

fn program_path(dir: &Path) -> PathBuf {
    dir.join(format!("prog-{AGENT_OPS}"))
}

fn cgroup_of(dir: &Path) -> Option<u64> {
    dir.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

fn open<T: TryFrom<Map, Error = MapError>>(dir: &Path, name: &str) -> Result<T, MapError> {
    MapData::from_pin(dir.join(format!("map-{name}"))).and_then(Map::from_map_data)?.try_into()
}

/// How many sockets wait in a set's sockmap. One that cannot be looked at is taken for empty.
fn enrolled(dir: &Path) -> usize {
    let socks = open::<SockHash<MapData, u64>>(dir, "SOCKS");
    socks.map_or(0, |socks| maps::count(socks.keys(), SOCKS_MAX))
}

/// Whether a set's agent lives: its heartbeat is seen to go on. (One that was killed a moment ago looks alive for as long.)
/// One whose heartbeat cannot be read is taken for dead.
fn is_alive(dir: &Path) -> bool {
    let Ok(map) = open::<Array<MapData, u64>>(dir, "HEARTBEAT") else { return false };
    let beat = || map.get(&0, 0).unwrap_or(0);
    let first = beat();
    while first != 0 && heartbeat::now_ns().saturating_sub(first) <= HEARTBEAT_STALE_NS {
        if beat() > first {
            return true;
        }
        thread::sleep(heartbeat::INTERVAL / 10);
    }
    false
}

fn set_dirs(base: &Path) -> Result<Vec<PathBuf>, PinsError> {
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

/// Nothing is routed any more; what was is served on.
fn remove_connect(dir: &Path) -> Result<(), PinsError> {
    CONNECT.iter().try_for_each(|name| remove_file(&link_path(dir, name)))
}

/// Links go first, the connect hooks before the rest: nothing is rewritten any more when what serves it goes.
fn remove_dir(dir: &Path) -> Result<(), PinsError> {
    let mut links: Vec<_> = link_names().collect();
    links.reverse();
    for name in links {
        remove_file(&link_path(dir, name))?;
    }
    remove_file(&program_path(dir))?;
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
