//! Marks the shared structs as plain old data for aya's typed maps. Here and not in the agent, as both the trait and the
//! types would be foreign there.
use aya::Pod;

use crate::{addr, fastopen, graft, maps, route};

// SAFETY: repr(C) without implicit padding (sizes asserted beside the definitions), every bit pattern valid.
unsafe impl Pod for addr::Endpoint {}
// SAFETY: as above.
unsafe impl Pod for maps::AgentConf {}
// SAFETY: as above.
unsafe impl Pod for maps::Workload {}
// SAFETY: as above.
unsafe impl Pod for maps::HeaderBytes {}
// SAFETY: as above.
unsafe impl Pod for maps::Told {}
// SAFETY: as above.
unsafe impl Pod for maps::UsageKey {}
// SAFETY: as above.
unsafe impl Pod for maps::Usage {}
// SAFETY: as above.
unsafe impl Pod for route::RouteKey {}
// SAFETY: as above.
unsafe impl Pod for route::Route {}
// SAFETY: as above.
unsafe impl Pod for maps::Flow {}
// SAFETY: as above.
unsafe impl Pod for maps::OriginalKey {}
// SAFETY: as above.
unsafe impl Pod for maps::Original {}
// SAFETY: as above.
unsafe impl Pod for fastopen::FastOpenLayout {}
// SAFETY: as above.
unsafe impl Pod for graft::Target {}
