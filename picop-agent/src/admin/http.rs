//! HTTP/1.1 on the admin socket and on TCP.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{api, state::State};

/// Connections at once, of each listener. Those after them wait.
const CONNECTIONS: usize = 64;
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// What is answered.
pub type Answer = Response<BoxBody<Bytes, Infallible>>;

/// How far whoever asks is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The owner of the Unix socket: everything.
    Owner,
    /// Whoever reaches the port of `--http`: reading.
    Reader,
    /// Whoever reaches the port of `--metrics`: numbers, and whether the agent is well.
    Numbers,
}

/// Answers on a Unix socket.
pub async fn serve_unix(listener: UnixListener, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = place(&places).await;
        match listener.accept().await {
            Ok((stream, _)) => serve(TokioIo::new(stream), Access::Owner, &state, place),
            Err(error) => pause(&error).await,
        }
    }
}

/// Answers on a TCP port.
pub async fn serve_tcp(listener: TcpListener, access: Access, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = place(&places).await;
        match listener.accept().await {
            Ok((stream, _)) => serve(TokioIo::new(stream), access, &state, place),
            Err(error) => pause(&error).await,
        }
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(places).acquire_owned().await.expect("nobody closes it")
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept on an admin listener");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn serve<S>(stream: S, access: Access, state: &Arc<State>, place: OwnedSemaphorePermit)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let answer = service_fn(|request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(checked(&state, access, request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(stream, answer)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a client of the admin API is gone");
        }
        drop(place);
    });
}

async fn checked(state: &Arc<State>, access: Access, request: Request<Incoming>) -> Answer {
    if access != Access::Owner && !is_asked_by_address(&request) {
        // A name that leads here may be anybody's: a web page could have a browser ask for it (DNS rebinding).
        return text(StatusCode::FORBIDDEN, "ask by IP address or as localhost\n");
    }
    api::answer(state, access, request).await
}

fn is_asked_by_address(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return true; // HTTP/1.0; no browser.
    };
    is_address(host)
}

/// Whether the host of a `Host` is an address, or this machine.
fn is_address(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// An answer of plain text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    whole(status, "text/plain; charset=utf-8", text.into())
}

/// An answer that is there at once.
pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_nobodys() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:9090", "10.0.0.1", "[::1]:80", "[fd00::1]"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["", "evil.example:9090", "127.0.0.1.nip.io", "[evil]", "1.2.3"] {
            assert!(!is_address(host), "{host}");
        }
    }
}
