//! Which database, and in what its SQL differs.
use std::{fmt, path::PathBuf, str::FromStr};

use super::dsn;

/// Where a controller keeps what it is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of SQLite, which one controller has for itself. It is made if it is not there.
    Sqlite(PathBuf),
    /// MySQL or MariaDB, for any number of controllers: `mysql://user:password@host/database`.
    MySql(String),
}

/// It is no database of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDatabase {
    /// Neither of both kinds.
    #[error("a database is sqlite:PATH or mysql://USER@HOST/DATABASE")]
    Kind,
    /// Nothing behind the kind.
    #[error("the path of the database is empty: sqlite:PATH")]
    NoPath,
    /// No database is named.
    #[error("the URL names no database: mysql://USER@HOST/DATABASE")]
    NoName,
    /// No data source name.
    #[error(
        "a data source name is USER:PASSWORD@tcp(HOST:PORT)/DATABASE, or USER:PASSWORD@unix(/SOCKET)/DATABASE"
    )]
    Dsn,
    /// One with TLS as only a Go program could know it.
    #[error("tls= is true, skip-verify, preferred or false")]
    Tls,
}

impl Database {
    /// A MySQL by the name that Go programs have for it, the reference's controller among them (`--mysql`).
    ///
    /// # Errors
    /// When it is no such name.
    pub fn from_dsn(text: &str) -> Result<Self, BadDatabase> {
        dsn::url(text).map(Self::MySql)
    }
}

impl FromStr for Database {
    type Err = BadDatabase;

    fn from_str(text: &str) -> Result<Self, BadDatabase> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(BadDatabase::NoPath) } else { Ok(Self::Sqlite(path.into())) };
        }
        let rest = text.strip_prefix("mysql://").or_else(|| text.strip_prefix("mariadb://"));
        let (_, name) = rest.ok_or(BadDatabase::Kind)?.rsplit_once('/').ok_or(BadDatabase::NoName)?;
        if name.is_empty() || name.starts_with('?') {
            return Err(BadDatabase::NoName);
        }
        Ok(Self::MySql(text.to_owned()))
    }
}

/// Without a password: for logs and messages.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::MySql(url) => {
                let at =
                    url.rsplit_once('@').map_or_else(|| url.trim_start_matches("mysql://"), |(_, at)| at);
                let at = at.split('?').next().unwrap_or_default();
                write!(f, "mysql://{at}")
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What its SQL is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    MySql,
}

impl Dialect {
    /// Begins a transaction that is going to write.
    pub(super) fn begin(self) -> &'static str {
        match self {
            // Begun as a reader, it might find at its first write that another writer came first, and fail.
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::MySql => "START TRANSACTION",
        }
    }

    /// What ends an INSERT whose row may be there: column = new value.
    pub(super) fn or_update(self, key: &str, columns: &[&str]) -> String {
        let set = |column: &&str| match self {
            Self::Sqlite => format!("{column} = excluded.{column}"),
            // MySQL would rather see an alias of the row, which MariaDB does not know.
            Self::MySql => format!("{column} = VALUES({column})"),
        };
        let sets: Vec<_> = columns.iter().map(set).collect();
        match self {
            Self::Sqlite => format!(" ON CONFLICT ({key}) DO UPDATE SET {}", sets.join(", ")),
            Self::MySql => format!(" ON DUPLICATE KEY UPDATE {}", sets.join(", ")),
        }
    }

    /// An INSERT that leaves a row alone that is there.
    pub(super) fn insert_new(self) -> &'static str {
        match self {
            Self::Sqlite => "INSERT OR IGNORE INTO",
            Self::MySql => "INSERT IGNORE INTO",
        }
    }
}
