//! What the kernel programs count.

use std::fs;

use anyhow::{Context as _, ensure};
use aya::maps::{Map, MapData, MapInfo, PerCpuArray};
use picop_common::connect::Reason;
use testbed::Agent;

use crate::Result;

/// How often a connection was decided for `reason` since the agent was started, by its pinless programs.
pub fn decided(agent: &Agent, reason: Reason) -> Result<u64> {
    let counters: PerCpuArray<MapData, u64> =
        Map::from_map_data(MapData::from_id(map_id(agent, "COUNTERS")?)?)?.try_into()?;
    Ok(counters.get(&(reason as u32), 0)?.iter().sum())
}

/// The id of the map of this name that the agent holds open.
fn map_id(agent: &Agent, name: &str) -> Result<u32> {
    let dir = format!("/proc/{}/fdinfo", agent.pid());
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {dir}"))? {
        // One that is closed meanwhile is no map.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
        if let Some(id) = id
            && MapInfo::from_id(id)?.name_as_str() == Some(name)
        {
            found.push(id);
        }
    }
    found.dedup();
    ensure!(found.len() == 1, "the agent holds {} maps of the name {name}", found.len());
    Ok(found[0])
}
