use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::*;
use crate::controller::{
    http::{Answer, Answers, Server, whole},
    names::{Destination, Endpoint, EnvName, ProxyId},
    segment::unsegment,
    store::{Database, Route, RouteKey},
};

/// A proxy that takes no environment called "bad", and fails as often as it is told to.
#[derive(Debug)]
struct Double {
    table: watch::Sender<BTreeMap<String, String>>,
    failures: Mutex<VecDeque<StatusCode>>,
    asked: watch::Sender<usize>,
}

fn bare(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

impl Answers for Arc<Double> {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        self.asked.send_modify(|asked| *asked += 1);
        let failure = self.failures.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(failure) = failure {
            return bare(failure);
        }
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if head.method == Method::DELETE {
            let env = path.strip_prefix("/at/admin/env/").and_then(unsegment).expect("an environment");
            let known = self.table.send_if_modified(|table| table.remove(&env).is_some());
            return bare(if known { StatusCode::OK } else { StatusCode::NOT_FOUND });
        }
        assert_eq!((head.method, path), (Method::PUT, "/at/admin/envs"));
        let body = whole(body).await.expect("a body");
        let list: Vec<Value> = serde_json::from_slice(&body).expect("a list");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let envs: Vec<_> = list.iter().map(|one| (text(&one["env_id"]), text(&one["destination"]))).collect();
        if envs.iter().any(|(env, _)| env == "bad") {
            return bare(StatusCode::BAD_REQUEST);
        }
        self.table.send_modify(|table| table.extend(envs));
        bare(StatusCode::OK)
    }
}

struct Scene {
    store: Arc<Store>,
    changed: Arc<Notify>,
    double: Arc<Double>,
    stop: CancellationToken,
    pushing: JoinHandle<()>,
    server: Server,
    _dir: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&Database::Sqlite(dir.path().join("db"))).await.expect("a database");
        let (store, changed) = (Arc::new(store), Arc::new(Notify::new()));
        let double = Arc::new(Double {
            table: watch::channel(BTreeMap::new()).0,
            failures: Mutex::default(),
            asked: watch::channel(0).0,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/at/", listener.local_addr().expect("an address"));
        let server = Server::start(listener, Arc::clone(&double));
        let (proxy, endpoint) = (proxy(), Endpoint::new(endpoint).expect("an endpoint"));
        store.register(&proxy, &endpoint).await.expect("registered");
        store.activate(&proxy).await.expect("activated");
        let stop = CancellationToken::new();
        let pusher = Pusher::new(Arc::clone(&store), Arc::clone(&changed), Duration::from_millis(300));
        let pushing = tokio::spawn(pusher.run(stop.clone()));
        Self { store, changed, double, stop, pushing, server, _dir: dir }
    }

    async fn put(&self, routes: &[(&str, &str)]) {
        let route = |(env, to): &(&str, &str)| Route {
            key: key(env),
            destination: Destination::new(*to).expect("a destination"),
        };
        let routes: Vec<_> = routes.iter().map(route).collect();
        self.store.put_routes(&routes).await.expect("stored");
        self.changed.notify_one();
    }

    async fn delete(&self, envs: &[&str]) {
        let keys: Vec<_> = envs.iter().map(|env| key(env)).collect();
        self.store.delete_routes(&keys).await.expect("removed");
        self.changed.notify_one();
    }

    async fn until(&self, routes: &[(&str, &str)]) {
        let wanted: BTreeMap<_, _> =
            routes.iter().map(|(env, to)| ((*env).to_owned(), (*to).to_owned())).collect();
        let mut table = self.double.table.subscribe();
        let there = timeout(Duration::from_secs(20), table.wait_for(|table| *table == wanted)).await;
        assert!(there.is_ok(), "{:?} instead of {wanted:?}", self.double.table.borrow());
    }

    async fn settled(&self) {
        let settled = async {
            while self.store.pending().await != 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), settled).await.expect("nothing is left to be told");
    }
}

fn proxy() -> ProxyId {
    ProxyId::new("p").expect("a name")
}

fn key(env: &str) -> RouteKey {
    RouteKey { proxy: proxy(), env: EnvName::new(env).expect("a name") }
}

#[tokio::test]
async fn a_proxy_is_told_of_every_change() {
    let it = Scene::new().await;
    it.put(&[("a/b c", "h:1"), ("b", "h:2")]).await;
    it.until(&[("a/b c", "h:1"), ("b", "h:2")]).await;
    it.put(&[("b", "h:3")]).await;
    it.delete(&["a/b c"]).await;
    it.until(&[("b", "h:3")]).await;
    it.settled().await;
    // One that was restarted does not know what it is to remove: that is as good as removed.
    it.double.table.send_modify(BTreeMap::clear);
    it.delete(&["b"]).await;
    it.settled().await;
    it.stop.cancel();
    it.pushing.await.expect("it ends");
    it.server.stop().await;
}

#[tokio::test]
async fn what_is_refused_keeps_nothing_else_back() {
    let it = Scene::new().await;
    it.put(&[("a", "h:1"), ("bad", "h:1"), ("c", "h:1")]).await;
    it.until(&[("a", "h:1"), ("c", "h:1")]).await;
    it.put(&[("d", "h:1")]).await;
    it.until(&[("a", "h:1"), ("c", "h:1"), ("d", "h:1")]).await;
    // It is asked for again and again.
    let asked = *it.double.asked.borrow();
    let mut count = it.double.asked.subscribe();
    let again = count.wait_for(|count| *count >= asked + 2);
    // Not kept: what it holds would keep the double from counting on.
    assert!(timeout(Duration::from_secs(20), again).await.is_ok());
    it.delete(&["bad"]).await;
    it.settled().await;
}

#[tokio::test]
async fn a_proxy_that_fails_is_told_again() {
    let it = Scene::new().await;
    let failures =
        [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];
    it.double.failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failures);
    it.put(&[("a", "h:1")]).await;
    it.until(&[("a", "h:1")]).await;
    assert_eq!(*it.double.asked.borrow(), failures.len() + 1);
    it.settled().await;
}

/// A thousand and more in several requests.
#[tokio::test]
async fn many_at_once() {
    let it = Scene::new().await;
    let names: Vec<_> = (0..1_200).map(|number| format!("e{number:04}")).collect();
    let routes: Vec<_> = names.iter().map(|name| (name.as_str(), "h:1")).collect();
    it.put(&routes).await;
    it.until(&routes).await;
    it.settled().await;
    assert_eq!(*it.double.asked.borrow(), 3);
}
