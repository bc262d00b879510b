//! The programs of picop-ebpf/src/bin/floor.rs: the price of a sockhash, whoever uses it.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{Array, SockHash};
use aya::programs::{CgroupAttachMode, SkMsg, SockOps};

use crate::workspace;

/// They are attached as long as this lives.
pub struct Floor(Ebpf);

impl Floor {
    /// Attaches them to a cgroup.
    pub fn attach(cgroup: &Path) -> Result<Self> {
        let object = workspace::floor_object();
        let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
        let mut ebpf = Ebpf::load(&bytes).context("loading the programs of `sockhash-floor`")?;
        let socks: SockHash<_, u64> = ebpf.map("SOCKS").context("SOCKS")?.try_into()?;
        let socks = socks.fd().try_clone()?;
        let msg: &mut SkMsg = ebpf.program_mut("pass").context("pass")?.try_into()?;
        msg.load()?;
        msg.attach(&socks)?;
        let ops: &mut SockOps = ebpf.program_mut("enrol").context("enrol")?.try_into()?;
        ops.load()?;
        let cgroup =
            File::open(cgroup).with_context(|| format!("cannot open cgroup {}", cgroup.display()))?;
        ops.attach(cgroup, CgroupAttachMode::Single)?;
        Ok(Self(ebpf))
    }

    /// Messages that passed a sockhash.
    pub fn seen(&self) -> Result<u64> {
        let seen: Array<_, u64> = self.0.map("SEEN").context("SEEN")?.try_into()?;
        Ok(seen.get(&0, 0)?)
    }
}
