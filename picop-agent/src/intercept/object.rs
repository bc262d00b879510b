//! The eBPF object, built by `cargo xtask build-ebpf` and embedded by build.rs.

use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSockAddr, ProgramError},
};
use picop_common::fastopen::FastOpenLayout;

use super::{btf, logs::LogLevel};
use crate::telemetry::chain;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/picop.o"));

/// The kernel refused the object, its maps or its BTF.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot load the eBPF object; picop needs Linux 6.1 or later with BTF, CAP_BPF and CAP_NET_ADMIN (`picop doctor` \
     says what is missing)"
)]
pub struct LoadError(#[source] Box<aya::EbpfError>);

/// Identifies the object: agents of one hash share map layouts and programs.
pub fn hash() -> u64 {
    picop_common::route::fnv1a(OBJECT)
}

/// The object in the kernel.
#[derive(Debug)]
pub struct Loaded {
    /// Its maps, and its programs, which are loaded one by one by those who attach them.
    pub ebpf: Ebpf,
    /// Whether the programs see which connections use TCP Fast Open, or why not.
    pub fast_open: Result<(), String>,
}

/// Parses the object and creates its maps.
pub fn load(log: LogLevel) -> Result<Loaded, LoadError> {
    let why = match btf::fast_open() {
        Ok(layout) => {
            let mut ebpf = load_with(&layout, log)?;
            match fast_open_is_seen(&mut ebpf) {
                Ok(()) => return Ok(Loaded { ebpf, fast_open: Ok(()) }),
                Err(error) => chain(&error),
            }
        }
        Err(error) => chain(&error),
    };
    Ok(Loaded { ebpf: load_with(&FastOpenLayout::UNKNOWN, log)?, fast_open: Err(why) })
}

fn load_with(layout: &FastOpenLayout, log: LogLevel) -> Result<Ebpf, LoadError> {
    // Where these places are not known, nothing is redirected; `graft_probe` says so.
    let graft = btf::graft().unwrap_or_default();
    EbpfLoader::new()
        .override_global("FAST_OPEN", layout, true)
        .override_global(aya_log::LEVEL, &(log as u8), true)
        .override_global("WRITE_SEQ_AT", &graft.write_seq, true)
        .override_global("ULP_OPS_AT", &graft.ulp_ops, true)
        .load(OBJECT)
        .map_err(|e| LoadError(Box::new(e)))
}

/// Whether the kernel takes programs that look at a socket where this layout says.
fn fast_open_is_seen(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let Some(program) = ebpf.program_mut("probe_fast_open") else {
        return Err(ProgramError::NotLoaded);
    };
    let program: &mut CgroupSockAddr = program.try_into()?;
    program.load()?;
    program.unload()
}
