//! Does the object's content depend on where it is built?

use super::compile;
use crate::toolchain::Toolchain;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Not sources, and large.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// Builds a copy of the workspace elsewhere, from nothing, and compares.
pub fn check(toolchain: &Toolchain) -> Result<()> {
    let elsewhere = Scratch::new()?;
    let copy = elsewhere.0.join("a/checkout/elsewhere");
    copy_tree(&workspace::root(), &copy)
        .with_context(|| format!("cannot copy the workspace to {}", copy.display()))?;
    let other = compile(toolchain, &copy, &elsewhere.0.join("out"))?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (here, there) = (read(&workspace::ebpf_object())?, read(&other)?);
    if here != there {
        let kept = workspace::target().join("ebpf/picop-elsewhere.o");
        fs::write(&kept, &there).with_context(|| format!("cannot write {}", kept.display()))?;
        let at = here.iter().zip(&there).position(|(a, b)| a != b).unwrap_or(here.len().min(there.len()));
        bail!(
            "not reproducible: {} bytes here, {} bytes built in another directory ({}), first difference at byte {at}",
            here.len(),
            there.len(),
            kept.display()
        );
    }
    println!("reproducible: {} bytes, the same from two directories", here.len());
    Ok(())
}

/// A directory that goes when this does.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("picop-reproducible-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let (source, destination) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &destination)?;
        } else if kind.is_file() {
            fs::copy(&source, &destination)?;
        }
    }
    Ok(())
}
