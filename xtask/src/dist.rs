//! `cargo xtask dist`: what is installed on nodes. One static program, and an image that holds nothing else.

mod elf;
mod image;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{exec, program, workspace};

/// Build picop as one static program, and an OCI image of it, without a container engine.
///
/// It is compiled twice: the second time by what the first one was seen doing, where the compiler can.
///
/// The image is written as a layout that skopeo, podman, containerd, kind and docker load: target/dist/picop-VERSION-ARCH.tar
#[derive(clap::Args)]
pub struct Args {
    /// The image's name, to which its tag is added.
    #[arg(long, default_value = "picop")]
    name: String,

    /// The image's tag. [default: picop's version]
    #[arg(long)]
    tag: Option<String>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    let program = program::build()?;
    let bytes = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    ensure!(
        !elf::asks_for_an_interpreter(&bytes)?,
        "{} is not static: it asks for a dynamic linker, which the image has not",
        program.display()
    );
    let version = version(&program)?;
    let tag = args.tag.as_deref().unwrap_or(&version);
    let dist = workspace::target().join("dist");
    fs::create_dir_all(&dist).with_context(|| format!("creating {}", dist.display()))?;
    let image = image::Image::new(&bytes, &format!("{}:{tag}", args.name))?;
    let path = dist.join(format!("picop-{version}-{}.tar", image::architecture()?));
    fs::write(&path, image.archive()?).with_context(|| format!("writing {}", path.display()))?;
    try_in_itself(&dist, &image)?;
    println!("program  {} ({} MB, static)", program.display(), bytes.len() >> 20);
    println!("image    {} ({}:{tag}, {})", path.display(), args.name, image.digest());
    println!("         skopeo copy oci-archive:{} docker://REGISTRY/{}:{tag}", path.display(), args.name);
    println!("         kind load image-archive {0}; ctr -n k8s.io images import {0}", path.display());
    Ok(())
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output().context("running picop --version")?;
    ensure!(output.status.success(), "picop --version failed: {}", output.status);
    let text = String::from_utf8(output.stdout).context("picop --version is not text")?;
    Ok(text.trim().rsplit(' ').next().unwrap_or_default().to_owned())
}

/// Runs the program with the image's files and no others. Takes root.
fn try_in_itself(dist: &Path, image: &image::Image) -> Result<()> {
    let root = dist.join("rootfs");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", root.display()));
        }
        _ => {}
    }
    image.unpack(&root)?;
    if !rustix::process::geteuid().is_root() {
        exec::announce("not tried with the image's files alone: that takes root");
        return Ok(());
    }
    let output = Command::new("chroot")
        .arg(&root)
        .args([image::PROGRAM, "crds"])
        .output()
        .context("running chroot")?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!("picop does not run with the image's files alone: {}", String::from_utf8_lossy(&output.stderr));
    }
    exec::announce("picop runs with the image's files alone");
    Ok(())
}
