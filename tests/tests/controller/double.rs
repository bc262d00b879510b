//! A proxy's admin API, which answers badly, late or not at all every now and then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Result;

/// How late a message may be.
const LATE: Duration = Duration::from_millis(700);

/// Environments, and where they go.
pub type Table = BTreeMap<String, String>;

/// A proxy's double. It stops when it is dropped.
pub struct Double {
    at: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    table: Mutex<Table>,
    requests: AtomicU64,
    /// Whether it misbehaves.
    faults: bool,
    /// Whether it takes nothing at all.
    away: AtomicBool,
}

/// What a message says.
enum Change {
    Put(Vec<(String, String)>),
    Delete(String),
}

impl Double {
    pub async fn start(faults: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            requests: AtomicU64::new(0),
            faults,
            away: AtomicBool::new(false),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { at, shared, serving })
    }

    /// Where a controller finds it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.at)
    }

    pub fn table(&self) -> Table {
        self.shared.table().clone()
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Takes nothing from here on, or everything again.
    pub fn goes_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// As one that was restarted.
    pub fn forget(&self) {
        self.shared.table().clear();
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, change: Change) {
        let mut table = self.table();
        match change {
            Change::Put(routes) => table.extend(routes),
            Change::Delete(env) => drop(table.remove(&env)),
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&shared)));
            let connection = hyper::server::conn::http1::Builder::new();
            // Controllers are killed, and this drops connections itself.
            connection.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

/// An error drops the connection.
async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> std::result::Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let Some(change) = read(request).await? else {
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = hyper::StatusCode::BAD_REQUEST;
        return Ok(answer);
    };
    if shared.away.load(Ordering::SeqCst) {
        return Err("away".into());
    }
    if shared.faults {
        if number.is_multiple_of(7) {
            return Err("lost before it was taken".into());
        }
        if number.is_multiple_of(11) {
            shared.apply(change);
            return Err("lost after it was taken".into());
        }
        if number.is_multiple_of(13) {
            tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                shared.apply(change);
            });
            return Err("late".into());
        }
    }
    shared.apply(change);
    Ok(Response::new(Full::default()))
}

async fn read(request: Request<Incoming>) -> std::result::Result<Option<Change>, hyper::Error> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await?.to_bytes();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(match (method, path.as_str()) {
        (Method::PUT, "/admin/envs") => {
            let Ok(list) = serde_json::from_slice::<Vec<Value>>(&body) else { return Ok(None) };
            let routes = list.iter().map(|one| Some((text(&one["env_id"])?, text(&one["destination"])?)));
            routes.collect::<Option<_>>().map(Change::Put)
        }
        (Method::DELETE, path) => path.strip_prefix("/admin/env/").map(|env| Change::Delete(env.to_owned())),
        _ => None,
    })
}

#[tokio::test]
async fn it_speaks_the_admin_api() -> Result {
    let double = Double::start(false).await?;
    let ask = async |method: &str, path: &str, body: &str| {
        crate::http::ask(double.at, method, path, body.to_owned()).await
    };
    let good = (200, String::new());
    let put = r#"[{"env_id":"a","destination":"h:1"},{"env_id":"b","destination":"h:2"}]"#;
    assert_eq!(ask("PUT", "/admin/envs", put).await?, good);
    assert_eq!(ask("DELETE", "/admin/env/a", "").await?, good);
    assert_eq!(ask("PUT", "/admin/envs", r#"[{"env_id":"c"}]"#).await?.0, 400);
    assert_eq!(double.table(), [("b".to_owned(), "h:2".to_owned())].into());
    assert_eq!(double.requests(), 3);
    Ok(())
}
