//! Tables, and the statements that are not the same in both dialects.
use sqlx::{Any, Row as _, Transaction};

use super::database::Dialect;

/// The version of our own tables. A database of a later one is left alone.
pub(super) const VERSION: i64 = 1;

/// What brings a database from each version to the next. Each statement may be done again: one of MySQL's that makes a table
/// cannot be undone, so a controller that ended half way leaves some of them done.
const STEPS: [&[Make]; 1] = [&[
    // The reference's. As it has made them, they stay.
    Make::Table(
        "proxies",
        "proxy_id VARCHAR(512) NOT NULL PRIMARY KEY, endpoint VARCHAR(512) NOT NULL, activate BOOLEAN NOT NULL",
    ),
    Make::Table(
        "routes",
        "proxy_id VARCHAR(512) NOT NULL, env_id VARCHAR(512) NOT NULL, destination VARCHAR(512) NOT NULL, \
         PRIMARY KEY (proxy_id, env_id), \
         FOREIGN KEY (proxy_id) REFERENCES proxies (proxy_id) ON DELETE CASCADE",
    ),
    // Ours. `due`: not to be told before. `suspect`: whatever is told before that has to be told again after it.
    Make::Table(
        "picop_pending",
        "proxy_id VARCHAR(512) NOT NULL, env_id VARCHAR(512) NOT NULL, version BIGINT NOT NULL, \
         due BIGINT NOT NULL, suspect BIGINT NOT NULL, PRIMARY KEY (proxy_id, env_id)",
    ),
    // `owner`: who tells the proxy; nobody if empty. `taken`: its last owner did not let go by itself.
    Make::Table(
        "picop_leases",
        "proxy_id VARCHAR(512) NOT NULL PRIMARY KEY, owner VARCHAR(64) NOT NULL, expires BIGINT NOT NULL, \
         taken BIGINT NOT NULL",
    ),
]];

/// One statement of a step.
enum Make {
    Table(&'static str, &'static str),
}

impl Make {
    fn sql(&self, dialect: Dialect) -> String {
        let Self::Table(name, columns) = self;
        let end = match dialect {
            Dialect::Sqlite => "",
            Dialect::MySql => " ENGINE=InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin",
        };
        format!("CREATE TABLE IF NOT EXISTS {name} ({columns}){end}")
    }
}

/// Makes what is missing, and returns the version that was found if it is a later one than ours.
pub(super) async fn migrate(
    tx: &mut Transaction<'static, Any>,
    dialect: Dialect,
) -> Result<Option<i64>, sqlx::Error> {
    let columns = "id BIGINT NOT NULL PRIMARY KEY, tables_version BIGINT NOT NULL, version BIGINT NOT NULL";
    sqlx::query(&Make::Table("picop_state", columns).sql(dialect)).execute(&mut **tx).await?;
    let first = format!("{} picop_state VALUES (1, 0, 0)", dialect.insert_new());
    sqlx::query(&first).execute(&mut **tx).await?;
    let found = sqlx::query("SELECT tables_version FROM picop_state WHERE id = 1");
    let found: i64 = found.fetch_one(&mut **tx).await?.try_get(0)?;
    if found > VERSION {
        return Ok(Some(found));
    }
    let done = usize::try_from(found).unwrap_or_default();
    for statement in STEPS.iter().skip(done).flat_map(|step| step.iter()) {
        sqlx::query(&statement.sql(dialect)).execute(&mut **tx).await?;
    }
    let now = "UPDATE picop_state SET tables_version = ? WHERE id = 1 AND tables_version < ?";
    sqlx::query(now).bind(VERSION).bind(VERSION).execute(&mut **tx).await?;
    Ok(None)
}

/// Statements that differ.
#[derive(Debug)]
pub(super) struct Statements {
    /// destination of (proxy, environment).
    pub put_route: String,
    /// Notes one route as it is stored: version, proxy, environment.
    pub note_route: String,
    /// Notes all routes of a proxy: version, proxy.
    pub note_all: String,
    /// Notes an environment, be it there or not: environment, version, proxy. The proxy must be there.
    pub note_any: String,
    /// Notes all routes of proxies that no controller of ours has met: version.
    pub note_strangers: String,
    /// Makes the leases that are missing.
    pub make_leases: String,
    /// Makes a proxy's lease, held: proxy, owner, until when.
    pub make_lease: String,
}

impl Statements {
    pub(super) fn new(dialect: Dialect) -> Self {
        let noted = dialect.or_update("proxy_id, env_id", &["version", "due"]);
        let put = dialect.or_update("proxy_id, env_id", &["destination"]);
        let new = dialect.insert_new();
        let note = "INSERT INTO picop_pending (proxy_id, env_id, version, due, suspect)";
        let of_routes = format!("{note} SELECT proxy_id, env_id, ?, 0, 0 FROM routes");
        let no_lease = "NOT EXISTS (SELECT 1 FROM picop_leases WHERE picop_leases.proxy_id =";
        Self {
            put_route: format!("INSERT INTO routes (proxy_id, env_id, destination) VALUES (?, ?, ?){put}"),
            note_route: format!("{of_routes} WHERE proxy_id = ? AND env_id = ?{noted}"),
            note_all: format!("{of_routes} WHERE proxy_id = ?{noted}"),
            note_any: format!("{note} SELECT proxy_id, ?, ?, 0, 0 FROM proxies WHERE proxy_id = ?{noted}"),
            note_strangers: format!("{of_routes} WHERE {no_lease} routes.proxy_id){noted}"),
            make_leases: format!(
                "{new} picop_leases SELECT proxy_id, '', 0, 0 FROM proxies WHERE {no_lease} proxies.proxy_id)"
            ),
            make_lease: format!("{new} picop_leases VALUES (?, ?, ?, 0)"),
        }
    }
}
