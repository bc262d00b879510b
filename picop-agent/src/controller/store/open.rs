//! Opening a database: its tables made or adopted.
use std::{fs::OpenOptions, io, path::PathBuf, time::Duration};

use rustix::fs::{FlockOperation, flock};
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _, any::AnyPoolOptions};

use super::{
    super::segment::segment,
    Clock, Store,
    database::{Database, Dialect},
    schema::{self, Statements, VERSION},
};

/// How long a connection to the database may be waited for.
const ACQUIRE: Duration = Duration::from_secs(5);

/// Connections to a MySQL at once.
const CONNECTIONS: u32 = 16;

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
    /// The database does not answer, or not as it should.
    #[error("the database fails; is it there, and may the user make tables?")]
    Database(#[from] sqlx::Error),
}

impl OpenError {
    /// Whether nobody answers where the database should be.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut))
    }
}

impl Store {
    /// Opens a database. Missing tables are made; those that a controller of the reference has made are used as they are.
    ///
    /// # Errors
    /// When the database is not to be had, is another controller's (SQLite), or is of a later version.
    pub async fn open(database: &Database) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let (dialect, clock, url, file) = match database {
            Database::Sqlite(path) => {
                let failed = |source| OpenError::File { path: path.clone(), source };
                let name = path.to_str().ok_or_else(|| OpenError::Path(path.clone()))?;
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create(true).truncate(false);
                let file = file.open(path).map_err(failed)?;
                // Of another kind than SQLite's own locks: its tools may read meanwhile. It ends with the process.
                flock(&file, FlockOperation::NonBlockingLockExclusive)
                    .map_err(|_| OpenError::InUse(path.clone()))?;
                let segments: Vec<_> = name.split('/').map(segment).collect();
                let url = format!("sqlite:{}", segments.join("/"));
                (Dialect::Sqlite, Clock::Machine, url, Some(file))
            }
            Database::MySql(url) => (Dialect::MySql, Clock::Database, url.clone(), None),
        };
        let store = Self {
            pool: pool(dialect, &url).await?,
            dialect,
            sql: Statements::new(dialect),
            clock,
            _file: file,
        };
        store.adopt().await?;
        Ok(store)
    }

    pub(super) async fn adopt(&self) -> Result<(), OpenError> {
        let mut tx = self.begin().await?;
        if let Some(found) = schema::migrate(&mut tx, self.dialect).await? {
            return Err(OpenError::Later { found });
        }
        tx.commit().await?;
        let (mut tx, version) = self.begin_change().await?;
        sqlx::query(&self.sql.note_strangers).bind(version).execute(&mut *tx).await?;
        sqlx::query(&self.sql.make_leases).execute(&mut *tx).await?;
        if self.dialect == Dialect::Sqlite {
            // Whoever held them has ended: the file is ours.
            sqlx::query("UPDATE picop_leases SET expires = 0").execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

async fn pool(dialect: Dialect, url: &str) -> Result<AnyPool, sqlx::Error> {
    // A pool tries for a while whatever fails, and then says that it has waited. This says what fails.
    let mut first = AnyConnection::connect(url).await?;
    set(&mut first, dialect).await?;
    first.close().await?;
    let options = AnyPoolOptions::new().acquire_timeout(ACQUIRE).min_connections(1);
    let options = match dialect {
        // Its transactions come one after another anyway, and in turn by this.
        Dialect::Sqlite => options.max_connections(1).idle_timeout(None).max_lifetime(None),
        Dialect::MySql => options.max_connections(CONNECTIONS),
    };
    options.after_connect(move |connection, _| Box::pin(set(connection, dialect))).connect(url).await
}

/// How a connection is to behave.
async fn set(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), sqlx::Error> {
    match dialect {
        Dialect::Sqlite => {
            // FULL: what was answered is kept also when the machine fails.
            let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                            PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000";
            connection.execute(settings).await?;
        }
        Dialect::MySql => {
            // Changes come one after another by the lock on their version; a snapshot would only add conflicts to that.
            let settings = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                            SET SESSION innodb_lock_wait_timeout = 5";
            connection.execute(settings).await?;
            // A controller that hangs in a transaction must not keep others from theirs. MySQL has no such setting, and
            // refuses it.
            if let Err(error) = connection.execute("SET SESSION idle_transaction_timeout = 10").await {
                tracing::debug!(%error, "no limit for idle transactions");
            }
        }
    }
    Ok(())
}
