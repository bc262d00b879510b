//! The eBPF object, built by `cargo xtask build-ebpf` and embedded by build.rs.

use aya::{Ebpf, EbpfLoader};

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

/// Parses the object and creates its maps. Programs are loaded one by one by those who attach them.
pub fn load() -> Result<Ebpf, LoadError> {
    EbpfLoader::new().load(OBJECT).map_err(|e| LoadError(Box::new(e)))
}
