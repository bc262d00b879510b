use std::{collections::BTreeMap, fs, net::IpAddr, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use tempfile::TempDir;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    controller::{
        Options as ControllerOptions,
        http::Server,
        names::{Destination, EnvName},
        store::{Database, Route, RouteKey, Store},
    },
    protocol::EnvId,
    telemetry::chain,
};

const FILE: &str =
    "services:\n- name: cart\n  addresses: [10.96.0.10:80]\n  variants:\n    old: [10.0.0.9:80]\n";

fn env(name: &str) -> EnvId {
    EnvId::new(name).expect("a name")
}

fn destination(text: &str) -> Destination {
    Destination::new(text).expect("a destination")
}

/// The variants of a table's services.
fn variants(table: &RouteTable) -> BTreeMap<String, Vec<String>> {
    let of = |service: &Arc<crate::route::Service>| {
        let variant = |(env, endpoints): (&EnvId, &crate::route::Endpoints)| {
            let endpoints = endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            (format!("{}/{}", service.name, env.as_str()), endpoints)
        };
        service.variants.iter().map(variant).collect::<Vec<_>>()
    };
    table.services().iter().flat_map(of).collect()
}

fn expect(all: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    all.iter().map(|(name, list)| ((*name).to_owned(), texts(list))).collect()
}

async fn built(file: &str, service: Option<&str>, envs: &[(&str, &str)]) -> Result<RouteTable, BuildError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("routes.yaml");
    fs::write(&path, file).expect("written");
    let envs = envs.iter().map(|(name, to)| (env(name), destination(to))).collect();
    let mut resolver = Resolver::default();
    resolver.look_up(&envs, true).await;
    build(&file::load(&path).expect("a table"), service, &envs, &resolver)
}

#[tokio::test]
async fn environments_are_variants_of_the_service() {
    let envs = [
        ("pr-1", "10.0.0.1:80"),
        ("old", "[fd00::1]:80"),
        ("mapped", "[::ffff:10.0.0.2]:80"),
        ("itself", "10.96.0.10:80"),
        ("nowhere", "0.0.0.0:80"),
        ("unknown", "no-such-host.invalid:80"),
    ];
    let table = built(FILE, None, &envs).await.expect("a table");
    let all: [(&str, &[&str]); 6] = [
        ("cart/pr-1", &["10.0.0.1:80"]),
        ("cart/old", &["[fd00::1]:80"]),
        ("cart/mapped", &["10.0.0.2:80"]),
        ("cart/itself", &[]),
        ("cart/nowhere", &[]),
        ("cart/unknown", &[]),
    ];
    assert_eq!(variants(&table), expect(&all));
    let table = built(FILE, Some("cart"), &[("name", "localhost:81")]).await.expect("a table");
    let found = &variants(&table)["cart/name"];
    assert!(!found.is_empty(), "localhost has an address");
    for address in found {
        let address: SocketAddr = address.parse().expect("an address");
        assert!(address.ip().is_loopback() && address.port() == 81, "{address}");
    }
}

#[tokio::test]
async fn the_service_must_be_known() {
    let two = format!("{FILE}- name: user\n  addresses: [10.96.0.11:80]\n");
    assert!(matches!(built(&two, None, &[]).await, Err(BuildError::WhichService(2))));
    assert!(matches!(built("services: []\n", None, &[]).await, Err(BuildError::WhichService(0))));
    assert!(
        matches!(built(&two, Some("mail"), &[]).await, Err(BuildError::NoService(name)) if name == "mail")
    );
    let table = built(&two, Some("user"), &[("pr-1", "10.0.0.1:80")]).await.expect("a table");
    assert_eq!(variants(&table), expect(&[("cart/old", &["10.0.0.9:80"]), ("user/pr-1", &["10.0.0.1:80"])]));
}

#[tokio::test]
async fn what_was_said_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("kept.json");
    let envs = Envs::new(Some(Kept::new(path.clone()))).expect("nothing was kept");
    assert!(envs.now().is_empty());
    envs.change(|all| drop(all.insert(env("a"), destination("h:1")))).await.expect("kept");
    envs.change(|all| drop(all.insert(env("b"), destination("h:2")))).await.expect("kept");
    envs.change(|all| drop(all.remove(&env("a")))).await.expect("kept");
    let again = Envs::new(Some(Kept::new(path.clone()))).expect("kept");
    assert_eq!(*again.now(), [(env("b"), destination("h:2"))].into());
    for bad in ["", "[]", "{\"a\": 1}", "{\"\": \"h:1\"}", "{\"a\": \"h\"}"] {
        fs::write(&path, bad).expect("written");
        let read = Envs::new(Some(Kept::new(path.clone())));
        assert!(matches!(read, Err(KeptError::Content { .. })), "{bad}: {read:?}");
    }
    // What cannot be kept is not in effect either.
    let nowhere = Envs::new(Some(Kept::new(dir.path().join("none/kept")))).expect("nothing was kept");
    let failed = nowhere.change(|all| drop(all.insert(env("a"), destination("h:1")))).await;
    assert!(matches!(failed, Err(KeptError::Write { .. })), "{failed:?}");
    assert!(nowhere.now().is_empty());
}

#[tokio::test]
async fn the_admin_api_answers_as_the_references_does() {
    let admin = admin::Admin(Arc::new(Envs::new(None).expect("nothing was kept")));
    let one = r#"[{"env_id":"pr-1","destination":"10.0.0.7:80"},{"env_id":"a/b","destination":"h:1"}]"#;
    let long = "x".repeat(EnvId::MAX_LEN + 1);
    let long = format!(r#"[{{"env_id":"{long}","destination":"h:1"}}]"#);
    for (method, path, body, status, text) in [
        ("GET", "/admin/env/pr-1", "", 404, "no such environment\n"),
        ("PUT", "/admin/envs", one, 200, ""),
        ("GET", "/admin/env/pr-1", "", 200, r#"{"env_id":"pr-1","destination":"10.0.0.7:80"}"#),
        ("GET", "/admin/env/a%2Fb", "", 200, r#""env_id":"a/b""#),
        (
            "PUT",
            "/admin/envs",
            r#"[{"env_id":"c","destination":"h:1"},{"env_id":"d"}]"#,
            400,
            "`destination` is missing",
        ),
        ("PUT", "/admin/envs", r#"[{"destination":"h:1"}]"#, 400, "`env_id` is missing"),
        ("PUT", "/admin/envs", r#"[{"env_id":"c","destination":"h"}]"#, 400, "HOST:PORT"),
        ("PUT", "/admin/envs", &long, 400, "249 bytes"),
        ("PUT", "/admin/envs", "{", 400, "JSON"),
        ("GET", "/admin/env/c", "", 404, "no such environment"),
        ("DELETE", "/admin/env/pr-1", "", 200, ""),
        ("DELETE", "/admin/env/pr-1", "", 200, ""),
        ("GET", "/admin/env/pr-1", "", 404, "no such environment"),
        ("GET", "/admin/env/%zz", "", 400, "percent"),
        ("GET", "/admin/env/", "", 400, "empty"),
        ("GET", "/admin/envs", "", 405, "PUT"),
        ("PUT", "/admin/env/pr-1", "", 405, "GET, DELETE"),
        ("GET", "/admin/env/a/b", "", 404, "/admin/envs"),
        ("GET", "/", "", 404, "/admin/envs"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Full::from(body.to_owned()));
        let answer = admin.answered(request.expect("a request")).await;
        let found = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(found == status && body.contains(text), "{method} {path}: {found} {body:?}");
        assert!(!text.is_empty() || body.is_empty(), "{method} {path}: {body:?}");
    }
}

/// A controller, and what an agent needs to be its proxy.
struct Scene {
    dir: TempDir,
    controller: SocketAddr,
    store: Arc<Store>,
    changed: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("routes.yaml"), FILE).expect("written");
        let options = ControllerOptions {
            listen: "127.0.0.1:0".parse().expect("an address"),
            database: Database::Sqlite(dir.path().join("db")),
            retry_interval: Duration::from_millis(200),
        };
        let store = Arc::new(Store::open(&options.database).await.expect("a database"));
        let changed = Arc::new(Notify::new());
        let listener = TcpListener::bind(options.listen).await.expect("a port");
        let controller = listener.local_addr().expect("an address");
        let api = crate::controller::api::Api { store: Arc::clone(&store), changed: Arc::clone(&changed) };
        let pusher = crate::controller::push::Pusher::new(
            Arc::clone(&store),
            Arc::clone(&changed),
            options.retry_interval,
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(pusher.run(CancellationToken::new()));
        tasks.spawn(async move {
            let _server = Server::start(listener, api);
            std::future::pending::<()>().await;
        });
        Self { dir, controller, store, changed, tasks }
    }

    fn options(&self) -> Options {
        Options {
            routes: self.dir.path().join("routes.yaml"),
            service: None,
            url: format!("http://{}", self.controller),
            id: "node-1".into(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            endpoint: None,
            kept: Some(self.dir.path().join("kept.json")),
        }
    }

    fn key(name: &str) -> RouteKey {
        let proxy = ProxyId::new("node-1").expect("a name");
        RouteKey { proxy, env: EnvName::new(name).expect("a name") }
    }

    async fn put(&self, name: &str, to: &str) {
        let route = Route { key: Self::key(name), destination: destination(to) };
        self.store.put_routes(&[route]).await.expect("stored");
        self.changed.notify_one();
    }

    async fn delete(&self, name: &str) {
        self.store.delete_routes(&[Self::key(name)]).await.expect("removed");
        self.changed.notify_one();
    }
}

async fn until(handle: &RouteHandle, all: &[(&str, &[&str])]) {
    let wanted = expect(all);
    let mut changes = handle.subscribe();
    let there = changes.wait_for(|table| variants(table) == wanted);
    let there = tokio::time::timeout(Duration::from_secs(20), there).await;
    assert!(there.is_ok(), "{:?} instead of {wanted:?}", variants(&handle.load()));
}

#[tokio::test]
async fn an_agent_does_what_its_controller_says_and_remembers_it() {
    let mut it = Scene::new().await;
    let handle = RouteHandle::new();
    let opened = ControllerSource::open(it.options(), handle.clone()).await.expect("opened");
    let mut lost = opened.lost();
    assert!(lost.borrow().is_some(), "it is not registered yet");
    let source = opened.put_in_effect().expect("in effect");
    let running = tokio::spawn(source.run(Arc::default()));
    let known = lost.wait_for(Option::is_none);
    tokio::time::timeout(Duration::from_secs(20), known).await.expect("registered").expect("it runs");
    let proxies = it.store.proxies().await.expect("proxies");
    let [(id, endpoint, active)] = proxies.as_slice() else { panic!("{proxies:?}") };
    assert!(id == "node-1" && *active && endpoint.starts_with("http://127.0.0.1:"), "{proxies:?}");

    it.put("pr-1", "10.0.0.1:80").await;
    it.put("pr-2", "10.0.0.2:80").await;
    let old: (&str, &[&str]) = ("cart/old", &["10.0.0.9:80"]);
    until(&handle, &[old, ("cart/pr-1", &["10.0.0.1:80"]), ("cart/pr-2", &["10.0.0.2:80"])]).await;
    it.delete("pr-1").await;
    it.put("pr-2", "10.0.0.3:80").await;
    let pr_2: (&str, &[&str]) = ("cart/pr-2", &["10.0.0.3:80"]);
    until(&handle, &[old, pr_2]).await;

    // The file is followed as well; while it is bad, and when the service is gone from it, routes stay.
    let path = it.dir.path().join("routes.yaml");
    fs::write(&path, FILE.replace("10.0.0.9", "10.0.0.8")).expect("written");
    until(&handle, &[("cart/old", &["10.0.0.8:80"]), pr_2]).await;
    let mut status = handle.subscribe_status();
    for bad in ["services: [", "services: []\n"] {
        let before = status.borrow_and_update().rejected;
        fs::write(&path, bad).expect("written");
        let refused = status.wait_for(|status| status.rejected > before);
        tokio::time::timeout(Duration::from_secs(20), refused).await.expect("refused").expect("it runs");
    }
    assert_eq!(variants(&handle.load()), expect(&[("cart/old", &["10.0.0.8:80"]), pr_2]));
    // And the controller is followed all the same.
    it.put("pr-2", "10.0.0.4:80").await;
    let pr_2: (&str, &[&str]) = ("cart/pr-2", &["10.0.0.4:80"]);
    until(&handle, &[("cart/old", &["10.0.0.8:80"]), pr_2]).await;

    // The next agent knows it, without a controller.
    running.abort();
    it.tasks.shutdown().await;
    fs::write(&path, FILE).expect("written");
    let next = ControllerSource::open(it.options(), RouteHandle::new()).await.expect("opened");
    assert_eq!(variants(next.table()), expect(&[old, pr_2]));
}

#[tokio::test]
async fn bad_options_are_named() {
    let it = Scene::new().await;
    let good = it.options();
    let taken: IpAddr = "127.0.0.1".parse().expect("an address");
    for (options, words) in [
        (Options { url: "controller:8080".into(), ..good.clone() }, "--controller-url"),
        (Options { id: String::new(), ..good.clone() }, "--id"),
        (Options { endpoint: Some("https://h:1".into()), ..good.clone() }, "--controller-endpoint"),
        (Options { service: Some("mail".into()), ..good.clone() }, "--controller-service"),
        (
            Options { listen: SocketAddr::new(taken, it.controller.port()), ..good.clone() },
            "--controller-listen",
        ),
        (Options { routes: it.dir.path().join("none"), ..good.clone() }, "none"),
    ] {
        let error = ControllerSource::open(options, RouteHandle::new()).await.expect_err(words);
        assert!(chain(&error).contains(words), "{error}");
    }
}
