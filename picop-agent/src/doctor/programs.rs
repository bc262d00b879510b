//! The eBPF object, and each of its programs on its own: loaded, attached, read back, detached.

use std::{
    error::Error as _,
    fs::File,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{MapData, SockHash},
    programs::{CgroupAttachMode, CgroupSockAddr, ProgramError, SkMsg, SockOps},
};
use aya_obj::generated::bpf_attach_type;

use super::{
    check::{Check, Feature, Finding, Spec},
    scratch::Scratch,
};
use crate::{
    intercept::{object::LoadError, programs::SOCK_OPS},
    sys,
    telemetry::chain,
};

const OBJECT: Spec = Spec {
    id: "object",
    what: "eBPF object loads",
    features: &[Feature::Interception],
    required: true,
    consequence: "`picop run` refuses to start",
};

const fn program(id: &'static str, what: &'static str, consequence: &'static str) -> Spec {
    Spec { id, what, features: &[Feature::Interception], required: true, consequence }
}

/// The programs of interception: the check, the program's name, its hook.
const INTERCEPTION: [(Spec, &str, bpf_attach_type); 5] = [
    (
        program("connect4", "program connect4", "IPv4 connections cannot be intercepted"),
        "connect4",
        bpf_attach_type::BPF_CGROUP_INET4_CONNECT,
    ),
    (
        program("connect6", "program connect6", "IPv6 and v4-mapped connections cannot be intercepted"),
        "connect6",
        bpf_attach_type::BPF_CGROUP_INET6_CONNECT,
    ),
    (
        program(
            "getpeername4",
            "program getpeername4",
            "applications would be told the agent's address as their peer's",
        ),
        "getpeername4",
        bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
    ),
    (
        program(
            "getpeername6",
            "program getpeername6",
            "applications would be told the agent's address as their peer's",
        ),
        "getpeername6",
        bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
    ),
    (
        program(
            "sock_ops",
            "program sock_ops",
            "the agent cannot learn where an intercepted connection wanted to go",
        ),
        SOCK_OPS,
        bpf_attach_type::BPF_CGROUP_SOCK_OPS,
    ),
];

const SK_MSG: Spec = Spec {
    id: "sk_msg",
    what: "program sk_msg",
    features: &[Feature::DirectPath, Feature::Graft],
    required: false,
    consequence: "no header can be pushed by the kernel, and no payload redirected: connections are relayed",
};

const FAST_OPEN: Spec = Spec {
    id: "fast_open",
    what: "TCP Fast Open is seen",
    features: &[Feature::DirectPath],
    required: false,
    consequence: "connections that send with their SYN to services with `header: propagate` may lack their header (event \
                  header_missed); the others are not concerned",
};

/// How far a program got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trial {
    /// There is nothing to try it with.
    NotTried(&'static str),
    /// The object has no such program.
    NotInObject,
    /// The kernel does not take it.
    NotLoaded(String),
    /// Taken, but there is no cgroup to attach it to.
    NoCgroup,
    /// Not attached.
    NotAttached(String),
    /// Attached, but the kernel does not list it.
    NotListed,
    /// What is attached cannot be asked for.
    NotRead(String),
    /// Still listed after it was detached, or detaching failed.
    NotDetached(String),
    /// All went well.
    Works,
}

fn verdict(trial: &Trial) -> Finding {
    match trial {
        Trial::NotTried(why) => Finding::unknown(format!("not tried: {why}")),
        Trial::NotInObject => {
            Finding::missing("the eBPF object has no such program; rebuild with `cargo xtask build-ebpf`")
        }
        Trial::NotLoaded(why) => Finding::missing(format!("the kernel refuses it: {why}")),
        Trial::NoCgroup => Finding::unknown("loads; not attached, as there is no cgroup to try it in"),
        Trial::NotAttached(why) => Finding::missing(format!("loads, but cannot be attached: {why}")),
        Trial::NotListed => Finding::missing("attached, but the kernel does not list it"),
        Trial::NotRead(why) => Finding::unknown(format!("attached, but cannot be read back: {why}")),
        Trial::NotDetached(why) => {
            Finding::degraded(format!("loads and attaches, but cannot be detached: {why}"))
                .so("what it does would outlast the agent")
        }
        Trial::Works => Finding::ok("loads, attaches, detaches"),
    }
}

/// The check of the object.
pub fn object(loaded: Result<(), &LoadError>) -> Check {
    OBJECT.found(match loaded {
        Ok(()) => Finding::ok("maps and BTF taken by the kernel"),
        // The kernel's words only: the error's own are for those who have not asked the doctor yet.
        Err(error) => Finding::missing(error.source().map_or_else(|| error.to_string(), chain)),
    })
}

/// The checks of the programs of interception, which stay loaded. Without a scratch cgroup they are only loaded.
pub fn interception(mut ebpf: Option<&mut Ebpf>, scratch: Option<&Scratch>) -> Vec<Check> {
    let dir = scratch.map(|scratch| File::open(scratch.dir()));
    INTERCEPTION
        .iter()
        .map(|(spec, name, kind)| {
            let trial = match (ebpf.as_deref_mut(), &dir) {
                (None, _) => Trial::NotTried(NO_OBJECT),
                (Some(ebpf), None) => try_one(ebpf, name, *kind, None),
                (Some(ebpf), Some(Ok(dir))) => try_one(ebpf, name, *kind, Some(dir.as_fd())),
                (Some(_), Some(Err(error))) => Trial::NotAttached(error.to_string()),
            };
            spec.found(verdict(&trial))
        })
        .collect()
}

/// What other probes say when there is no object to try.
pub const NO_OBJECT: &str = "the object does not load";

/// The check of what the connect hooks know of a socket; `seen` is what loading the object said.
pub fn fast_open(seen: Option<Result<(), String>>) -> Check {
    FAST_OPEN.found(match seen {
        None => Finding::unknown(format!("not tried: {NO_OBJECT}")),
        Some(Ok(())) => Finding::ok("the connect hooks may look where the kernel's BTF says"),
        Some(Err(why)) => Finding::missing(why),
    })
}

fn try_one(ebpf: &mut Ebpf, name: &str, kind: bpf_attach_type, dir: Option<BorrowedFd<'_>>) -> Trial {
    // How aya spells "no flag"; links always let others attach beside them.
    let mode = CgroupAttachMode::Single;
    let Some(program) = ebpf.program_mut(name) else { return Trial::NotInObject };
    if kind == bpf_attach_type::BPF_CGROUP_SOCK_OPS {
        let Ok(program) = <&mut SockOps>::try_from(program) else { return Trial::NotInObject };
        if let Err(error) = program.load() {
            return Trial::NotLoaded(words(&error));
        }
        let Some(dir) = dir else { return Trial::NoCgroup };
        let id = program.info().map(|info| info.id());
        let link = program.attach(dir, mode);
        prove(link, &id, dir, kind, |link| program.detach(link))
    } else {
        let Ok(program) = <&mut CgroupSockAddr>::try_from(program) else { return Trial::NotInObject };
        if let Err(error) = program.load() {
            return Trial::NotLoaded(words(&error));
        }
        let Some(dir) = dir else { return Trial::NoCgroup };
        let id = program.info().map(|info| info.id());
        let link = program.attach(dir, mode);
        prove(link, &id, dir, kind, |link| program.detach(link))
    }
}

/// Reads an attachment back, and sees it go.
fn prove<L>(
    link: Result<L, ProgramError>,
    program_id: &Result<u32, ProgramError>,
    dir: BorrowedFd<'_>,
    kind: bpf_attach_type,
    detach: impl FnOnce(L) -> Result<(), ProgramError>,
) -> Trial {
    let link = match link {
        Ok(link) => link,
        Err(error) => return Trial::NotAttached(words(&error)),
    };
    let listed = || -> Result<bool, String> {
        let id = program_id.as_ref().map_err(words)?;
        sys::attached_programs(dir, kind).map(|ids| ids.contains(id)).map_err(|error| error.to_string())
    };
    let before = listed();
    if let Err(error) = detach(link) {
        return Trial::NotDetached(words(&error));
    }
    match (before, listed()) {
        (Ok(true), Ok(false)) => Trial::Works,
        (Ok(false), _) => Trial::NotListed,
        (Ok(true), Ok(true)) => Trial::NotDetached("the kernel still lists it".to_owned()),
        (Err(why), _) | (_, Err(why)) => Trial::NotRead(why),
    }
}

/// Loads the doctor's `sk_msg` program and attaches it to its map, which is returned if all goes well. It stays attached
/// as long as the object is loaded.
pub fn sk_msg(ebpf: Option<&mut Ebpf>) -> (Check, Option<SockHash<MapData, u32>>) {
    let mut map = None;
    let trial = match ebpf {
        None => Trial::NotTried(NO_OBJECT),
        Some(ebpf) => try_sk_msg(ebpf, &mut map),
    };
    let finding = match &trial {
        Trial::Works => Finding::ok("loads, attaches to a map of sockets"),
        other => verdict(other),
    };
    (SK_MSG.found(finding), map)
}

fn try_sk_msg(ebpf: &mut Ebpf, map: &mut Option<SockHash<MapData, u32>>) -> Trial {
    let Some(Ok(sockets)) = ebpf.take_map("PROBED").map(SockHash::<MapData, u32>::try_from) else {
        return Trial::NotInObject;
    };
    let Some(Ok(program)) = ebpf.program_mut("probe").map(<&mut SkMsg>::try_from) else {
        return Trial::NotInObject;
    };
    if let Err(error) = program.load() {
        return Trial::NotLoaded(words(&error));
    }
    if let Err(error) = program.attach(sockets.fd()) {
        return Trial::NotAttached(words(&error));
    }
    *map = Some(sockets);
    Trial::Works
}

fn words(error: &ProgramError) -> String {
    chain(error)
}

#[cfg(test)]
mod tests;
