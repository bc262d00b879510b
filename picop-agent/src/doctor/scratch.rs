//! A cgroup of the doctor's own, so that no process but its own ever meets the programs it tries.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Name, before the doctor's process id.
const PREFIX: &str = "picop-doctor-";
/// How long a process that was killed may take to leave the cgroup.
const PATIENCE: Duration = Duration::from_secs(2);

/// The cgroup; removed, with those below it, when dropped.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    /// Makes it below another one, after removing what killed doctors left there.
    pub fn new(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let dir = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.dir, PATIENCE) {
            eprintln!("picop: cannot remove cgroup {}: {error}", self.dir.display());
        }
    }
}

/// Directories whose doctor is gone. One with this process's own id is of an earlier doctor in a container.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|p| p.parse::<u32>().ok());
        let gone = |pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists();
        if pid.is_some_and(gone)
            && let Err(error) = remove(&entry.path(), Duration::ZERO)
        {
            eprintln!("picop: an earlier doctor's cgroup {} stays: {error}", entry.path().display());
        }
    }
}

/// Removes a cgroup and those below it. Its files are the kernel's and go with it.
fn remove(dir: &Path, patience: Duration) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path(), patience)?;
        }
    }
    let deadline = Instant::now() + patience;
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}
