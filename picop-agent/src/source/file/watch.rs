//! Notices that a file may have changed.
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::Notify, time};

/// How often the file is looked at when nothing can tell that it changed.
const POLL: Duration = Duration::from_secs(1);

/// How often it is looked at nevertheless: a directory further up may be swapped, and some file systems tell nothing.
const BACKSTOP: Duration = Duration::from_secs(5);

/// Watches the directories a file is in, not the file: editors and `kubectl` replace files, and a watch on a file would
/// stay with the old one.
#[derive(Debug)]
pub(in crate::source) struct Watch {
    path: PathBuf,
    changed: Arc<Notify>,
    /// Ends when dropped. None: polling.
    watcher: Option<RecommendedWatcher>,
    scope: Scope,
    /// The file when it was last read, as far as the file system tells without reading it.
    mark: Option<Mark>,
}

/// What decides which events are about the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Scope {
    /// The directories, with device and inode: a path may come to mean another directory.
    dirs: BTreeSet<(PathBuf, u64, u64)>,
    /// Names in them: the file's own, and those on the way when it is a symlink (`..data`, in a ConfigMap).
    names: BTreeSet<OsString>,
}

/// Device, inode, size, modification and change time: another mark means another content, most likely.
type Mark = (u64, u64, u64, (i64, i64), (i64, i64));

fn mark(path: &Path) -> Option<Mark> {
    let it = fs::metadata(path).ok()?;
    Some((it.dev(), it.ino(), it.size(), (it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec())))
}

impl Scope {
    fn of(path: &Path) -> Self {
        let mut scope = Self::default();
        scope.add(path);
        if let Ok(target) = fs::read_link(path) {
            scope.names.extend(target.components().filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_owned()),
                _ => None,
            }));
        }
        if let Ok(real) = fs::canonicalize(path) {
            scope.add(&real);
        }
        scope
    }

    fn add(&mut self, path: &Path) {
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if let Ok(dir) = fs::metadata(parent) {
            self.dirs.insert((parent.to_owned(), dir.dev(), dir.ino()));
        }
        self.names.extend(path.file_name().map(OsString::from));
    }

    /// Whether `event` may be about the file.
    fn concerns(&self, event: &Event) -> bool {
        match event.kind {
            // Reading the file is an event too: ours would wake us for ever.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return false,
            _ => {}
        }
        event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| {
                path.file_name().is_some_and(|name| self.names.contains(name))
                    || self.dirs.iter().any(|(dir, ..)| dir == path)
            })
    }
}

impl Watch {
    /// Watches nothing yet: call [`Self::refresh`].
    pub(in crate::source) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            changed: Arc::default(),
            watcher: None,
            scope: Scope::default(),
            mark: None,
        }
    }

    /// Remembers the state that is about to be read. To be called before each reading of the file: what happens later is
    /// a change.
    pub(in crate::source) fn note(&mut self) {
        self.mark = mark(&self.path);
    }

    /// Follows the file to where it is. True when that is another place than before: what happened there meanwhile was not
    /// seen. To be called after each reading of the file.
    pub(in crate::source) fn refresh(&mut self) -> bool {
        let scope = Scope::of(&self.path);
        if scope == self.scope {
            return false;
        }
        match self.watch(scope.clone()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                self.watcher = None;
                tracing::warn!(
                    path = %self.path.display(), %error, every = ?POLL,
                    "cannot watch the route file for changes, so it is polled; if this says too many files or watches, raise \
                     fs.inotify.max_user_instances and fs.inotify.max_user_watches"
                );
            }
        }
        self.scope = scope;
        true
    }

    fn watch(&self, scope: Scope) -> notify::Result<RecommendedWatcher> {
        if scope.dirs.is_empty() {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        let dirs = scope.dirs.clone();
        let changed = Arc::clone(&self.changed);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error means that events may have been lost.
            if event.map_or(true, |event| scope.concerns(&event)) {
                changed.notify_one();
            }
        })?;
        for (dir, ..) in &dirs {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }

    /// Waits until the file may have changed and was then left alone for `quiet`, but no longer than `at_most`.
    pub(in crate::source) async fn changed(&self, quiet: Duration, at_most: Duration) {
        let every = if self.watcher.is_some() { BACKSTOP } else { POLL };
        loop {
            match time::timeout(every, self.changed.notified()).await {
                Ok(()) => break,
                Err(_) if mark(&self.path) != self.mark || Scope::of(&self.path) != self.scope => break,
                Err(_) => {}
            }
        }
        let until_quiet = async { while time::timeout(quiet, self.changed.notified()).await.is_ok() {} };
        // Never quiet: then it is read as it is.
        let _never_quiet = time::timeout(at_most, until_quiet).await;
    }
}

#[cfg(test)]
mod tests;
