use std::os::unix::fs::symlink;

use notify::event::{CreateKind, Flag, ModifyKind};
use tempfile::TempDir;

use super::*;

#[test]
fn events_about_the_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("routes.yaml");
    symlink("..data/routes.yaml", &path).unwrap();
    let scope = Scope::of(&path);
    let about =
        |kind: EventKind, name: &str| scope.concerns(&Event::new(kind).add_path(dir.path().join(name)));
    let modified = EventKind::Modify(ModifyKind::Any);
    let closed = |mode| EventKind::Access(AccessKind::Close(mode));
    for (kind, name, expected) in [
        (modified, "routes.yaml", true),
        (modified, "..data", true),
        (modified, "", true),
        (modified, "routes.yaml.swp", false),
        (EventKind::Create(CreateKind::File), "routes.yaml", true),
        (closed(AccessMode::Write), "routes.yaml", true),
        (closed(AccessMode::Read), "routes.yaml", false),
        (EventKind::Access(AccessKind::Open(AccessMode::Any)), "routes.yaml", false),
    ] {
        assert_eq!(about(kind, name), expected, "{kind:?} {name}");
    }
    assert!(scope.concerns(&Event::new(EventKind::Other).set_flag(Flag::Rescan)), "events were lost");
}

#[test]
fn the_scope_follows_the_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("routes.yaml");
    fs::write(&path, "").unwrap();
    let mut watch = Watch::new(&path);
    assert!(watch.refresh(), "nothing was watched before");
    assert!(!watch.refresh());
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    fs::rename(&path, dir.path().join("elsewhere/routes.yaml")).unwrap();
    symlink("elsewhere/routes.yaml", &path).unwrap();
    assert!(watch.refresh());
    assert!(!watch.refresh());
}

/// Within ten looks.
async fn changed(watch: &Watch) -> bool {
    let moment = Duration::from_millis(1);
    time::timeout(POLL * 10, watch.changed(moment, moment)).await.is_ok()
}

/// Without a watcher, and with the clock as the only reason to look.
#[tokio::test(start_paused = true)]
async fn polling_sees_a_change() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("routes.yaml");
    fs::write(&path, "a").unwrap();
    let mut watch = Watch::new(&path);
    watch.note();
    watch.scope = Scope::of(&path);
    assert!(!changed(&watch).await, "nothing changed");
    fs::write(&path, "ab").unwrap();
    assert!(changed(&watch).await);
    watch.note();
    assert!(!changed(&watch).await);
    fs::remove_file(&path).unwrap();
    assert!(changed(&watch).await);
}
