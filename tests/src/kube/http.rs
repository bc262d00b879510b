//! Requests and answers.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::discovery;
use super::path::{Named, Query, Selector, parse};
use super::store::Refused;
use super::watch::Watch;
use super::{Shared, TOKEN};

/// The largest object that is taken.
const MAX_BODY: usize = 1 << 20;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Takes connections until it is stopped.
pub(super) fn serve(listener: TcpListener, shared: &Arc<Shared>, stop: &Notify) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket of ours");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of ours");
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.map(|(stream, _)| stream),
                () = stop.notified() => return,
            };
            // A client that went before it was accepted.
            let Ok(stream) = stream else { continue };
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let mut there = shared.there.subscribe();
                if !*there.borrow_and_update() {
                    return;
                }
                let service = service_fn(|request| answer(request, Arc::clone(&shared)));
                let connection = hyper::server::conn::http1::Builder::new();
                let connection = connection.serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    // Clients may cut a connection whenever they like.
                    _ = connection => {}
                    // Any change: a cut may be over before it is seen.
                    _ = there.changed() => {}
                }
            });
        }
    });
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    if let Ok(mut requests) = shared.requests.lock() {
        requests.push(format!("{method} {uri}"));
    }
    let faults = shared.faults();
    if let Some(pause) = faults.slow {
        tokio::time::sleep(pause).await;
    }
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let known = faults.anonymous || token == Some(&format!("Bearer {TOKEN}"));
    if faults.unauthorized || !known {
        return Ok(refuse(401, "Unauthorized", "Unauthorized"));
    }
    if faults.forbidden {
        return Ok(refuse(403, "Forbidden", "the double forbids everything"));
    }
    let more = shared.more.lock().map(|more| more.clone()).unwrap_or_default();
    if let Some(found) = discovery::answer(uri.path(), &more).filter(|_| method == Method::GET) {
        return Ok(json_answer(200, &found));
    }
    let unknown = || refuse(404, "NotFound", "the server could not find the requested resource");
    let Some(named) = parse(uri.path()) else { return Ok(unknown()) };
    if named.kind.is_custom() && !shared.definitions.load(Ordering::Relaxed) {
        return Ok(unknown());
    }
    let query = Query::new(uri.query().unwrap_or_default());
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
        Err(error) => return Ok(refuse(400, "BadRequest", &error.to_string())),
    };
    Ok(match (method.clone(), &named.name) {
        (Method::POST | Method::PUT | Method::PATCH | Method::DELETE, _) => {
            write(&method, &named, body, &shared)
        }
        (Method::GET, None) if query.is("watch") => watch(&named, &query, shared),
        (Method::GET, None) => list(&named, &query, &shared),
        (Method::GET, Some(name)) => match shared.store().get(named.kind, &named.namespace, name) {
            Some(object) => json_answer(200, &object),
            None => unknown(),
        },
        _ => refuse(405, "MethodNotAllowed", "the double does not do that"),
    })
}

fn write(method: &Method, named: &Named, body: Value, shared: &Shared) -> Response<Body> {
    let written = shared.store().write(method.as_str(), named, body);
    match written {
        Ok((version, object)) => {
            shared.tell(version);
            json_answer(if method == Method::POST { 201 } else { 200 }, &object)
        }
        Err(Refused { code, reason, message }) => refuse(code, reason, &message),
    }
}

fn watch(named: &Named, query: &Query, shared: Arc<Shared>) -> Response<Body> {
    let watch = Watch::new(named.kind, Selector::new(&named.namespace, query), query);
    if shared.faults().gone_at_once && shared.store().since(watch.kind, watch.from).is_err() {
        return refuse(410, "Expired", "too old resource version");
    }
    let (lines_tx, lines_rx) = mpsc::channel(64);
    tokio::spawn(watch.run(shared, lines_tx));
    let stream = futures_util::stream::unfold(lines_rx, |mut lines| async {
        let line = lines.recv().await?;
        Some((line.map(Frame::data), lines))
    });
    let body = StreamBody::new(stream).boxed_unsync();
    Response::builder().header(CONTENT_TYPE, "application/json").body(body).expect("a plain answer")
}

fn list(named: &Named, query: &Query, shared: &Shared) -> Response<Body> {
    let token = query.get("continue");
    if token.is_some() && query.get("resourceVersion").is_some_and(|version| version != "0") {
        return refuse(400, "BadRequest", "specifying resource version is not allowed when using continue");
    }
    let limit = query.number("limit").filter(|limit| *limit > 0);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let selector = Selector::new(&named.namespace, query);
    let page = shared.store().list(named.kind, &selector, limit, token);
    let Ok(page) = page else {
        return refuse(410, "Expired", "The provided continue parameter is too old");
    };
    let (api_version, kind, ..) = named.kind.names();
    let mut items = page.items;
    if !named.kind.is_custom() {
        // Built-in kinds leave out in lists what the list's own kind says.
        for object in items.iter_mut().filter_map(Value::as_object_mut) {
            object.remove("apiVersion");
            object.remove("kind");
        }
    }
    let metadata =
        json!({"resourceVersion": page.version.to_string(), "continue": page.token.unwrap_or_default()});
    json_answer(
        200,
        &json!({"apiVersion": api_version, "kind": format!("{kind}List"), "metadata": metadata, "items": items}),
    )
}

/// A `Status`, as the API server explains itself.
pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn refuse(code: u16, reason: &str, message: &str) -> Response<Body> {
    json_answer(code, &status(code, reason, message))
}

fn json_answer(code: u16, value: &Value) -> Response<Body> {
    let body = Full::from(value.to_string()).map_err(|never| match never {}).boxed_unsync();
    let answer = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    answer.body(body).expect("a plain answer")
}
