//! Debian's kernels.

use super::packages;
use crate::setup;
use crate::{exec, workspace};
use anyhow::{Context, Result};
use std::cmp::Ordering;
use std::path::PathBuf;
use std::process::Command;

/// A kernel, unpacked.
pub struct Kernel {
    /// As `uname -r` says.
    pub version: String,
    pub image: PathBuf,
    /// Where its modules are.
    pub modules: PathBuf,
}

/// The newest kernel of a series (`6.1`) that the package lists offer; without lists, the one unpacked earlier.
pub fn newest(series: &str) -> Result<Kernel> {
    let version = offered(series)?.or_else(|| unpacked_earlier(series)).map_or_else(
        || {
            setup::refresh_package_lists()?;
            offered(series)?.with_context(|| {
                format!("the package lists offer no kernel {series} (linux-image-{series}.*-cloud-amd64)")
            })
        },
        Ok,
    )?;
    let package = format!("linux-image-{version}");
    let directory = packages::unpacked(&format!("linux-{version}"), &[&package])?;
    Ok(Kernel {
        image: directory.join("boot").join(format!("vmlinuz-{version}")),
        modules: directory.join("lib/modules").join(&version),
        version,
    })
}

fn offered(series: &str) -> Result<Option<String>> {
    let pattern = format!("^linux-image-{}\\.[0-9].*-cloud-amd64$", series.replace('.', "\\."));
    let found = exec::capture(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    Ok(newest_of(
        found.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("linux-image-")),
    ))
}

fn unpacked_earlier(series: &str) -> Option<String> {
    let entries = std::fs::read_dir(workspace::target().join("vm")).ok()?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let prefix = format!("linux-{series}.");
    newest_of(
        names.iter().filter(|name| name.starts_with(&prefix)).filter_map(|name| name.strip_prefix("linux-")),
    )
}

fn newest_of<'a>(versions: impl Iterator<Item = &'a str>) -> Option<String> {
    versions.max_by(|a, b| compare(a, b)).map(str::to_owned)
}

/// Compares by the numbers in them: 6.1.0-9 is older than 6.1.0-56.
fn compare(a: &str, b: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u64> {
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::newest_of;

    #[test]
    fn newest_is_by_number_not_by_letter() {
        let versions = ["6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.1.0-47-cloud-amd64"];
        assert_eq!(newest_of(versions.into_iter()).as_deref(), Some("6.1.0-56-cloud-amd64"));
        let versions = ["6.12.117+deb12-cloud-amd64", "6.12.99+deb12-cloud-amd64"];
        assert_eq!(newest_of(versions.into_iter()).as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest_of(std::iter::empty()), None);
    }
}
