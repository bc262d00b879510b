//! Where routes come from.
pub mod controller;
pub mod file;
pub mod kubernetes;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{Notify, watch};

use self::{
    controller::ControllerSource,
    file::{FileError, FileSource},
    kubernetes::{KubernetesSource, OpenError, Options},
};
use crate::route::{NotInstalled, RouteHandle, RouteTable};

/// Which source, and where it is.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A route file.
    File(PathBuf),
    /// A cluster.
    Kubernetes(Options),
    /// A PiCoP controller.
    Controller(controller::Options),
}

/// The first table is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is bad.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cluster cannot be followed.
    #[error(transparent)]
    Kubernetes(#[from] OpenError),
    /// The agent cannot be a controller's proxy.
    #[error(transparent)]
    Controller(#[from] controller::OpenError),
}

/// A source whose first table is known, and in effect nowhere yet.
#[derive(Debug)]
pub enum Opened {
    /// A file.
    File(file::Opened),
    /// A cluster.
    Kubernetes(kubernetes::Opened),
    /// A controller.
    Controller(Box<controller::Opened>),
}

impl Opened {
    /// Reads the first table. A file is good or bad at once; a cluster is waited for; of a controller, what it said last is
    /// known.
    pub async fn open(origin: Origin, handle: RouteHandle) -> Result<Self, SourceError> {
        Ok(match origin {
            Origin::File(path) => Self::File(FileSource::open(path, handle)?),
            Origin::Kubernetes(options) => Self::Kubernetes(KubernetesSource::open(options, handle).await?),
            Origin::Controller(options) => {
                Self::Controller(Box::new(ControllerSource::open(options, handle).await?))
            }
        })
    }

    /// The first table.
    pub fn table(&self) -> &RouteTable {
        match self {
            Self::File(opened) => opened.table(),
            Self::Kubernetes(opened) => opened.table(),
            Self::Controller(opened) => opened.table(),
        }
    }

    /// Why the source does not tell what is, if it does not: routes are those it told last. A file always tells.
    pub fn lost(&self) -> watch::Receiver<Option<String>> {
        match self {
            Self::File(_) => watch::channel(None).1,
            Self::Kubernetes(opened) => opened.lost(),
            Self::Controller(opened) => opened.lost(),
        }
    }

    /// Puts the first table in effect.
    pub fn put_in_effect(self) -> Result<Source, NotInstalled> {
        Ok(match self {
            Self::File(opened) => Source::File(opened.put_in_effect()?),
            Self::Kubernetes(opened) => Source::Kubernetes(opened.put_in_effect()?),
            Self::Controller(opened) => Source::Controller(Box::new(opened.put_in_effect()?)),
        })
    }
}

/// A source that is being followed.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File(FileSource),
    /// A cluster.
    Kubernetes(KubernetesSource),
    /// A controller.
    Controller(Box<ControllerSource>),
}

impl Source {
    /// Follows it until the future is dropped. `reload` asks for another look at once.
    pub async fn run(self, reload: Arc<Notify>) {
        match self {
            Self::File(source) => source.run(reload).await,
            Self::Kubernetes(source) => source.run(reload).await,
            Self::Controller(source) => source.run(reload).await,
        }
    }
}
