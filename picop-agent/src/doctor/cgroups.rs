//! The cgroup v2 tree, and the place in it where the agent would attach.

use std::{fs::File, io, os::fd::AsFd as _, path::Path};

use aya_obj::generated::bpf_attach_type;

use super::{
    check::{Check, Feature, Finding, Spec},
    scratch::Scratch,
};
use crate::{
    intercept::{
        cgroup::{Cgroup, CgroupError, CgroupMount},
        programs::SOCK_ADDR,
    },
    sys,
    telemetry::chain,
};

const MOUNT: Spec = Spec {
    id: "cgroup2",
    what: "cgroup v2",
    features: &[Feature::Interception],
    required: true,
    consequence: "there is nothing to attach the programs to",
};
const ATTACH_POINT: Spec = Spec {
    id: "attach_point",
    what: "cgroup to attach to",
    features: &[Feature::Interception],
    required: true,
    consequence: "the programs cannot be attached there",
};
const SCRATCH: Spec = Spec {
    id: "cgroup_create",
    what: "creation of cgroups",
    features: &[Feature::Interception],
    required: true,
    consequence: "no cgroup for the canary that proves interception: `picop run` refuses to start (in a container, \
                  mount the host's cgroup tree writable)",
};

/// `BPF_F_ALLOW_MULTI` of `linux/bpf.h`.
const ALLOW_MULTI: u32 = 2;

/// What the other probes need of the cgroup tree.
pub struct Cgroups {
    /// Where it is mounted.
    pub mount: Option<CgroupMount>,
    /// Where the agent would attach.
    pub attach_point: Option<Cgroup>,
    /// Where the doctor tries things.
    pub scratch: Option<Scratch>,
}

/// Looks at the tree, and makes a cgroup in it: below the attach point, or below the root if there is no such point.
pub fn checks(wanted: Option<&Path>) -> (Vec<Check>, Cgroups) {
    let mount = CgroupMount::find();
    let found = match &mount {
        Ok(mount) => Finding::ok(format!("mounted at {}", mount.path().display())),
        Err(error) => Finding::missing(chain(error)),
    };
    let mut checks = vec![MOUNT.found(found)];
    let Ok(mount) = mount else {
        let not_tried = || Finding::unknown("not tried without cgroup v2");
        checks.extend([ATTACH_POINT.found(not_tried()), SCRATCH.found(not_tried())]);
        return (checks, Cgroups { mount: None, attach_point: None, scratch: None });
    };
    let point = wanted.map_or_else(|| mount.default_attach_point(), |path| mount.cgroup(path));
    let others = point.as_ref().map_or_else(|_| Ok(Vec::new()), others);
    checks.push(ATTACH_POINT.found(attach_point(&point, &others)));
    let attach_point = point.ok();
    let parent = attach_point.as_ref().map_or(mount.path(), |cgroup| &cgroup.dir);
    let scratch = Scratch::new(parent);
    checks.push(SCRATCH.found(match &scratch {
        Ok(_) => Finding::ok(format!("made one below {}", parent.display())),
        Err(error) => Finding::missing(format!("cannot make a cgroup below {}: {error}", parent.display())),
    }));
    (checks, Cgroups { mount: Some(mount), attach_point, scratch: scratch.ok() })
}

/// Programs that are attached to one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Others {
    hook: &'static str,
    count: u32,
    /// Whether they let others attach beside them.
    shared: bool,
}

fn others(cgroup: &Cgroup) -> io::Result<Vec<Others>> {
    let dir = File::open(&cgroup.dir)?;
    let hooks = SOCK_ADDR.into_iter().chain([("sock_ops", bpf_attach_type::BPF_CGROUP_SOCK_OPS)]);
    hooks
        .map(|(hook, kind)| {
            let (count, flags) = sys::attachment(dir.as_fd(), kind)?;
            Ok(Others { hook, count, shared: flags & ALLOW_MULTI != 0 })
        })
        .collect()
}

fn attach_point(point: &Result<Cgroup, CgroupError>, others: &io::Result<Vec<Others>>) -> Finding {
    let place = match point {
        Ok(cgroup) if cgroup.level == 0 => format!("{} (the root)", cgroup.dir.display()),
        Ok(cgroup) => cgroup.dir.display().to_string(),
        Err(error) => return Finding::missing(chain(error)),
    };
    let others = match others {
        Ok(others) => others,
        Err(error) => {
            return Finding::unknown(format!("{place}: cannot ask what is attached there: {error}"));
        }
    };
    let exclusive: Vec<_> = others.iter().filter(|o| o.count > 0 && !o.shared).map(|o| o.hook).collect();
    if !exclusive.is_empty() {
        return Finding::missing(format!(
            "{place}: a program that forbids others beside it (attached without BPF_F_ALLOW_MULTI) is at {}",
            exclusive.join(", ")
        ));
    }
    let present: Vec<_> =
        others.iter().filter(|o| o.count > 0).map(|o| format!("{} at {}", o.count, o.hook)).collect();
    if present.is_empty() {
        Finding::ok(place)
    } else {
        Finding::ok(format!("{place}; programs already there, which is fine: {}", present.join(", ")))
    }
}

#[cfg(test)]
mod tests;
