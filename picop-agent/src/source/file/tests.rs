//! Following a file, on a real file system.
use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

use super::*;
use crate::route::SourceStatus;

/// Longer than any machine takes; nothing waits this long unless it fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// A route file of one service.
fn routes(name: &str) -> String {
    format!("services:\n- name: {name}\n  addresses: [\"10.96.0.10:80\"]\n")
}

/// A file that is being followed.
struct Followed {
    dir: TempDir,
    path: PathBuf,
    handle: RouteHandle,
    tables: watch::Receiver<Arc<RouteTable>>,
    status: watch::Receiver<SourceStatus>,
    reload: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    fn start() -> Self {
        Self::start_in(|dir| {
            let path = dir.join("routes.yaml");
            fs::write(&path, routes("first")).unwrap();
            path
        })
    }

    fn start_in(prepare: impl FnOnce(&Path) -> PathBuf) -> Self {
        let dir = TempDir::new().unwrap();
        let path = prepare(dir.path());
        let handle = RouteHandle::new();
        let source = FileSource::open(&path, handle.clone()).unwrap().put_in_effect().unwrap();
        let reload = Arc::new(Notify::new());
        let task = tokio::spawn(source.run(Arc::clone(&reload)));
        let (tables, status) = (handle.subscribe(), handle.subscribe_status());
        Self { dir, path, handle, tables, status, reload, task }
    }

    /// Waits until nothing but a change of the file makes the source look at it.
    async fn at_rest(&mut self) {
        // The first request may be answered by a look that was under way; the second one is taken while waiting.
        for _ in 0..2 {
            self.status.mark_unchanged();
            self.reload.notify_one();
            tokio::time::timeout(DEADLINE, self.status.changed()).await.unwrap().unwrap();
        }
    }

    /// Waits for the table with a service of that name, and returns its version.
    async fn serves(&mut self, name: &str) -> u64 {
        let served = |table: &Arc<RouteTable>| table.services().iter().any(|service| service.name == name);
        let Ok(table) = tokio::time::timeout(DEADLINE, self.tables.wait_for(served)).await else {
            panic!("not {name} but {:?}; {:?}", self.handle.load(), self.handle.status());
        };
        table.unwrap().version()
    }

    async fn status(&mut self, expected: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let Ok(status) =
            tokio::time::timeout(DEADLINE, self.status.wait_for(|status| expected(status))).await
        else {
            panic!("still {:?}", self.handle.status());
        };
        status.unwrap().clone()
    }

    /// Replaces the file as careful programs do.
    fn rename_over(&self, content: &str) {
        let temporary = self.dir.path().join("another-name");
        fs::write(&temporary, content).unwrap();
        fs::rename(temporary, &self.path).unwrap();
    }
}

#[tokio::test]
async fn written_in_place() {
    let mut followed = Followed::start();
    followed.at_rest().await;
    assert_eq!(followed.serves("first").await, 1);
    fs::write(&followed.path, routes("second")).unwrap();
    assert_eq!(followed.serves("second").await, 2);
    followed.at_rest().await;
    fs::write(&followed.path, routes("third")).unwrap();
    assert_eq!(followed.serves("third").await, 3);
}

#[tokio::test]
async fn renamed_over() {
    let mut followed = Followed::start();
    followed.at_rest().await;
    for (version, name) in [(2, "second"), (3, "third"), (4, "fourth")] {
        followed.rename_over(&routes(name));
        assert_eq!(followed.serves(name).await, version);
        followed.at_rest().await;
    }
}

/// Some editors move the old file away before they write.
#[tokio::test]
async fn moved_away_and_written_anew() {
    let mut followed = Followed::start();
    followed.at_rest().await;
    fs::rename(&followed.path, followed.dir.path().join("routes.yaml~")).unwrap();
    fs::write(&followed.path, routes("second")).unwrap();
    followed.serves("second").await;
}

/// A Kubernetes ConfigMap: the file is a symlink through `..data`, which is swapped.
#[tokio::test]
async fn a_configmap() {
    let publish = |dir: &Path, generation: &str, name: &str| {
        fs::create_dir(dir.join(generation)).unwrap();
        fs::write(dir.join(generation).join("routes.yaml"), routes(name)).unwrap();
        symlink(generation, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    };
    let mut followed = Followed::start_in(|dir| {
        publish(dir, "..2024_01", "first");
        symlink("..data/routes.yaml", dir.join("routes.yaml")).unwrap();
        dir.join("routes.yaml")
    });
    followed.at_rest().await;
    publish(followed.dir.path(), "..2024_02", "second");
    assert_eq!(followed.serves("second").await, 2);
    followed.at_rest().await;
    fs::remove_dir_all(followed.dir.path().join("..2024_01")).unwrap();
    publish(followed.dir.path(), "..2024_03", "third");
    assert_eq!(followed.serves("third").await, 3);
}

/// The file a symlink leads to, in another directory, is written to; then the symlink leads elsewhere.
#[tokio::test]
async fn a_symlink_to_another_directory() {
    let mut followed = Followed::start_in(|dir| {
        for name in ["a", "b"] {
            fs::create_dir(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("real.yaml"), routes(name)).unwrap();
        }
        fs::create_dir(dir.join("etc")).unwrap();
        symlink("../a/real.yaml", dir.join("etc/routes.yaml")).unwrap();
        dir.join("etc/routes.yaml")
    });
    followed.at_rest().await;
    followed.serves("a").await;
    fs::write(followed.dir.path().join("a/real.yaml"), routes("a2")).unwrap();
    followed.serves("a2").await;
    followed.at_rest().await;
    symlink("../b/real.yaml", followed.dir.path().join("etc/next")).unwrap();
    fs::rename(followed.dir.path().join("etc/next"), &followed.path).unwrap();
    followed.serves("b").await;
    followed.at_rest().await;
    fs::write(followed.dir.path().join("b/real.yaml"), routes("b2")).unwrap();
    followed.serves("b2").await;
}

/// A directory on the way is swapped, which no watch on the file's own directory shows.
#[tokio::test]
async fn the_directory_is_replaced() {
    let mut followed = Followed::start_in(|dir| {
        fs::create_dir(dir.join("etc")).unwrap();
        fs::write(dir.join("etc/routes.yaml"), routes("first")).unwrap();
        dir.join("etc/routes.yaml")
    });
    followed.at_rest().await;
    let dir = followed.dir.path();
    fs::create_dir(dir.join("next")).unwrap();
    fs::write(dir.join("next/routes.yaml"), routes("second")).unwrap();
    fs::rename(dir.join("etc"), dir.join("old")).unwrap();
    fs::rename(dir.join("next"), dir.join("etc")).unwrap();
    followed.serves("second").await;
    followed.at_rest().await;
    fs::write(&followed.path, routes("third")).unwrap();
    followed.serves("third").await;
}

#[tokio::test]
async fn a_bad_file_is_refused_and_a_good_one_taken() {
    let mut followed = Followed::start();
    followed.at_rest().await;
    followed.rename_over("services:\n- name: broken\n  adresses: []\n");
    let status = followed.status(|status| status.rejected == 1).await;
    let error = status.last_error.unwrap();
    assert!(error.contains("routes.yaml:3:3: unknown key \"adresses\""), "{error}");
    assert_eq!(status.version, 1);
    assert_eq!(followed.handle.load().services()[0].name, "first", "the old table stays");

    followed.rename_over(&routes("second"));
    assert_eq!(followed.serves("second").await, 2);
    let status = followed.status(|status| status.version == 2).await;
    assert_eq!((status.rejected, status.last_error), (1, None));
}

#[tokio::test]
async fn back_to_what_was_good_before_clears_the_error() {
    let mut followed = Followed::start();
    followed.at_rest().await;
    followed.rename_over("nonsense");
    followed.status(|status| status.rejected == 1 && status.last_error.is_some()).await;
    followed.rename_over(&routes("first"));
    let status = followed.status(|status| status.last_error.is_none()).await;
    assert_eq!((status.version, status.rejected), (1, 1));
}

#[tokio::test]
async fn deleted_and_back() {
    let mut followed = Followed::start();
    followed.at_rest().await;
    fs::remove_file(&followed.path).unwrap();
    let status = followed.status(|status| status.rejected == 1).await;
    assert!(status.last_error.unwrap().contains("No such file"));
    assert_eq!(followed.handle.load().services()[0].name, "first", "the old table stays");
    fs::write(&followed.path, routes("second")).unwrap();
    assert_eq!(followed.serves("second").await, 2);
}

#[tokio::test]
async fn the_same_routes_are_no_new_version() {
    let mut followed = Followed::start();
    followed.at_rest().await;
    let loaded_at = followed.handle.status().loaded_at;
    followed.rename_over(&format!("# A comment.\n{}", routes("first")));
    let status = followed.status(|status| status.loaded_at != loaded_at).await;
    assert_eq!((status.version, status.rejected, status.last_error), (1, 0, None));
    assert_eq!(followed.handle.load().version(), 1);
}

#[tokio::test]
async fn a_request_reads_the_file_even_if_it_did_not_change() {
    let mut followed = Followed::start();
    followed.at_rest().await;
    let loaded_at = followed.handle.status().loaded_at;
    followed.reload.notify_one();
    followed.status(|status| status.loaded_at != loaded_at).await;
    assert_eq!(followed.handle.load().version(), 1);

    followed.rename_over("nonsense");
    followed.status(|status| status.rejected == 1).await;
    followed.reload.notify_one();
    followed.status(|status| status.rejected == 2).await;
}

#[test]
fn no_start_without_a_good_file() {
    let dir = TempDir::new().unwrap();
    let refused = |path: &Path| {
        let handle = RouteHandle::new();
        let error = FileSource::open(path, handle.clone()).unwrap_err();
        assert_eq!((handle.load().version(), handle.status()), (0, SourceStatus::default()));
        error.to_string()
    };
    let path = dir.path().join("routes.yaml");
    let named = path.display();
    assert_eq!(
        refused(&path),
        format!(
            "cannot read the route file {named}: No such file or directory (os error 2); check that it is there and that \
             picop may read it"
        )
    );
    assert!(refused(dir.path()).ends_with("is not a regular file; name a YAML file with routes"));
    fs::write(&path, "services: [}").unwrap();
    assert!(refused(&path).starts_with(&format!("{named}:1:11: ")), "{}", refused(&path));
    fs::write(&path, b"services: []\n# \xc3\xa9\xff").unwrap();
    assert!(refused(&path).starts_with(&format!("{named}:2:4: here begins something that is not UTF-8")));
    fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert!(refused(&path).contains("bytes; is it the right file?"));
}

fn manifests(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(name)
}

#[test]
fn the_committed_schema_is_the_code() {
    let committed = fs::read_to_string(manifests("routes.schema.json")).unwrap();
    assert!(
        committed == schema(),
        "manifests/routes.schema.json is out of date; write it anew: picop schema > manifests/routes.schema.json"
    );
}

#[test]
fn the_example_is_taken_and_shows_every_key() {
    let path = manifests("routes.example.yaml");
    let summary = check(&path).unwrap();
    assert!(summary.services > 1 && summary.variants > 1 && summary.workloads > 1, "{summary:?}");

    let example = fs::read_to_string(&path).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let defs = &schema["$defs"];
    let keys: Vec<_> = [&schema, &defs["Service"], &defs["WeightedEndpoint"], &defs["Workload"]]
        .into_iter()
        .flat_map(|object| object["properties"].as_object().unwrap().keys())
        .collect();
    assert!(keys.len() > 12, "{keys:?}");
    for key in keys {
        // Not in a comment: what is shown is also loaded.
        let shown = example.lines().any(|line| {
            line.trim_start()
                .trim_start_matches("- ")
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(':'))
        });
        assert!(shown, "{key} is not in {}", path.display());
    }
}
