//! Why a database cannot be opened, and what to do about it.
use std::{io, path::PathBuf};

use tokio_rustls::rustls;

use super::super::{mysql_number, schema::VERSION};

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not to be had.
    #[error("cannot open {path}; it must be in a directory that the controller may write to")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its path cannot be said to SQLite.
    #[error("the path {0:?} of the database is not UTF-8")]
    Path(PathBuf),
    /// Another controller has the file.
    #[error("another controller uses {0}; several of them need a MySQL (--database mysql://...)")]
    InUse(PathBuf),
    /// Its tables are of a later version of picop.
    #[error(
        "the tables in the database are of version {found}, and this picop knows them up to {VERSION}; use a later one"
    )]
    Later {
        /// The version found.
        found: i64,
    },
    /// Nobody answers there.
    #[error("cannot reach the database; is it running, and is that where it answers?")]
    Unreachable(#[source] sqlx::Error),
    /// It has a certificate that is not accepted.
    #[error(
        "the database's certificate is not accepted; it must name the host of --database (with ssl-mode=verify_ca too), \
         and be signed by an authority of this machine or of ssl-ca=FILE"
    )]
    Certificate(#[source] sqlx::Error),
    /// It does not want this user.
    #[error(
        "the database refuses the user; is the password right, and may the user do everything in that database?"
    )]
    Denied(#[source] sqlx::Error),
    /// It has no database of that name.
    #[error(
        "the server has no such database; make it first (CREATE DATABASE), the tables are made by themselves"
    )]
    NoDatabase(#[source] sqlx::Error),
    /// The database does not answer as it should.
    #[error("the database fails")]
    Database(#[source] sqlx::Error),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        /// `ER_BAD_DB_ERROR`.
        const NO_DATABASE: u16 = 1049;
        /// `ER_DBACCESS_DENIED_ERROR`, `ER_ACCESS_DENIED_ERROR`, `ER_TABLEACCESS_DENIED_ERROR`,
        /// `ER_ACCESS_DENIED_NO_PASSWORD_ERROR`.
        const DENIED: [u16; 4] = [1044, 1045, 1142, 1698];
        match (mysql_number(&error), &error) {
            (Some(NO_DATABASE), _) => Self::NoDatabase(error),
            (Some(number), _) if DENIED.contains(&number) => Self::Denied(error),
            (_, sqlx::Error::Io(source)) if is_certificate(source) => Self::Certificate(error),
            (_, sqlx::Error::Io(_)) => Self::Unreachable(error),
            _ => Self::Database(error),
        }
    }
}

fn is_certificate(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}
