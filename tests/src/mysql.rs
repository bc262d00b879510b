//! Servers of MySQL's protocol, MariaDB and MySQL itself: how each is set up and started, which differs; what they are then
//! asked does not.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs;

/// Names the server program of a MySQL. Without it, `mysqld` is looked for on `PATH`.
pub const MYSQLD: &str = "PICOP_TEST_MYSQLD";

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MariaDB's, which the tests cannot do without.
    MariaDb,
    /// MySQL's own, which Debian's stable release does not have.
    MySql,
}

/// An installed server.
#[derive(Clone, Debug)]
pub struct Engine {
    kind: Kind,
    server: PathBuf,
    /// What makes a data directory.
    install: PathBuf,
}

/// A program and its arguments, for wherever it is to run.
#[derive(Debug)]
pub struct Line {
    /// Where the program is.
    pub program: PathBuf,
    /// What it is told.
    pub args: Vec<OsString>,
}

impl Engine {
    /// The one of that kind, or nothing: then it says that the test is skipped.
    ///
    /// # Panics
    /// When [`MYSQLD`] names no MySQL; when MariaDB is missing and `PICOP_REQUIRE_PRIVILEGE=1` forbids it.
    pub fn here_or_skip(kind: Kind, test: &str) -> Option<Self> {
        match kind {
            Kind::MariaDb => {
                let needed = ["mariadbd", "mariadb-install-db"];
                if !programs::present_or_skip(test, &needed) {
                    return None;
                }
                let [server, install] = needed.map(programs::find);
                Some(Self { kind, server: server?, install: install? })
            }
            Kind::MySql => {
                let Some(server) = mysqld() else {
                    eprintln!("SKIPPED {test}: there is no MySQL (cargo xtask test --mysql fetches one)");
                    return None;
                };
                Some(Self { kind, install: server.clone(), server })
            }
        }
    }

    /// Whose it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Makes the data directory `dir/data`, in which `root` needs no password. It takes seconds: one may be copied.
    pub fn install(&self, dir: &Path) -> Line {
        let own: &[&str] = match self.kind {
            Kind::MariaDb => &[
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--innodb-flush-log-at-trx-commit=0",
            ],
            Kind::MySql => &["--initialize-insecure", "--innodb-flush-log-at-trx-commit=0"],
        };
        self.line(&self.install, dir, own, [])
    }

    /// Serves `dir/data` at the Unix socket `dir/sock`, after the statements of the file `dir/init.sql`, one a line. Every commit
    /// is on the disk when it is answered, as it is by default.
    pub fn serve(&self, dir: &Path) -> Line {
        let path = |option: &str, name: &str| named(option, &dir.join(name));
        let paths = [path("socket", "sock"), path("pid-file", "pid"), path("init-file", "init.sql")];
        self.line(&self.server, dir, &["--performance-schema=OFF"], paths)
    }

    fn line(
        &self,
        program: &Path,
        dir: &Path,
        own: &[&str],
        more: impl IntoIterator<Item = OsString>,
    ) -> Line {
        // What makes it small.
        let small: &[&str] = match self.kind {
            Kind::MariaDb => &["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M"],
            Kind::MySql => &[
                // Its second protocol has a port that all servers of a machine would want.
                "--loose-mysqlx=OFF",
                // Debian's build looks for a directory of the machine's.
                "--secure-file-priv=NULL",
                // `loose`: unknown before 8.0.30.
                "--loose-innodb-redo-log-capacity=16M",
                "--innodb-buffer-pool-size=32M",
            ],
        };
        let args = ["--no-defaults", "--user=root"].iter().chain(small).chain(own).map(OsString::from);
        // Each server that starts sweeps the temporary directory of what others have there.
        let own_dirs = [named("datadir", &dir.join("data")), named("tmpdir", dir)];
        Line { program: program.to_owned(), args: args.chain(own_dirs).chain(more).collect() }
    }
}

impl From<Line> for Command {
    fn from(Line { program, args }: Line) -> Self {
        let mut command = Self::new(program);
        command.args(args);
        command
    }
}

fn named(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(format!("--{option}="));
    argument.push(path);
    argument
}

/// MySQL's server. MariaDB installs its own by that name too.
fn mysqld() -> Option<PathBuf> {
    if let Some(path) = env::var_os(MYSQLD) {
        let path = PathBuf::from(path);
        assert!(is_mysql(&path), "{MYSQLD}={} is no MySQL server", path.display());
        return Some(path);
    }
    programs::find("mysqld").filter(|path| is_mysql(path))
}

fn is_mysql(server: &Path) -> bool {
    let said = Command::new(server).args(["--no-defaults", "--version"]).output();
    said.is_ok_and(|said| said.status.success() && !said.stdout.windows(7).any(|word| word == b"MariaDB"))
}

/// Makes of a scene, a function of an [`Engine`], a test on each kind of server. One whose server is not here says that it is
/// skipped. A scene that is `async` gets a runtime of two threads.
#[macro_export]
macro_rules! on_each_engine {
    ($scene:ident) => {
        mod $scene {
            $crate::on_each_engine!($scene, on_mariadb, MariaDb);
            $crate::on_each_engine!($scene, on_mysql, MySql);
        }
    };
    (async $scene:ident) => {
        mod $scene {
            $crate::on_each_engine!(async $scene, on_mariadb, MariaDb);
            $crate::on_each_engine!(async $scene, on_mysql, MySql);
        }
    };
    ($scene:ident, $test:ident, $kind:ident) => {
        #[test]
        fn $test() -> super::Result {
            match $crate::mysql::Engine::here_or_skip($crate::mysql::Kind::$kind, module_path!()) {
                Some(engine) => super::$scene(&engine),
                None => Ok(()),
            }
        }
    };
    (async $scene:ident, $test:ident, $kind:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() -> super::Result {
            match $crate::mysql::Engine::here_or_skip($crate::mysql::Kind::$kind, module_path!()) {
                Some(engine) => super::$scene(&engine).await,
                None => Ok(()),
            }
        }
    };
}
pub use on_each_engine;
