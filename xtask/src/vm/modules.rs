//! Kernel modules, in the order in which they load.
//!
//! `modules.dep` is made when a kernel package is installed, and ours is only unpacked: each module also says
//! itself what it depends on.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module, decompressed.
pub struct Module {
    pub name: String,
    pub content: Vec<u8>,
}

/// The named modules and what they depend on, dependencies first. What the kernel has built in is left out.
pub fn load_order(directory: &Path, names: &[&str]) -> Result<Vec<Module>> {
    let mut available = BTreeMap::new();
    index(directory, &mut available).with_context(|| format!("cannot read {}", directory.display()))?;
    let builtin = fs::read_to_string(directory.join("modules.builtin"))
        .with_context(|| format!("cannot read modules.builtin in {}", directory.display()))?;
    let builtin: Vec<String> = builtin.lines().filter_map(|line| module_name(Path::new(line))).collect();
    let mut order = Vec::new();
    for name in names {
        visit(name, &available, &builtin, &mut order)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    available: &BTreeMap<String, PathBuf>,
    builtin: &[String],
    order: &mut Vec<Module>,
) -> Result<()> {
    let name = name.replace('-', "_");
    if builtin.contains(&name) || order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = available.get(&name).with_context(|| format!("the kernel has no module {name}"))?;
    let content = read(path)?;
    for dependency in dependencies(&content) {
        visit(&dependency, available, builtin, order)?;
    }
    order.push(Module { name, content });
    Ok(())
}

fn index(directory: &Path, modules: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            index(&entry.path(), modules)?;
        } else if let Some(name) = module_name(&entry.path()) {
            modules.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `kernel/net/802/stp.ko.xz` is `stp`.
fn module_name(path: &Path) -> Option<String> {
    let (name, suffix) = path.file_name()?.to_str()?.split_once('.')?;
    matches!(suffix, "ko" | "ko.xz").then(|| name.replace('-', "_"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|suffix| suffix == "xz") {
        let output = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(path)
            .output()
            .context("cannot start xz")?;
        anyhow::ensure!(output.status.success(), "xz cannot read {}", path.display());
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// From the module's `.modinfo`: strings of the form `key=value`, each ended by a zero byte.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"depends=";
    module
        .split(|byte| *byte == 0)
        .filter_map(|string| string.strip_prefix(KEY))
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{dependencies, load_order, module_name};
    use std::fs;
    use std::path::Path;

    #[test]
    fn names_are_files_without_their_suffixes() {
        assert_eq!(module_name(Path::new("kernel/net/802/stp.ko.xz")).as_deref(), Some("stp"));
        assert_eq!(module_name(Path::new("nf-nat.ko")).as_deref(), Some("nf_nat"));
        assert_eq!(module_name(Path::new("modules.builtin")), None);
    }

    #[test]
    fn dependencies_come_from_the_modules_own_words() {
        assert_eq!(dependencies(b"\x7fELF\0license=GPL\0depends=llc,stp\0name=bridge\0"), ["llc", "stp"]);
        assert!(dependencies(b"license=GPL\0depends=\0").is_empty());
    }

    #[test]
    fn dependencies_load_first_and_once_and_builtin_ones_not_at_all() {
        let directory = std::env::temp_dir().join(format!("picop-modules-{}", std::process::id()));
        fs::create_dir_all(directory.join("kernel")).expect("a directory");
        let module = |name: &str, depends: &str| {
            let content = format!("ELF\0depends={depends}\0name={name}\0");
            fs::write(directory.join("kernel").join(format!("{name}.ko")), content).expect("a module");
        };
        module("llc", "");
        module("stp", "llc");
        module("bridge", "stp,llc,ipv6");
        fs::write(directory.join("modules.builtin"), "kernel/net/ipv6/ipv6.ko\n").expect("the list");
        let order = load_order(&directory, &["bridge", "stp"]);
        let unknown = load_order(&directory, &["nonesuch"]);
        fs::remove_dir_all(&directory).expect("removed");
        let names: Vec<String> = order.expect("an order").into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["llc", "stp", "bridge"]);
        assert!(unknown.is_err());
    }
}
