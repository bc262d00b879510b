//! What the machine offers before anything is loaded: kernel, BTF, bpffs, capabilities, limits.

use std::{fs, io};

use rustix::process::{Resource, getrlimit};

use super::check::{Check, Feature, Finding, Spec};
use crate::intercept::capabilities::{self, Needed};

const KERNEL: Spec = Spec {
    id: "kernel",
    what: "kernel version",
    features: &[Feature::Interception],
    required: false,
    consequence: "the kernel may refuse the programs; those checks below decide",
};
const BTF: Spec = Spec {
    id: "btf",
    what: "BTF of the kernel",
    features: &[Feature::Interception],
    required: false,
    consequence: "without CONFIG_DEBUG_INFO_BTF the kernel may refuse the programs; those checks below decide",
};
const BPFFS: Spec = Spec {
    id: "bpffs",
    what: "bpffs",
    features: &[Feature::Pinning],
    required: false,
    consequence: "links cannot be pinned: programs go with the agent's process (mount -t bpf bpf /sys/fs/bpf)",
};
const NOFILE: Spec = Spec {
    id: "nofile",
    what: "open descriptors",
    features: &[Feature::Relay],
    required: false,
    consequence: "connections over the limit are refused; raise it (ulimit -n, LimitNOFILE=)",
};
const SOMAXCONN: Spec = Spec {
    id: "somaxconn",
    what: "net.core.somaxconn",
    features: &[Feature::Relay],
    required: false,
    consequence: "in a burst of new connections of one workload some wait a second for their second SYN",
};

/// Since when the kernel has all helpers the programs use (`bpf_set_retval` in connect hooks). The oldest tested is 6.1.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// `picop run`'s default of `--max-connections`.
const CONNECTIONS: u64 = 50_000;
/// Accepted and upstream socket.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;
/// Descriptors for everything else: maps, links, two listeners and a namespace for each workload.
const DESCRIPTORS_APART: u64 = 1024;
/// The backlog the agent's listeners ask for.
const BACKLOG: u64 = 4096;

const BPFFS_PATH: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
/// `BTF_MAGIC` of `linux/btf.h`.
const BTF_MAGIC: u16 = 0xeb9f;

/// The checks of this module, kernel to capabilities.
pub fn checks(release: &str) -> Vec<Check> {
    let mut checks =
        vec![KERNEL.found(kernel(release)), BTF.found(btf(fs::read(BTF_PATH))), BPFFS.found(bpffs(magic()))];
    let effective = capabilities::effective();
    checks.extend(
        capabilities::NEEDED
            .iter()
            .map(|needed| capability_spec(needed).found(capability(needed, &effective))),
    );
    checks
}

/// The checks of limits.
pub fn limits() -> Vec<Check> {
    // The agent raises its soft limit to the hard one.
    let hard = getrlimit(Resource::Nofile).maximum;
    let backlog = fs::read_to_string("/proc/sys/net/core/somaxconn");
    vec![NOFILE.found(nofile(hard)), SOMAXCONN.found(somaxconn(backlog))]
}

fn kernel(release: &str) -> Finding {
    let (major, minor) = KERNEL_MIN;
    match version(release) {
        Some(version) if version >= KERNEL_MIN => Finding::ok(release),
        Some(_) => Finding::degraded(format!("{release} is older than {major}.{minor}")),
        None => Finding::unknown(format!("{release:?} is no version; {major}.{minor} or later is needed")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn btf(file: io::Result<Vec<u8>>) -> Finding {
    match file {
        Ok(bytes) if bytes.starts_with(&BTF_MAGIC.to_ne_bytes()) => {
            Finding::ok(format!("{BTF_PATH}, {} kB", bytes.len() / 1024))
        }
        Ok(_) => Finding::degraded(format!("{BTF_PATH} holds no BTF")),
        Err(error) => Finding::degraded(format!("cannot read {BTF_PATH}: {error}")),
    }
}

fn magic() -> io::Result<u64> {
    // The field is as wide as a word, and signed on some architectures; the magic has 32 bits.
    #[expect(clippy::cast_sign_loss, reason = "a bit pattern")]
    Ok(rustix::fs::statfs(BPFFS_PATH)?.f_type as u64 & 0xffff_ffff)
}

fn bpffs(magic: io::Result<u64>) -> Finding {
    match magic {
        Ok(BPF_FS_MAGIC) => Finding::ok(format!("mounted at {BPFFS_PATH}")),
        Ok(_) => Finding::degraded(format!("not mounted at {BPFFS_PATH}")),
        Err(error) => Finding::degraded(format!("no {BPFFS_PATH}: {error}")),
    }
}

fn capability_spec(needed: &Needed) -> Spec {
    let features: &[_] = match needed.name {
        "CAP_SYS_ADMIN" | "CAP_SYS_PTRACE" => &[Feature::Interception, Feature::Relay],
        _ => &[Feature::Interception],
    };
    let consequence = "`picop run` refuses to start; run it as root, or give the container this capability";
    Spec { id: needed.name, what: needed.name, features, required: true, consequence }
}

fn capability(needed: &Needed, effective: &io::Result<u64>) -> Finding {
    match effective {
        Ok(set) if set & (1 << needed.bit) != 0 => Finding::ok(format!("to {}", needed.purpose)),
        Ok(_) => Finding::missing(format!("needed to {}", needed.purpose)),
        Err(error) => Finding::unknown(format!("cannot tell: {error}")),
    }
}

fn nofile(hard: Option<u64>) -> Finding {
    let Some(hard) = hard else { return Finding::ok("no limit") };
    let connections = hard.saturating_sub(DESCRIPTORS_APART) / DESCRIPTORS_PER_CONNECTION;
    let detail = format!("a hard limit of {hard}: about {connections} relayed connections at once");
    if connections >= CONNECTIONS {
        Finding::ok(detail)
    } else {
        Finding::degraded(format!("{detail}, less than --max-connections ({CONNECTIONS} by default)"))
    }
}

fn somaxconn(file: io::Result<String>) -> Finding {
    let value = match file {
        Ok(text) => text.trim().parse::<u64>().map_err(|_| format!("{text:?} is no number")),
        Err(error) => Err(error.to_string()),
    };
    match value {
        Ok(value) if value >= BACKLOG => Finding::ok(format!("{value} here; each pod has its own")),
        Ok(value) => Finding::degraded(format!("{value} here, less than {BACKLOG}; each pod has its own")),
        Err(error) => Finding::unknown(error),
    }
}

#[cfg(test)]
mod tests;
