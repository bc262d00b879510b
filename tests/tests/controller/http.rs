//! Requests, one a connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Result;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks, and returns the status and the text.
pub async fn ask(at: SocketAddr, method: &str, path: &str, body: String) -> Result<(u16, String)> {
    let asked = async {
        let stream = TcpStream::connect(at).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", at.to_string());
        let answer = sender.send_request(request.body(Full::<Bytes>::from(body))?).await?;
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    };
    timeout(PATIENCE, asked).await.with_context(|| format!("{method} {path}: no answer"))?
}
