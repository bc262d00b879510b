use std::net::SocketAddr;

use hyper::Uri;

use super::*;
use crate::gateway::{
    ask::Asked,
    testing::{listener, text, within},
};

async fn start() -> (SocketAddr, Arc<Table>, Life) {
    let (listener, at) = listener().await;
    let (table, life) = (Arc::new(Table::default()), Life::default());
    let (told, serving) = (Arc::clone(&table), life.clone());
    let accepting = life.accept(listener, 10, |_| {
        let (told, serving) = (Arc::clone(&told), serving.clone());
        move |client, _| serve(Arc::clone(&told), serving.clone(), client)
    });
    accepting.expect("a listener");
    (at, table, life)
}

async fn ask(at: SocketAddr, method: Method, path: &str, body: &str) -> (u16, String) {
    let url: Uri = format!("http://{at}{path}").parse().expect("a URL");
    let mut asked = within(Asked::connect(&url, &[], HEAD)).await.expect("a connection");
    let request = Request::builder().method(method).uri(url).body(Full::new(body.to_owned().into()));
    let answer = within(asked.ask(request.expect("a request"))).await.expect("an answer");
    (answer.status().as_u16(), text(answer).await)
}

#[tokio::test]
async fn every_status() {
    let (at, table, _life) = start().await;
    let two = r#"[{"env_id":"pr-1","destination":"10.0.0.7:80"},{"env_id":"a b","destination":"cart:80"}]"#;
    let one = r#"{"env_id":"pr-1","destination":"10.0.0.7:80"}"#;
    let space = r#"{"env_id":"a b","destination":"cart:80"}"#;
    let half = r#"[{"env_id":"pr-9","destination":"a:1"},{"env_id":"pr-2"}]"#;
    for (method, path, body, status, answer) in [
        (Method::GET, "/admin/env/pr-1", "", 404, "no such environment"),
        (Method::PUT, "/admin/envs", two, 200, ""),
        (Method::GET, "/admin/env/pr-1", "", 200, one),
        (Method::GET, "/admin/env/a%20b", "", 200, space),
        (Method::PUT, "/admin/envs", half, 400, "entry 1 has no destination"),
        (Method::GET, "/admin/env/pr-9", "", 404, "no such environment"),
        (Method::PUT, "/admin/envs", "no json", 400, "list"),
        (Method::PUT, "/admin/envs", "[]", 200, ""),
        (Method::DELETE, "/admin/env/pr-1", "", 200, ""),
        (Method::GET, "/admin/env/pr-1", "", 404, "no such environment"),
        (Method::DELETE, "/admin/env/pr-1", "", 200, ""),
        (Method::GET, "/admin/env/%0a", "", 400, "no name"),
        (Method::GET, "/admin/env/", "", 404, "/admin/env/{env-id}"),
        (Method::GET, "/admin/envs", "", 405, "PUT"),
        (Method::POST, "/admin/env/pr-1", "", 405, "GET, DELETE"),
        (Method::GET, "/", "", 404, "/admin/envs"),
        (Method::GET, "/metrics", "", 200, "picop_gateway_connections 0\n"),
        (Method::GET, "/healthz", "", 200, "live"),
        (Method::PUT, "/metrics", "", 404, "/admin/envs"),
    ] {
        let got = ask(at, method.clone(), path, body).await;
        assert_eq!(got.0, status, "{method} {path} {body}: {}", got.1);
        assert!(
            got.1.contains(answer) && got.1.is_empty() == answer.is_empty(),
            "{method} {path}: {}",
            got.1
        );
    }
    assert_eq!(table.get("a b").as_deref(), Some("cart:80"));
}

#[tokio::test]
async fn a_body_that_is_too_large() {
    let (at, table, _life) = start().await;
    let entry = r#"{"env_id":"pr-1","destination":"10.0.0.7:80"},"#;
    let body = format!("[{}", entry.repeat(MAX_BODY / entry.len() + 1));
    assert_eq!(ask(at, Method::PUT, "/admin/envs", &body).await.0, 413);
    assert_eq!(table.get("pr-1"), None);
}
