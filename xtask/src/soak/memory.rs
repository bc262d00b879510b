//! What memory the agent, its maps and the kernel take.

use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;
use testbed::Agent;

/// In kB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The agent's resident set.
    pub agent_rss: u64,
    /// The kernel memory of the agent's maps.
    pub maps: u64,
    /// The kernel's slab caches: of the whole machine, and of everything on it.
    pub slab: u64,
    /// That of them which cannot be reclaimed.
    pub slab_unreclaimable: u64,
}

impl Memory {
    /// Reads it.
    pub fn read(agent: &Agent) -> Result<Self> {
        let status = format!("/proc/{}/status", agent.pid());
        let status = fs::read_to_string(&status).with_context(|| format!("reading {status}"))?;
        let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        let of = |text: &str, name: &str| field(text, name).with_context(|| format!("no {name}"));
        Ok(Self {
            agent_rss: of(&status, "VmRSS:")?,
            maps: maps(agent)?,
            slab: of(&meminfo, "Slab:")?,
            slab_unreclaimable: of(&meminfo, "SUnreclaim:")?,
        })
    }
}

/// What the maps take that the agent has open, each once.
fn maps(agent: &Agent) -> Result<u64> {
    let dir = format!("/proc/{}/fdinfo", agent.pid());
    let mut seen = std::collections::BTreeMap::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {dir}"))? {
        // One that is closed meanwhile is no map.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if let (Some(id), Some(bytes)) = (field(&text, "map_id:"), field(&text, "memlock:")) {
            seen.insert(id, bytes);
        }
    }
    Ok(seen.values().sum::<u64>() / 1024)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc() {
        let text = "Slab:             127316 kB\nSReclaimable:      95240 kB\nmap_id:\t12\nmemlock:\t8192\n";
        assert_eq!(field(text, "Slab:"), Some(127_316));
        assert_eq!(field(text, "map_id:"), Some(12));
        assert_eq!(field(text, "memlock:"), Some(8192));
        assert_eq!(field(text, "SUnreclaim:"), None);
    }
}
