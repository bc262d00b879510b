//! Which Linux capabilities the process holds, and what each is needed for.

use std::{fs, io};

/// A capability the agent needs. The number is that of `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Bit in `CapEff`.
    pub bit: u32,
    /// Its name.
    pub name: &'static str,
    /// What the agent does with it.
    pub purpose: &'static str,
}

/// All that `picop run` needs.
pub const NEEDED: [Needed; 4] = [
    Needed { bit: 12, name: "CAP_NET_ADMIN", purpose: "attach programs to cgroups and sockets" },
    Needed { bit: 19, name: "CAP_SYS_PTRACE", purpose: "open the network namespaces of pods' processes" },
    Needed { bit: 21, name: "CAP_SYS_ADMIN", purpose: "enter network namespaces (setns)" },
    Needed { bit: 39, name: "CAP_BPF", purpose: "load programs and maps" },
];

/// The effective capabilities of this process, as a bit set.
pub fn effective() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    parse(&status).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapEff in /proc/self/status"))
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Those of [`NEEDED`] that are not in the set.
pub fn missing(effective: u64) -> Vec<Needed> {
    NEEDED.into_iter().filter(|needed| effective & (1 << needed.bit) == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_are_named() {
        assert!(missing(u64::MAX).is_empty());
        assert_eq!(missing(0).len(), NEEDED.len());
        assert_eq!(missing(!(1 << 39)).first().map(|n| n.name), Some("CAP_BPF"));
        assert_eq!(parse("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(parse("Name:\tx\n"), None);
    }
}
