//! Where things are in the checkout.

use std::path::{Path, PathBuf};

/// The workspace's root: cargo names it when it runs xtask; a directly started xtask knows where it was built.
pub fn root() -> PathBuf {
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// What xtask makes and keeps goes here whatever `CARGO_TARGET_DIR` says: the agent's build script looks for the
/// eBPF object at a place that does not depend on who builds the agent.
pub fn target() -> PathBuf {
    root().join("target")
}

/// The eBPF object that the agent embeds.
pub fn ebpf_object() -> PathBuf {
    target().join("ebpf/picop.o")
}

/// The programs that the tests of the graft must see fail, and embed.
pub fn naive_object() -> PathBuf {
    target().join("ebpf/naive.o")
}

/// What the tests attach beside the agent's programs, and embed.
pub fn translate_object() -> PathBuf {
    target().join("ebpf/translate.o")
}

/// The least that a program can do with a sockhash, for a benchmark.
pub fn floor_object() -> PathBuf {
    target().join("ebpf/floor.o")
}

/// Tools built for this checkout alone.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// Cargo's home, where `cargo install` puts programs and where dependencies' sources are.
pub fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        // The directory is in the password database even where HOME is not set; with neither, one of this checkout.
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .unwrap_or_else(|| target().join("cargo-home"))
}

/// The cargo that runs xtask.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The first executable of that name on `PATH`, or where administrators' tools are: an ordinary user's `PATH`
/// on Debian leaves out the sbin directories.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

/// Whether the path is a file that someone may execute.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
