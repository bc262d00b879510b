//! Does this bpf-linker link what this compiler writes? Tried once, remembered while neither changes.

use super::{Compiler, TARGET, Toolchain};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const MANIFEST: &str = r#"[package]
name = "probe"
edition = "2024"

[profile.release]
debug = 2
lto = true
panic = "abort"

[workspace]
"#;

const SOURCE: &str = r#"#![no_std]
#![no_main]

#[unsafe(link_section = "cgroup/connect4")]
#[unsafe(no_mangle)]
pub extern "C" fn probe() -> i32 {
    1
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
"#;

/// The first installed bpf-linker that works with the compiler.
pub fn working_linker(compiler: &Compiler) -> Result<Option<PathBuf>> {
    let linkers = installed_linkers();
    if linkers.is_empty() {
        return Ok(None);
    }
    let directory = workspace::target().join("ebpf/probe").join(compiler.route.name());
    let stamp = Stamp { path: directory.join("stamp"), key: key(compiler, &linkers) };
    if let Some(linker) = stamp.read() {
        // Empty: all were tried, none works.
        return Ok((!linker.as_os_str().is_empty()).then_some(linker));
    }
    let working = linkers.into_iter().find(|linker| match try_linker(compiler, linker, &directory) {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("{} does not work with {}: {reason:#}", linker.display(), compiler.describe());
            false
        }
    });
    stamp.write(working.as_deref())?;
    Ok(working)
}

fn installed_linkers() -> Vec<PathBuf> {
    let mut linkers: Vec<PathBuf> = Vec::new();
    let own = [workspace::tools().join("bin"), workspace::cargo_home().join("bin")]
        .map(|directory| directory.join("bpf-linker"))
        .into_iter()
        .filter(|path| workspace::is_executable(path));
    for linker in own.chain(workspace::program("bpf-linker")) {
        if !linkers.contains(&linker) {
            linkers.push(linker);
        }
    }
    linkers
}

fn try_linker(compiler: &Compiler, linker: &Path, directory: &Path) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    fs::create_dir_all(directory.join("src"))
        .with_context(|| format!("cannot make {}", directory.display()))?;
    write("Cargo.toml", MANIFEST)?;
    write("src/main.rs", SOURCE)?;
    let toolchain = Toolchain { compiler: compiler.clone(), linker: linker.to_path_buf() };
    let target_dir = directory.join("target");
    let object = target_dir.join(TARGET).join("release/probe");
    if object.exists() {
        fs::remove_file(&object).with_context(|| format!("cannot remove {}", object.display()))?;
    }
    crate::exec::capture(toolchain.cargo("build", directory, &target_dir).args(["--release", "--quiet"]))?;
    let object = fs::read(&object).with_context(|| format!("it wrote no {}", object.display()))?;
    anyhow::ensure!(is_bpf_with_btf(&object), "what it wrote is not a BPF object with BTF");
    Ok(())
}

/// Enough of ELF to know that it is for the BPF machine (247, at byte 18) and names a BTF section.
fn is_bpf_with_btf(object: &[u8]) -> bool {
    object.starts_with(b"\x7fELF")
        && object.get(18..20) == Some(&247u16.to_le_bytes())
        && object.windows(5).any(|window| window == b".BTF\0")
}

/// Everything whose change can change the verdict.
fn key(compiler: &Compiler, linkers: &[PathBuf]) -> String {
    use std::fmt::Write;
    let mut key = format!("{SOURCE}{}\n", compiler.version);
    for linker in linkers {
        // Writing to a String cannot fail.
        let _infallible = match linker.metadata() {
            Ok(meta) => {
                writeln!(key, "{} {} {}.{}", linker.display(), meta.size(), meta.mtime(), meta.mtime_nsec())
            }
            Err(error) => writeln!(key, "{} {error}", linker.display()),
        };
    }
    key
}

struct Stamp {
    path: PathBuf,
    key: String,
}

impl Stamp {
    fn read(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(&self.path).ok()?;
        Some(PathBuf::from(text.strip_prefix(&self.key)?.trim_end()))
    }

    fn write(&self, linker: Option<&Path>) -> Result<()> {
        let linker = linker.map(|linker| linker.display().to_string()).unwrap_or_default();
        fs::write(&self.path, format!("{}{linker}\n", self.key))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}
