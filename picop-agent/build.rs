//! Puts the eBPF object where the agent's sources embed it from.

#[path = "../xtask/src/build_ebpf/inputs.rs"]
mod inputs;

use std::path::{Path, PathBuf};

/// Names another object, for packagers who build it on their own.
const OBJECT: &str = "PICOP_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rerun-if-changed=build.rs");
    // Without the feature, nothing embeds the object.
    if std::env::var_os("CARGO_FEATURE_EBPF").is_none() {
        return;
    }
    if let Err(sentence) = provide_object() {
        // Fails the build; a failing exit status would print everything above, too.
        println!("cargo::error={sentence}");
    }
}

fn provide_object() -> Result<(), String> {
    let directory =
        |name: &str| std::env::var_os(name).map(PathBuf::from).ok_or(format!("cargo sets no {name}"));
    let (manifest_dir, out_dir) = (directory("CARGO_MANIFEST_DIR")?, directory("OUT_DIR")?);
    let object = match std::env::var_os(OBJECT) {
        Some(given) => PathBuf::from(given),
        None => built_by_xtask(manifest_dir.parent().unwrap_or(&manifest_dir))?,
    };
    println!("cargo::rerun-if-changed={}", object.display());
    std::fs::copy(&object, out_dir.join("picop.o")).map(drop).map_err(|error| {
        format!(
            "cannot read the eBPF object {}: {error}; `cargo xtask build-ebpf` builds one",
            object.display()
        )
    })
}

/// The object in the workspace, if it is of the sources as they are.
fn built_by_xtask(root: &Path) -> Result<PathBuf, String> {
    for source in inputs::SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let object = root.join("target/ebpf/picop.o");
    let record = inputs::record_of(&object);
    println!("cargo::rerun-if-changed={}", record.display());
    if !object.is_file() {
        return Err(format!(
            "the eBPF object {} is missing: run `cargo xtask build-ebpf` first (or build the agent's library \
             with --no-default-features)",
            object.display()
        ));
    }
    let sources = inputs::hash(root).map_err(|error| format!("cannot read the eBPF sources: {error}"))?;
    if inputs::recorded(&object) != Some(sources) {
        return Err(
            "the eBPF sources have changed since the object was built: run `cargo xtask build-ebpf`".into()
        );
    }
    Ok(object)
}
