//! The programs and maps, attached: anew, or as the last agent left them.

use anyhow::Result;
use aya::{
    maps::{MapData, RingBuf},
    programs::links::FdLink,
};

use crate::intercept::{
    cgroup::Cgroup,
    logs::LogLevel,
    maps::Maps,
    object::{self, Loaded},
    pins::Pins,
    programs::{self, Attached},
};

/// The programs and maps, attached.
pub struct Kernel {
    pub maps: Maps,
    pub told: RingBuf<MapData>,
    pub attached: Attached,
    pub pins: Option<Pins>,
    /// The hook on the agent's own sockets.
    pub own: FdLink,
}

impl Kernel {
    /// Adopts what an agent of the same build left pinned, or loads and attaches (and pins) anew.
    pub fn take_over_or_make(pins: Option<Pins>, root: &Cgroup, own: &Cgroup, log: LogLevel) -> Result<Self> {
        match pins {
            Some(mut pins) if pins.are_whole() => {
                let (maps, told, attached) =
                    (Maps::take(&mut pins)?, Maps::take_told(&mut pins)?, pins.adopt()?);
                tracing::info!(cgroup = %root.dir.display(), "adopted the last agent's programs");
                let own = programs::attach_to_own(&mut pins.agent_ops()?, own)?;
                Ok(Self { maps, told, attached, pins: Some(pins), own })
            }
            pins => Self::make(root, own, pins, log),
        }
    }

    fn make(root: &Cgroup, own: &Cgroup, pins: Option<Pins>, log: LogLevel) -> Result<Self> {
        let Loaded { mut ebpf, fast_open } = object::load(log)?;
        if let Err(why) = fast_open {
            tracing::warn!(
                why,
                "this kernel does not show which connections use TCP Fast Open; those to services with \
                 `header: propagate` may lack their header (event header_missed)"
            );
        }
        programs::load(&mut ebpf)?;
        let attached = programs::attach(&mut ebpf, root)?;
        tracing::info!(cgroup = %root.dir.display(), "programs attached");
        let attached = match &pins {
            Some(pins) => pins.pin(&mut ebpf, attached)?,
            None => attached,
        };
        let own = programs::attach_to_own(programs::agent_ops(&mut ebpf)?, own)?;
        let (maps, told) = (Maps::take(&mut ebpf)?, Maps::take_told(&mut ebpf)?);
        // No workload is known to the hooks yet, so nothing is routed without a table.
        Ok(Self { maps, told, attached, pins, own })
    }
}
