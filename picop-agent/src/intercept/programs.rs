//! Attaching: each program once, to the cgroup that holds the pods.

use std::{fs::File, os::fd::AsFd as _, path::PathBuf};

use aya::{
    Ebpf,
    maps::SockHash,
    programs::{
        CgroupAttachMode, CgroupSockAddr, ProgramError, SkMsg, SockOps,
        links::{FdLink, LinkError},
    },
};
use aya_obj::generated::bpf_attach_type;

use super::cgroup::Cgroup;
use crate::sys;

/// A program could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The object has no such program: agent and object are not of one build.
    #[error("the eBPF object has no program {name}; rebuild with `cargo xtask build-ebpf`")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// The kernel does not take the program.
    #[error("the kernel refuses program {name} (`picop doctor` says what this node can do)")]
    Load {
        /// Its name.
        name: &'static str,
        /// The verifier's or the kernel's words.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map cannot be used.
    #[error("cannot use map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// The kernel's words.
        #[source]
        source: std::io::Error,
    },
    /// The cgroup cannot be opened.
    #[error("cannot open cgroup {path}")]
    Open {
        /// Its directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The kernel does not attach it there.
    #[error(
        "cannot attach program {name} to cgroup {path}; another program there may forbid it (attached without the \
         multi flag), or CAP_NET_ADMIN is missing"
    )]
    Attach {
        /// The program.
        name: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// The kernel's words.
        #[source]
        source: Box<ProgramError>,
    },
    /// An attachment is no `bpf_link`: the kernel is older than 5.7.
    #[error("program {name} was attached without a link, which takes Linux 5.7")]
    Link {
        /// The program.
        name: &'static str,
        /// What aya says.
        #[source]
        source: Box<LinkError>,
    },
    /// Attached, but not there when read back.
    #[error("program {name} was attached to {path}, but the kernel does not list it there")]
    NotThere {
        /// The program.
        name: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
    },
    /// The attachments cannot be read back.
    #[error("cannot read back what is attached to {path}")]
    Query {
        /// The cgroup's directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The hooks on a socket's addresses: the programs' names, and where they attach.
pub const SOCK_ADDR: [(&str, bpf_attach_type); 4] = [
    ("connect4", bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
    ("connect6", bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
    ("getpeername4", bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME),
    ("getpeername6", bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME),
];

/// Those of [`SOCK_ADDR`] that route connections.
pub const CONNECT: [&str; 2] = ["connect4", "connect6"];

/// The one hook on TCP events.
pub const SOCK_OPS: &str = "sock_ops";

/// The programs of enrolled sockets' messages, and the maps they are attached to.
pub const SK_MSG: [(&str, &str); 2] = [("msg", "SOCKS"), ("graft", "SOURCES")];

/// The hook on TCP events of the agent's own cgroup.
pub const AGENT_OPS: &str = "agent_ops";

/// A `bpf_link` always lets others attach beside it: the kernel adds `BPF_F_ALLOW_MULTI` itself
/// (`cgroup_bpf_link_attach`) and, up to 6.12 at least, answers EINVAL to any flag given with a link. `Single` is how
/// aya spells "no flag".
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

/// The programs' links, in the order they were attached. Dropping it detaches those that are not pinned.
#[derive(Debug)]
#[must_use]
pub struct Attached {
    pub(super) links: Vec<(&'static str, FdLink)>,
    pub(super) ids: Vec<u32>,
}

impl Attached {
    /// The kernel's ids of the programs.
    pub fn program_ids(&self) -> &[u32] {
        &self.ids
    }

    /// Detaches the connect hooks: no connection is routed any more; those that were are served on.
    pub fn detach_connect(&mut self) {
        // Closing the last descriptor of a link that is not pinned detaches it; close cannot fail.
        self.links.retain(|(name, _)| !CONNECT.contains(name));
    }

    /// Detaches the programs, the last attached first: connects are left alone before their events are.
    pub fn detach(self) {
        for (_, link) in self.links.into_iter().rev() {
            drop(link);
        }
    }
}

/// Names of all links, in the order they are attached. Sockets must find their original destination recorded as soon as
/// connects are rewritten: `sock_ops` goes first.
pub fn link_names() -> impl Iterator<Item = &'static str> {
    std::iter::once(SOCK_OPS).chain(SOCK_ADDR.iter().rev().map(|(name, _)| *name))
}

/// Loads every program of interception, without attaching: what a wrong kernel or a missing capability refuses shows
/// here, before anything is touched.
pub fn load(ebpf: &mut Ebpf) -> Result<(), AttachError> {
    for (name, _) in SOCK_ADDR {
        let program: &mut CgroupSockAddr = program(ebpf, name)?;
        program.load().map_err(|e| AttachError::Load { name, source: Box::new(e) })?;
    }
    let ops: &mut SockOps = program(ebpf, SOCK_OPS)?;
    ops.load().map_err(|e| AttachError::Load { name: SOCK_OPS, source: Box::new(e) })?;
    let ops: &mut SockOps = program(ebpf, AGENT_OPS)?;
    ops.load().map_err(|e| AttachError::Load { name: AGENT_OPS, source: Box::new(e) })?;
    attach_to_socks(ebpf)
}

/// The kernel has no `bpf_link` for these attachments: they live as long as their maps, whoever made them, and a sockhash
/// nobody enrols sockets in does nothing.
pub fn attach_to_socks(ebpf: &mut Ebpf) -> Result<(), AttachError> {
    SK_MSG.into_iter().try_for_each(|(name, map)| attach_to_map(ebpf, name, map))
}

fn attach_to_map(ebpf: &mut Ebpf, name: &'static str, map: &'static str) -> Result<(), AttachError> {
    let failed = |e: ProgramError| AttachError::Load { name, source: Box::new(e) };
    let socks: SockHash<_, u64> =
        ebpf.map(map).and_then(|m| m.try_into().ok()).ok_or(AttachError::Missing { name: map })?;
    let fd = socks.fd().try_clone().map_err(|source| AttachError::Map { name: map, source })?;
    let msg: &mut SkMsg = program(ebpf, name)?;
    msg.load().map_err(failed)?;
    let id = msg.attach(&fd).map_err(failed)?;
    // Forgotten on purpose: the link's drop would detach it from a map that outlives this process when pinned.
    std::mem::forget(msg.take_link(id).map_err(failed)?);
    Ok(())
}

/// Attaches the loaded programs and reads the attachments back. On an error nothing stays attached.
pub fn attach(ebpf: &mut Ebpf, cgroup: &Cgroup) -> Result<Attached, AttachError> {
    let path = &cgroup.dir;
    let dir = File::open(path).map_err(|source| AttachError::Open { path: path.clone(), source })?;
    let failed = |name: &'static str| {
        move |e: ProgramError| AttachError::Attach { name, path: path.clone(), source: Box::new(e) }
    };
    let mut own = Vec::with_capacity(SOCK_ADDR.len() + 1);
    let mut there = |name: &'static str, kind: bpf_attach_type, id: u32| {
        own.push(id);
        let ids = sys::attached_programs(dir.as_fd(), kind)
            .map_err(|source| AttachError::Query { path: path.clone(), source })?;
        if ids.contains(&id) { Ok(()) } else { Err(AttachError::NotThere { name, path: path.clone() }) }
    };
    let mut links = Vec::with_capacity(SOCK_ADDR.len() + 1);
    for name in link_names() {
        let linked = |source: LinkError| AttachError::Link { name, source: Box::new(source) };
        let (kind, link, id) = match SOCK_ADDR.iter().find(|(n, _)| *n == name) {
            None => {
                let ops: &mut SockOps = program(ebpf, name)?;
                let link = ops.attach(&dir, MODE).map_err(failed(name))?;
                let link = ops.take_link(link).map_err(failed(name))?.try_into().map_err(linked)?;
                (bpf_attach_type::BPF_CGROUP_SOCK_OPS, link, ops.info().map_err(failed(name))?.id())
            }
            Some((_, kind)) => {
                let hook: &mut CgroupSockAddr = program(ebpf, name)?;
                let link = hook.attach(&dir, MODE).map_err(failed(name))?;
                let link = hook.take_link(link).map_err(failed(name))?.try_into().map_err(linked)?;
                (*kind, link, hook.info().map_err(failed(name))?.id())
            }
        };
        links.push((name, link));
        there(name, kind, id)?;
    }
    Ok(Attached { links, ids: own })
}

/// Attaches the hook on the agent's own sockets: no pod is concerned, and it goes with the agent.
pub fn attach_to_own(ops: &mut SockOps, own: &Cgroup) -> Result<FdLink, AttachError> {
    let path = &own.dir;
    let dir = File::open(path).map_err(|source| AttachError::Open { path: path.clone(), source })?;
    let failed =
        |e: ProgramError| AttachError::Attach { name: AGENT_OPS, path: path.clone(), source: Box::new(e) };
    let link = ops.attach(&dir, MODE).map_err(failed)?;
    ops.take_link(link)
        .map_err(failed)?
        .try_into()
        .map_err(|source: LinkError| AttachError::Link { name: AGENT_OPS, source: Box::new(source) })
}

/// The loaded program, to be attached or pinned.
pub fn agent_ops(ebpf: &mut Ebpf) -> Result<&mut SockOps, AttachError> {
    program(ebpf, AGENT_OPS)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, AttachError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name).and_then(|p| p.try_into().ok()).ok_or(AttachError::Missing { name })
}
