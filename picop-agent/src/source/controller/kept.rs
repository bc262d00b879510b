//! Environments in a file: an agent that starts while the controller is away knows what the last one knew.
use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use super::envs::Table;
use crate::{
    controller::names::{BadValue, Destination},
    protocol::{EnvId, EnvIdError},
};

/// What is kept cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Not read.
    #[error("cannot read what the controller has said last from {path} (--controller-state)")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not written.
    #[error("cannot write what the controller has said to {path} (--controller-state)")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Written by something else.
    #[error("{path} does not hold what a controller has said; remove it, and the controller says it again")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ContentError,
    },
    /// Nothing is kept any more.
    #[error("the agent ends")]
    Ending,
}

/// What is wrong in the file.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// It is no JSON object of texts.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A name is none.
    #[error(transparent)]
    Env(#[from] EnvIdError),
    /// A destination is none.
    #[error(transparent)]
    Destination(#[from] BadValue),
}

/// The file.
#[derive(Debug)]
pub(super) struct Kept(PathBuf);

impl Kept {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What was written last; nothing if nothing was.
    pub(super) fn read(&self) -> Result<Table, KeptError> {
        let path = || self.0.clone();
        match fs::read(&self.0) {
            Ok(bytes) => parse(&bytes).map_err(|source| KeptError::Content { path: path(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::new()),
            Err(source) => Err(KeptError::Read { path: path(), source }),
        }
    }

    /// Puts another file in the place of the last one: there is one or the other, whole.
    pub(super) fn write(&self, table: &Table) -> Result<(), KeptError> {
        let texts: serde_json::Map<_, _> =
            table.iter().map(|(env, to)| (env.as_str().to_owned(), to.as_str().into())).collect();
        let mut bytes = serde_json::to_vec_pretty(&texts).expect("texts");
        bytes.push(b'\n');
        let mut beside = self.0.clone().into_os_string();
        beside.push(".new");
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &self.0)?;
            let dir = self.0.parent().filter(|dir| !dir.as_os_str().is_empty());
            fs::File::open(dir.unwrap_or(".".as_ref()))?.sync_all()
        };
        write().map_err(|source| KeptError::Write { path: self.0.clone(), source })
    }
}

fn parse(bytes: &[u8]) -> Result<Table, ContentError> {
    let texts: std::collections::BTreeMap<String, String> = serde_json::from_slice(bytes)?;
    texts.into_iter().map(|(env, to)| Ok((EnvId::new(&env)?, Destination::new(to)?))).collect()
}
