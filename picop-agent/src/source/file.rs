//! Routes from a YAML file.
//!
//! [`FileSource::open`] reads the file once, so that an agent does not start on a bad one; [`FileSource::run`] reads it again
//! whenever it changes. An update is taken whole or not at all: while the file is bad or gone, the routes in effect stay.
mod address;
mod check;
mod format;
mod problem;
pub(super) mod watch;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

pub use address::{is_host, parse as parse_address};
pub use format::schema;
pub use problem::{AddressError, Fault, FileError, Problem};

use self::watch::Watch;
use crate::{
    route::{InEffect, NotInstalled, RouteHandle, RouteTable},
    telemetry::chain,
};

/// Largest route file in bytes. 10,000 services and 100,000 variants take about a tenth of it.
const MAX_BYTES: u64 = 64 << 20;

/// How long a file must be quiet before it is read: whoever writes in place needs a few writes.
pub(super) const QUIET: Duration = Duration::from_millis(50);

/// How long reading is put off for a file that is never quiet.
pub(super) const UNQUIET: Duration = Duration::from_millis(500);

/// What a route file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Services.
    pub services: usize,
    /// Addresses of services.
    pub addresses: usize,
    /// Variants, of all services together.
    pub variants: usize,
    /// Environments that have a variant or a workload.
    pub environments: usize,
    /// Entries for workloads.
    pub workloads: usize,
}

impl From<&RouteTable> for Summary {
    fn from(table: &RouteTable) -> Self {
        let sum =
            |count: fn(&crate::route::Service) -> usize| table.services().iter().map(|s| count(s)).sum();
        Self {
            services: table.services().len(),
            addresses: sum(|service| service.addresses.len()),
            variants: sum(|service| service.variants.len()),
            environments: table.environments().len(),
            workloads: table.workloads().len(),
        }
    }
}

/// Says whether the file at `path` would be taken, and what is in it.
pub fn check(path: &Path) -> Result<Summary, FileError> {
    load(path).map(|table| Summary::from(&table))
}

/// Reads the file at `path` into a table.
pub fn load(path: &Path) -> Result<RouteTable, FileError> {
    table(path, &read(path)?)
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
    }
    Ok(bytes)
}

fn table(path: &Path, bytes: &[u8]) -> Result<RouteTable, FileError> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let (before, _) = bytes.split_at(error.valid_up_to());
        let text = String::from_utf8_lossy(before);
        let line = text.rsplit('\n').next().unwrap_or_default();
        let problem = Problem {
            line: text.matches('\n').count() as u64 + 1,
            column: line.chars().count() as u64 + 1,
            fault: Fault::NotUtf8,
        };
        FileError::Content { path: path.to_owned(), problems: vec![problem], more: 0 }
    })?;
    check::table(text, path)
}

/// A route file that is being followed.
#[derive(Debug)]
pub struct FileSource {
    handle: RouteHandle,
    seen: Seen,
}

/// The file as it was last seen.
#[derive(Debug)]
struct Seen {
    path: PathBuf,
    /// Its content, good or bad, or why it could not be read.
    content: Result<Vec<u8>, io::ErrorKind>,
}

impl Seen {
    /// Reads the file. None when it looks the same as last time, unless somebody asked for it.
    fn look(&mut self, asked: bool) -> Option<Result<RouteTable, FileError>> {
        let read = read(&self.path);
        let unchanged = match (&read, &self.content) {
            (Ok(bytes), Ok(seen)) => bytes == seen,
            (Err(error), Err(seen)) => error.kind() == Some(*seen),
            _ => false,
        };
        if unchanged && !asked {
            return None;
        }
        match read {
            Ok(bytes) => {
                let table = table(&self.path, &bytes);
                self.content = Ok(bytes);
                Some(table)
            }
            Err(error) => {
                self.content = Err(error.kind().unwrap_or(io::ErrorKind::Other));
                Some(Err(error))
            }
        }
    }
}

/// A good route file that was read once, and is in effect nowhere yet.
#[derive(Debug)]
pub struct Opened {
    table: RouteTable,
    source: FileSource,
}

impl Opened {
    /// Its routes.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Puts its routes in effect.
    pub fn put_in_effect(self) -> Result<FileSource, NotInstalled> {
        let Self { table, source } = self;
        replace(&source.handle, &source.seen.path, table)?;
        Ok(source)
    }
}

impl FileSource {
    /// Reads the file at `path`, whose routes are to be put in effect by `handle`.
    pub fn open(path: impl Into<PathBuf>, handle: RouteHandle) -> Result<Opened, FileError> {
        let path = path.into();
        let bytes = read(&path)?;
        let table = table(&path, &bytes)?;
        Ok(Opened { table, source: Self { handle, seen: Seen { path, content: Ok(bytes) } } })
    }

    /// Follows the file until the future is dropped: reads it when it changes, and at once when `reload` is notified (for
    /// SIGHUP).
    pub async fn run(self, reload: Arc<Notify>) {
        let Self { handle, mut seen } = self;
        let mut watch = Watch::new(&seen.path);
        // What happened between `open` and here.
        let mut asked = false;
        loop {
            watch.note();
            // Parsing a large file takes longer than a runtime's thread may be kept, and so does putting it in effect.
            let looked = tokio::task::spawn_blocking({
                let handle = handle.clone();
                move || {
                    if let Some(result) = seen.look(asked) {
                        settle(&handle, &seen.path, result);
                    }
                    seen
                }
            });
            seen = match looked.await {
                Ok(seen) => seen,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down.
                Err(_) => return,
            };
            asked = false;
            // Set up anew: something may have happened before that was done.
            if watch.refresh() {
                continue;
            }
            tokio::select! {
                () = reload.notified() => asked = true,
                () = watch.changed(QUIET, UNQUIET) => {}
            }
        }
    }
}

/// Puts a table in effect, or says why not.
fn settle(handle: &RouteHandle, path: &Path, result: Result<RouteTable, FileError>) {
    let error = match result {
        Ok(table) if table.same_routes(&handle.load()) => {
            handle.confirm();
            let version = handle.status().version;
            tracing::info!(path = %path.display(), version, "routes read again: no difference");
            return;
        }
        Ok(table) => match replace(handle, path, table) {
            Ok(()) => return,
            Err(error) => chain(&error),
        },
        Err(error) => error.to_string(),
    };
    let version = handle.status().version;
    tracing::error!(path = %path.display(), version, error, "routes refused; those of this version stay in effect");
    handle.reject(error);
}

fn replace(handle: &RouteHandle, path: &Path, table: RouteTable) -> Result<(), NotInstalled> {
    let summary = Summary::from(&table);
    let InEffect { version, entries } = handle.replace(table)?;
    tracing::info!(path = %path.display(), version, ?summary, entries, "routes in effect");
    Ok(())
}

#[cfg(test)]
mod tests;
