//! A socket load-balancer of the tests' own: `picop-ebpf/src/bin/translate.rs`.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap};
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::{Ebpf, include_bytes_aligned};

static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/translate.o"));

/// A program that translates addresses at `connect(2)`. It is detached when this is dropped.
pub struct Translator(Ebpf);

impl Translator {
    /// Attaches it to a cgroup, behind those that are there and ahead of those that come. (A link always lets others attach; the
    /// kernel takes no flag for it.)
    pub fn attach(cgroup: &Path) -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("loading the translator")?;
        let program: &mut CgroupSockAddr =
            ebpf.program_mut("translate4").context("translate4")?.try_into().context("its type")?;
        program.load().context("loading translate4")?;
        let cgroup = File::open(cgroup).with_context(|| format!("opening {}", cgroup.display()))?;
        program.attach(cgroup, CgroupAttachMode::Single).context("attaching translate4")?;
        Ok(Self(ebpf))
    }

    /// Has connections to an address go to a backend.
    pub fn translate(&mut self, from: SocketAddr, to: SocketAddr) -> Result<()> {
        let mut backends: HashMap<_, [u32; 2], [u32; 2]> =
            self.0.map_mut("BACKENDS").context("BACKENDS")?.try_into().context("its type")?;
        backends.insert(words(from)?, words(to)?, 0).context("telling the translator")
    }

    /// How many connects it has translated.
    pub fn translated(&self) -> Result<u64> {
        let count: Array<_, u64> =
            self.0.map("TRANSLATED").context("TRANSLATED")?.try_into().context("its type")?;
        count.get(&0, 0).context("asking the translator")
    }
}

/// Address and port in network byte order, in a word each, as the hook sees them.
fn words(at: SocketAddr) -> Result<[u32; 2]> {
    let SocketAddr::V4(at) = at else { bail!("{at} is no IPv4 address") };
    Ok([u32::from_ne_bytes(at.ip().octets()), u32::from(at.port().to_be())])
}
