//! Asking an agent, for the command line.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
};

use super::api::Problem;

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("no agent answers at {path}; is it running, and is this its --admin-socket?")]
    Nobody {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not for this user.
    #[error("the agent's socket {0} is its owner's only; run this as the same user (root, most likely)")]
    Denied(PathBuf),
    /// The connection broke.
    #[error("the agent ended in the middle of its answer")]
    Broken(#[source] hyper::Error),
    /// A runtime cannot be had.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
    /// It says why not.
    #[error("{0}")]
    Refused(String),
    /// It is not understood.
    #[error("the agent's answer is not understood; is it of another version?")]
    Answer(#[source] serde_json::Error),
}

/// A connection to an agent.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
        let sender = runtime.block_on(async {
            let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Denied(path.to_owned()),
                _ => ClientError::Nobody { path: path.to_owned(), source },
            })?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
            // Its end shows in the answers.
            tokio::spawn(async move { drop(connection.await) });
            Ok(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// Asks for `path`, and reads the answer.
    pub fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        let body = self.ask(Method::GET, path, Bytes::new())?;
        serde_json::from_slice(&body).map_err(ClientError::Answer)
    }

    /// The answer as it is.
    pub fn raw(&mut self, path: &str) -> Result<Bytes, ClientError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Changes what is at `path`.
    pub fn put<T: DeserializeOwned>(&mut self, path: &str, value: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(value).map_err(ClientError::Answer)?;
        let body = self.ask(Method::PUT, path, body.into())?;
        serde_json::from_slice(&body).map_err(ClientError::Answer)
    }

    /// Reads an answer without end, line by line, until `line` says that it is enough.
    pub fn lines(&mut self, path: &str, mut line: impl FnMut(&[u8]) -> bool) -> Result<(), ClientError> {
        let sender = &mut self.sender;
        self.runtime.block_on(async {
            let mut body = send(sender, Method::GET, path, Bytes::new()).await?;
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() else { continue };
                pending.extend_from_slice(&data);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let rest = pending.split_off(end + 1);
                    let whole = std::mem::replace(&mut pending, rest);
                    let whole = whole.trim_ascii();
                    if !whole.is_empty() && !line(whole) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let sender = &mut self.sender;
        self.runtime.block_on(async {
            let body = send(sender, method, path, body).await?;
            Ok(body.collect().await.map_err(ClientError::Broken)?.to_bytes())
        })
    }
}

async fn send(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Incoming, ClientError> {
    sender.ready().await.map_err(ClientError::Broken)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .body(Full::new(body))
        .expect("a path and a method");
    let answer = sender.send_request(request).await.map_err(ClientError::Broken)?;
    let (head, body) = answer.into_parts();
    if head.status == StatusCode::OK {
        return Ok(body);
    }
    let body = body.collect().await.map_err(ClientError::Broken)?.to_bytes();
    Err(ClientError::Refused(match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => problem.error,
        Err(_) => format!("{}: {}", head.status, String::from_utf8_lossy(&body).trim()),
    }))
}
