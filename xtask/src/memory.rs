//! What memory processes, the agent's maps and the kernel take.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
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

/// Of some processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Resident.
    pub rss: u64,
    /// The same, with a share only of what other processes have as well.
    pub pss: u64,
}

impl Sizes {
    /// Reads them.
    pub fn of(processes: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for process in processes {
            let path = format!("/proc/{process}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            let of = |name| field(&text, name).with_context(|| format!("{path} has no {name}"));
            sum.rss += of("Rss:")? * 1024;
            sum.pss += of("Pss:")? * 1024;
        }
        Ok(sum)
    }
}

/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
const ARRAY_OF_MAPS: u64 = 12;

/// The first map in an array of maps, and its size. `None` if there is none.
fn inner(outer: u32) -> Result<Option<(u64, u64)>> {
    let outer = Map::from_map_data(MapData::from_id(outer)?)?;
    let outer: ArrayOfMaps<MapData, MapData> = outer.try_into()?;
    let inner = match outer.get(&0, 0) {
        Ok(inner) => inner,
        Err(MapError::KeyNotFound) => return Ok(None),
        Err(error) => return Err(error).context("looking for the map in a map"),
    };
    let path = format!("/proc/self/fdinfo/{}", inner.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok(field(&text, "map_id:").zip(field(&text, "memlock:")))
}

/// What the maps take that the agent has open, each once, and those in them.
fn maps(agent: &Agent) -> Result<u64> {
    let dir = format!("/proc/{}/fdinfo", agent.pid());
    let mut seen = std::collections::BTreeMap::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {dir}"))? {
        // One that is closed meanwhile is no map.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if let (Some(id), Some(bytes)) = (field(&text, "map_id:"), field(&text, "memlock:")) {
            seen.insert(id, bytes);
            if field(&text, "map_type:") == Some(ARRAY_OF_MAPS) {
                // Nobody has the inner map open: it is the outer one's.
                seen.extend(inner(u32::try_from(id)?)?);
            }
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
        let rollup =
            "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  1024 kB\nPss:  512 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(field(rollup, "Rss:"), Some(1024));
        assert_eq!(field(rollup, "Pss:"), Some(512));
        let text = "Slab:             127316 kB\nSReclaimable:      95240 kB\nmap_id:\t12\nmemlock:\t8192\n";
        assert_eq!(field(text, "Slab:"), Some(127_316));
        assert_eq!(field(text, "map_id:"), Some(12));
        assert_eq!(field(text, "memlock:"), Some(8192));
        assert_eq!(field(text, "SUnreclaim:"), None);
    }
}
