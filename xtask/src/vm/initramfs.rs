//! The whole file system of the emulated machine: a shell, the programs under test, their libraries.

use super::cpio::Archive;
use super::kernel::Kernel;
use super::qemu::{BOOTED, VERDICT};
use super::{Payload, modules};
use crate::{exec, workspace};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the tests' little cluster is made of: pods are joined by veth pairs and a bridge.
const MODULES: [&str; 2] = ["veth", "bridge"];

/// Programs of the host that the testbed starts.
const PROGRAMS: [&str; 1] = ["ip"];

/// The archive to boot `kernel` with.
pub fn build(kernel: &Kernel, busybox: &Path, payload: &Payload<'_>) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.character_device("/dev/console", 5, 1);
    for directory in
        ["/proc", "/sys", "/tmp", "/run", "/etc", "/bin", "/sbin", "/root", "/var", "/modules", "/test"]
    {
        archive.directory(directory);
    }
    archive.symlink("/var/run", "/run");
    archive.file("/bin/busybox", &read(busybox)?);
    archive.symlink("/bin/sh", "busybox");
    archive.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n");

    add_program(&mut archive, "/usr/bin/picop", &payload.programs.picop)?;
    add_program(&mut archive, "/usr/bin/hop", &payload.programs.hop)?;
    add_program(&mut archive, "/test/run", &payload.test.path)?;
    for name in PROGRAMS {
        let path = workspace::program(name).with_context(|| format!("the tests need the program {name}"))?;
        add_program(&mut archive, &format!("/usr/sbin/{name}"), &path)?;
    }
    let modules = modules::load_order(&kernel.modules, &MODULES)?;
    for module in &modules {
        archive.file(&format!("/modules/{}.ko", module.name), &module.content);
    }
    let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    archive.file("/init", init(&names, payload.arguments).as_bytes());
    Ok(archive.finish())
}

/// The first process: prepares what a distribution's would have, runs the tests, says how they ended.
fn init(modules: &[&str], arguments: &[String]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    format!(
        r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in {modules}; do
    insmod /modules/$module.ko || echo "cannot load module $module"
done
ip link set lo up
export PICOP_BIN=/usr/bin/picop PICOP_HOP_BIN=/usr/bin/hop PICOP_REQUIRE_PRIVILEGE=1 PICOP_EMULATED=1
cd /test
# The firmware's last words end without a newline.
echo
echo "{BOOTED} $(uname -r)"
./run --test-threads=2 {arguments}
echo "{VERDICT} $?"
poweroff -f
"#,
        modules = modules.join(" "),
        arguments = arguments.join(" "),
    )
}

fn quoted(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// Adds a program and the libraries it is linked with, where its loader looks for them.
fn add_program(archive: &mut Archive, at: &str, program: &Path) -> Result<()> {
    archive.file(at, &read(program)?);
    // A statically linked program is no failure of ldd's that matters.
    let Ok(listing) = exec::capture(Command::new("ldd").arg(program)) else { return Ok(()) };
    for library in libraries(&listing) {
        archive.file(&library.to_string_lossy(), &read(&library)?);
    }
    Ok(())
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x..)` and `/lib64/ld-linux-x86-64.so.2 (0x..)`.
fn libraries(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| {
            line.rsplit_once(" => ").map_or(line, |(_, found)| found).split_whitespace().next()
        })
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{init, libraries};
    use std::path::PathBuf;

    #[test]
    fn libraries_are_where_ldd_found_them() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tlibgone.so => not found\n";
        assert_eq!(
            libraries(listing),
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn filters_reach_the_test_program_as_they_are() {
        let script = init(&["llc", "stp"], &["it's $HOME".to_owned()]);
        assert!(script.contains("for module in llc stp;"), "{script}");
        assert!(script.contains(r"./run --test-threads=2 'it'\''s $HOME'"), "{script}");
    }
}
