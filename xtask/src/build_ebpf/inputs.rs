//! Which sources an eBPF object was built from, as one number.
//!
//! Shared, as a file, with the agent's build script, which cannot depend on xtask: so nothing but `std` here.

use std::io;
use std::path::{Path, PathBuf};

/// What the object is made of, seen from the workspace's root.
pub const SOURCES: [&str; 4] =
    ["picop-ebpf/src", "picop-ebpf/Cargo.toml", "picop-common/src", "picop-common/Cargo.toml"];

/// The hash of the eBPF sources under the workspace's root: their names and what is in them.
///
/// # Errors
/// When one of them cannot be read.
pub fn hash(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Fnv::default();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        let content = std::fs::read(&file)?;
        // With the lengths, no two lists of files run together into the same bytes.
        hash.sized(name.as_os_str().as_encoded_bytes());
        hash.sized(&content);
    }
    Ok(format!("{:016x}", hash.0))
}

/// The file beside an object that says what it was built from.
pub fn record_of(object: &Path) -> PathBuf {
    object.with_extension("o.inputs")
}

/// The hash of the sources that the object was built from, if it is known.
pub fn recorded(object: &Path) -> Option<String> {
    std::fs::read_to_string(record_of(object)).ok().map(|text| text.trim_end().to_owned())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

/// FNV-1a, 64 bits: the two sides may be compiled by different compilers, and `std`'s hasher promises no stability.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn sized(&mut self, bytes: &[u8]) {
        self.feed(&(bytes.len() as u64).to_le_bytes());
        self.feed(bytes);
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
