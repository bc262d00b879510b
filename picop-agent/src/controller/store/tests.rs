use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;
use crate::controller::names::{Destination, Endpoint, EnvName, ProxyId};

mod model;

/// What tests look at.
impl Store {
    pub(in crate::controller) async fn routes(
        &self,
        proxy: &str,
    ) -> Result<BTreeMap<String, String>, sqlx::Error> {
        let rows = sqlx::query("SELECT env_id, destination FROM routes WHERE proxy_id = ?").bind(proxy);
        let rows = rows.fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    pub(crate) async fn proxies(&self) -> Result<Vec<(String, String, bool)>, sqlx::Error> {
        let all =
            "SELECT proxy_id, endpoint, CASE WHEN activate THEN 1 ELSE 0 END FROM proxies ORDER BY proxy_id";
        let rows = sqlx::query(all).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<i64, _>(2)? != 0)))
            .collect()
    }

    pub(in crate::controller) async fn pending(&self) -> i64 {
        let count = sqlx::query("SELECT COUNT(*) FROM picop_pending").fetch_one(&self.pool).await;
        count.expect("a count").get(0)
    }
}

/// A database whose clock stands still until a test moves it.
struct Scene {
    dir: TempDir,
    clock: Arc<AtomicI64>,
    store: Store,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(AtomicI64::new(1_000_000));
        let store = open(&dir, &clock).await;
        Self { dir, clock, store }
    }

    /// As after a crash: leases stay.
    async fn reopen(self) -> Self {
        let Self { dir, clock, store } = self;
        store.close().await;
        drop(store);
        let store = open(&dir, &clock).await;
        Self { dir, clock, store }
    }

    fn pass(&self, time: Duration) {
        self.clock.fetch_add(millis(time), Ordering::Relaxed);
    }

    /// A proxy that is active.
    async fn proxy(&self, name: &str) -> Proxy {
        self.store.register(&id(name), &endpoint("http://h:1")).await.expect("registered");
        self.store.activate(&id(name)).await.expect("activated");
        Proxy(name.into())
    }

    async fn put(&self, proxy: &str, env: &str, destination: &str) {
        let destination = Destination::new(destination).expect("a destination");
        self.store.put_routes(&[Route { key: key(proxy, env), destination }]).await.expect("stored");
    }

    async fn delete(&self, proxy: &str, env: &str) {
        self.store.delete_routes(&[key(proxy, env)]).await.expect("removed");
    }

    async fn claim(&self, proxy: &Proxy, owner: &str) -> bool {
        self.store.claim(proxy, owner).await.expect("an answer")
    }

    async fn work(&self, proxy: &Proxy, owner: &str) -> Option<Work> {
        self.store.work(proxy, owner, 100).await.expect("an answer")
    }

    async fn told(&self, proxy: &Proxy, owner: &str, work: &Work) -> bool {
        self.store.told(proxy, owner, work.read, &work.items).await.expect("an answer")
    }
}

async fn open(dir: &TempDir, clock: &Arc<AtomicI64>) -> Store {
    let mut store = Store::open(&Database::Sqlite(dir.path().join("a b?.db"))).await.expect("a database");
    store.clock = Clock::Test(Arc::clone(clock));
    store
}

fn id(name: &str) -> ProxyId {
    ProxyId::new(name).expect("a name")
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(text).expect("an endpoint")
}

fn key(proxy: &str, env: &str) -> RouteKey {
    RouteKey { proxy: id(proxy), env: EnvName::new(env).expect("a name") }
}

fn said(work: Option<&Work>) -> Vec<(&str, Option<&str>)> {
    let items = work.map(|work| work.items.iter());
    items.into_iter().flatten().map(|item| (item.env.as_str(), item.destination.as_deref())).collect()
}

#[tokio::test]
async fn changes_are_told_in_order_and_once() {
    let it = Scene::new().await;
    let p = it.proxy("p").await;
    assert_eq!(it.store.due("me").await.expect("proxies"), []);
    it.put("p", "b", "h:1").await;
    it.put("p", "a", "h:2").await;
    it.put("p", "c", "h:3").await;
    it.delete("p", "b").await;
    assert_eq!(it.store.due("me").await.expect("proxies"), std::slice::from_ref(&p));
    assert!(it.claim(&p, "me").await);
    let work = it.work(&p, "me").await;
    assert_eq!(said(work.as_ref()), [("a", Some("h:2")), ("c", Some("h:3")), ("b", None)]);
    // One changes while it is being told.
    it.put("p", "c", "h:4").await;
    assert!(it.told(&p, "me", &work.expect("work")).await);
    let work = it.work(&p, "me").await;
    assert_eq!(said(work.as_ref()), [("c", Some("h:4"))]);
    assert!(it.told(&p, "me", &work.expect("work")).await);
    assert_eq!(it.store.pending().await, 0);
    assert_eq!(it.store.due("me").await.expect("proxies"), []);
}

#[tokio::test]
async fn activation_has_everything_told() {
    let it = Scene::new().await;
    it.store.register(&id("p"), &endpoint("http://h:1")).await.expect("registered");
    it.put("p", "a", "h:1").await;
    assert_eq!(it.store.due("me").await.expect("proxies"), [], "not active yet");
    it.store.activate(&id("p")).await.expect("activated");
    let p = Proxy("p".into());
    for _ in 0..2 {
        assert!(it.claim(&p, "me").await);
        let work = it.work(&p, "me").await;
        assert_eq!(said(work.as_ref()), [("a", Some("h:1"))]);
        assert!(it.told(&p, "me", &work.expect("work")).await);
        assert_eq!(it.store.pending().await, 0);
        it.store.activate(&id("p")).await.expect("activated");
    }
    // At another place it is another process.
    it.store.register(&id("p"), &endpoint("http://h:1")).await.expect("registered");
    assert_eq!(it.store.proxies().await.expect("proxies"), [("p".into(), "http://h:1".into(), true)]);
    it.store.register(&id("p"), &endpoint("http://h:2")).await.expect("registered");
    assert_eq!(it.store.proxies().await.expect("proxies"), [("p".into(), "http://h:2".into(), false)]);
    assert_eq!(it.work(&p, "me").await, None);
}

#[tokio::test]
async fn one_controller_tells_a_proxy_and_another_when_it_is_silent() {
    let it = Scene::new().await;
    let p = it.proxy("p").await;
    it.put("p", "a", "h:1").await;
    assert!(it.claim(&p, "me").await);
    assert!(!it.claim(&p, "you").await);
    assert_eq!(it.store.due("you").await.expect("proxies"), []);
    assert_eq!(it.store.due("me").await.expect("proxies"), std::slice::from_ref(&p));
    let mine = it.work(&p, "me").await.expect("work");
    it.pass(LEASE);
    assert!(it.claim(&p, "you").await);
    assert!(!it.claim(&p, "me").await);
    assert_eq!(it.work(&p, "me").await, None);
    it.put("p", "a", "h:2").await;
    let yours = it.work(&p, "you").await.expect("work");
    assert_eq!(said(Some(&yours)), [("a", Some("h:2"))]);
    assert!(it.told(&p, "you", &yours).await);
    // What I was telling may arrive after that: it is told again.
    assert_eq!(said(it.work(&p, "you").await.as_ref()), []);
    it.pass(GRACE);
    let again = it.work(&p, "you").await.expect("work");
    assert_eq!(said(Some(&again)), [("a", Some("h:2"))]);
    assert!(it.told(&p, "you", &again).await);
    assert_eq!(it.store.pending().await, 0);
    // And should I have slept for longer than that, I say so.
    assert!(!it.told(&p, "me", &mine).await);
    assert_eq!(said(it.work(&p, "you").await.as_ref()), [("a", Some("h:2"))]);
    it.store.release(&p, "you").await.expect("released");
    assert!(it.claim(&p, "me").await);
}

#[tokio::test]
async fn what_may_arrive_late_is_told_again_when_it_cannot_any_more() {
    let it = Scene::new().await;
    let p = it.proxy("p").await;
    it.put("p", "a", "h:1").await;
    it.put("p", "b", "h:1").await;
    assert!(it.claim(&p, "me").await);
    let work = it.work(&p, "me").await.expect("work");
    it.store.in_doubt(&p, &work.items[..1]).await.expect("stored");
    it.delete("p", "a").await;
    let work = it.work(&p, "me").await.expect("work");
    assert_eq!(said(Some(&work)), [("b", Some("h:1")), ("a", None)]);
    assert!(it.told(&p, "me", &work).await);
    assert_eq!(said(it.work(&p, "me").await.as_ref()), []);
    it.pass(GRACE);
    let work = it.work(&p, "me").await.expect("work");
    assert_eq!(said(Some(&work)), [("a", None)]);
    assert!(it.told(&p, "me", &work).await);
    assert_eq!(it.store.pending().await, 0);
}

#[tokio::test]
async fn what_is_refused_is_put_off() {
    let it = Scene::new().await;
    let p = it.proxy("p").await;
    it.put("p", "a", "h:1").await;
    it.put("p", "b", "h:1").await;
    assert!(it.claim(&p, "me").await);
    let work = it.work(&p, "me").await.expect("work");
    it.store.put_off(&p, &work.items[0], Duration::from_secs(5)).await.expect("stored");
    assert_eq!(said(it.work(&p, "me").await.as_ref()), [("b", Some("h:1"))]);
    it.pass(Duration::from_secs(5));
    assert_eq!(said(it.work(&p, "me").await.as_ref()), [("a", Some("h:1")), ("b", Some("h:1"))]);
    // A change is a reason to ask again at once.
    it.store.put_off(&p, &work.items[0], Duration::from_secs(5)).await.expect("stored");
    it.put("p", "a", "h:2").await;
    assert_eq!(said(it.work(&p, "me").await.as_ref()), [("b", Some("h:1")), ("a", Some("h:2"))]);
}

#[tokio::test]
async fn a_proxy_that_comes_again_is_not_taken_for_the_one_that_was() {
    let it = Scene::new().await;
    let p = it.proxy("p").await;
    it.put("p", "a", "h:1").await;
    assert!(it.claim(&p, "me").await);
    let old = it.work(&p, "me").await.expect("work");
    it.store.remove(&id("p")).await.expect("removed");
    assert_eq!(it.work(&p, "me").await, None);
    it.proxy("p").await;
    it.put("p", "a", "h:2").await;
    it.told(&p, "me", &old).await;
    assert_eq!(said(it.work(&p, "me").await.as_ref()), [("a", Some("h:2"))]);
}

#[tokio::test]
async fn a_proxy_that_comes_again_is_told_what_is_gone_meanwhile() {
    let it = Scene::new().await;
    let p = it.proxy("p").await;
    for env in ["a", "b", "c"] {
        it.put("p", env, "h:1").await;
    }
    assert!(it.claim(&p, "me").await);
    let work = it.work(&p, "me").await.expect("work");
    assert!(it.told(&p, "me", &work).await);
    // It is told of this one no more.
    it.delete("p", "c").await;
    it.store.remove(&id("p")).await.expect("removed");
    assert_eq!(it.store.due("me").await.expect("proxies"), []);
    it.store.register(&id("p"), &endpoint("http://h:1")).await.expect("registered");
    it.put("p", "b", "h:2").await;
    assert_eq!(it.store.due("me").await.expect("proxies"), [], "not active yet");
    it.store.activate(&id("p")).await.expect("activated");
    let work = it.work(&p, "me").await.expect("work");
    let mut told = said(Some(&work));
    told.sort_unstable();
    assert_eq!(told, [("a", None), ("b", Some("h:2")), ("c", None)]);
    assert!(it.told(&p, "me", &work).await);
    assert_eq!(it.store.pending().await, 0);
    // That is not known for ever.
    it.store.remove(&id("p")).await.expect("removed");
    assert_eq!(it.store.pending().await, 1);
    it.pass(MEMORY + Duration::from_millis(1));
    it.store.remove(&id("another")).await.expect("removed");
    assert_eq!(it.store.pending().await, 0);
}

#[tokio::test]
async fn a_file_has_one_controller_and_keeps_what_it_was_told() {
    let it = Scene::new().await;
    let p = it.proxy("p").await;
    it.put("p", "a", "h:1").await;
    it.delete("p", "a").await;
    assert!(it.claim(&p, "me").await);
    let second = Store::open(&Database::Sqlite(it.dir.path().join("a b?.db"))).await;
    assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
    let it = it.reopen().await;
    // The lease of one that has ended is free at once, but what it was telling is in doubt.
    assert!(it.claim(&p, "next").await);
    let work = it.work(&p, "next").await.expect("work");
    assert_eq!(said(Some(&work)), [("a", None)]);
    assert!(it.told(&p, "next", &work).await);
    assert_eq!(it.store.pending().await, 1);
}

#[tokio::test]
async fn tables_of_the_reference_are_adopted_and_those_of_a_later_picop_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::default();
    let store = open(&dir, &clock).await;
    for statement in [
        "DROP TABLE picop_leases",
        "DROP TABLE picop_pending",
        "DROP TABLE picop_state",
        "INSERT INTO proxies VALUES ('p', 'http://h:1', 1)",
        "INSERT INTO routes VALUES ('p', 'a', 'h:1')",
    ] {
        sqlx::query(statement).execute(&store.pool).await.expect("done");
    }
    drop(store);
    let store = open(&dir, &clock).await;
    let p = Proxy("p".into());
    assert_eq!(store.due("me").await.expect("proxies"), std::slice::from_ref(&p));
    assert!(store.claim(&p, "me").await.expect("an answer"));
    let work = store.work(&p, "me", 1).await.expect("an answer");
    assert_eq!(said(work.as_ref()), [("a", Some("h:1"))]);
    sqlx::query("UPDATE picop_state SET tables_version = 2").execute(&store.pool).await.expect("done");
    drop(store);
    let later = Store::open(&Database::Sqlite(dir.path().join("a b?.db"))).await;
    assert!(matches!(later, Err(OpenError::Later { found: 2 })), "{later:?}");
}

#[test]
fn databases_by_their_names() {
    assert_eq!("sqlite:/a/b".parse(), Ok(Database::Sqlite("/a/b".into())));
    assert_eq!("sqlite:///a/b".parse(), Ok(Database::Sqlite("/a/b".into())));
    assert_eq!("sqlite:b".parse(), Ok(Database::Sqlite("b".into())));
    let mysql: Database = "mysql://u:secret@h:3306/db?ssl-mode=disabled".parse().expect("a database");
    assert_eq!(mysql.to_string(), "mysql://h:3306/db");
    assert_eq!(format!("{mysql:?}"), "mysql://h:3306/db");
    for (bad, why) in [
        ("", BadDatabase::Kind),
        ("postgres://h/db", BadDatabase::Kind),
        ("sqlite:", BadDatabase::NoPath),
        ("mysql://h", BadDatabase::NoName),
        ("mysql://h/", BadDatabase::NoName),
        ("mysql://h/?a=b", BadDatabase::NoName),
    ] {
        assert_eq!(bad.parse::<Database>(), Err(why), "{bad}");
    }
}
