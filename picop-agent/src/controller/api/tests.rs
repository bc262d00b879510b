use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::controller::{http::MOST, store::Database};

struct Scene {
    api: Api,
    dir: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&Database::Sqlite(dir.path().join("db"))).await.expect("a database");
        Self { api: Api { store: Arc::new(store), changed: Arc::default() }, dir }
    }

    async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(Full::new(body.into()));
        let answer = self.api.answered(request.expect("a request")).await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn good(&self, method: &str, path: &str, body: &Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        assert_eq!(
            self.ask(method, path, body.clone()).await,
            (200, String::new()),
            "{method} {path} {body}"
        );
    }
}

fn route(proxy: &str, env: &str, destination: &str) -> Value {
    json!({"proxy_id": proxy, "env_id": env, "destination": destination})
}

#[tokio::test]
async fn everything_good_is_answered_200_and_nothing_else() {
    let it = Scene::new().await;
    let endpoint = json!({"endpoint": "http://10.0.0.1:9001"});
    it.good("PUT", "/proxy/p%2F1/register", &endpoint).await;
    it.good("PUT", "/proxy/p%2F1/register", &json!({"endpoint": "http://10.0.0.2:9001", "more": 1})).await;
    it.good("PUT", "/proxy/p%2F1/activate", &Value::Null).await;
    it.good("PUT", "/routes", &json!([])).await;
    let routes = json!([route("p/1", "a", "h:1"), route("p/1", "b", "h:2"), route("p/1", "a", "h:3")]);
    it.good("PUT", "/routes", &routes).await;
    let all = it.api.store.routes("p/1").await.expect("routes");
    assert_eq!(all, [("a".into(), "h:3".into()), ("b".into(), "h:2".into())].into());
    it.good("DELETE", "/routes", &json!([{"proxy_id": "p/1", "env_id": "a"}, route("p/1", "zz", "h:1")]))
        .await;
    it.good("DELETE", "/routes", &json!([{"proxy_id": "nobody", "env_id": "a"}])).await;
    assert_eq!(it.api.store.routes("p/1").await.expect("routes"), [("b".into(), "h:2".into())].into());
    it.good("DELETE", "/proxy/p%2F1", &Value::Null).await;
    it.good("DELETE", "/proxy/p%2F1", &Value::Null).await;
    assert_eq!(it.api.store.routes("p/1").await.expect("routes"), [].into());
    it.good("GET", "/healthz", &Value::Null).await;
    it.good("GET", "/readyz", &Value::Null).await;
    drop(it.dir);
}

#[tokio::test]
async fn bad_input_is_answered_with_a_reason_and_nothing_is_stored() {
    let it = Scene::new().await;
    it.good("PUT", "/proxy/p/register", &json!({"endpoint": "http://h:1"})).await;
    let long = "x".repeat(513);
    let register = "/proxy/q/register";
    let good = route("p", "good", "h:1");
    let with = |bad: Value| json!([good, bad]).to_string();
    for (method, path, body, status, reason) in [
        ("PUT", register, String::new(), 400, "EOF"),
        ("PUT", register, "{}".into(), 400, "`endpoint` is missing"),
        ("PUT", register, json!({"endpoint": ""}).to_string(), 400, "`endpoint` is empty"),
        ("PUT", register, json!({"endpoint": 7}).to_string(), 400, "invalid type"),
        ("PUT", register, json!({"endpoint": "ftp://h"}).to_string(), 400, "http://HOST:PORT"),
        ("PUT", register, json!({"endpoint": format!("http://h/{long}")}).to_string(), 400, "at most 512"),
        ("PUT", "/proxy//register", json!({"endpoint": "http://h:1"}).to_string(), 400, "empty"),
        ("PUT", "/proxy/%zz/register", json!({"endpoint": "http://h:1"}).to_string(), 400, "percent"),
        ("PUT", "/proxy/%c3%a4/register", json!({"endpoint": "http://h:1"}).to_string(), 400, "ASCII"),
        ("PUT", "/proxy/q/activate", String::new(), 400, "not registered"),
        ("PUT", "/routes", "{}".into(), 400, "expected a sequence"),
        ("PUT", "/routes", "[1]".into(), 400, "expected struct"),
        ("PUT", "/routes", "[] []".into(), 400, "trailing"),
        (
            "PUT",
            "/routes",
            with(json!({"env_id": "e", "destination": "h:1"})),
            400,
            "route 2: `proxy_id` is missing",
        ),
        ("PUT", "/routes", with(json!({"proxy_id": "p", "destination": "h:1"})), 400, "`env_id` is missing"),
        ("PUT", "/routes", with(json!({"proxy_id": "p", "env_id": "e"})), 400, "`destination` is missing"),
        ("PUT", "/routes", with(route("p", "", "h:1")), 400, "`env_id` is empty"),
        ("PUT", "/routes", with(route("p", "é", "h:1")), 400, "ASCII"),
        ("PUT", "/routes", with(route("p", &long, "h:1")), 400, "513 bytes"),
        ("PUT", "/routes", with(route("p", "e", "h")), 400, "HOST:PORT"),
        ("PUT", "/routes", with(route("q", "e", "h:1")), 400, "\"q\" is not registered"),
        ("DELETE", "/routes", json!([{"proxy_id": "p"}]).to_string(), 400, "`env_id` is missing"),
        ("PUT", "/routes", " ".repeat(MOST + 1), 413, "several requests"),
        ("GET", "/routes", String::new(), 405, "PUT, DELETE"),
        ("POST", register, String::new(), 405, "PUT"),
        ("PUT", "/proxy/p", String::new(), 405, "DELETE"),
        ("DELETE", "/healthz", String::new(), 405, "GET"),
        ("PUT", "/proxy/p/else", String::new(), 404, "no such resource"),
        ("PUT", "/proxy/p/register/", String::new(), 404, "no such resource"),
        ("GET", "/", String::new(), 404, "no such resource"),
    ] {
        let (found, text) = it.ask(method, path, body).await;
        assert_eq!(found, status, "{method} {path}: {text}");
        assert!(text.contains(reason) && text.ends_with('\n'), "{method} {path}: {text:?} lacks {reason:?}");
    }
    assert_eq!(it.api.store.routes("p").await.expect("routes"), [].into());
    assert_eq!(it.api.store.proxies().await.expect("proxies"), [("p".into(), "http://h:1".into(), false)]);
}

#[tokio::test]
async fn a_method_that_is_not_allowed_names_those_that_are() {
    let it = Scene::new().await;
    let request = Request::get("/routes").body(Full::<Bytes>::default()).expect("a request");
    assert_eq!(it.api.answered(request).await.headers()[header::ALLOW], "PUT, DELETE");
}

#[tokio::test]
async fn a_database_that_fails_is_no_fault_of_the_client() {
    let it = Scene::new().await;
    it.good("PUT", "/proxy/p/register", &json!({"endpoint": "http://h:1"})).await;
    it.api.store.close().await;
    for (method, path, body) in [
        ("PUT", "/routes", json!([route("p", "e", "h:1")]).to_string()),
        ("PUT", "/proxy/p/activate", String::new()),
        ("GET", "/readyz", String::new()),
    ] {
        let (status, text) = it.ask(method, path, body).await;
        assert_eq!(
            (status, text.as_str()),
            (503, "the database fails; ask again later\n"),
            "{method} {path}"
        );
    }
    it.good("GET", "/healthz", &Value::Null).await;
}
