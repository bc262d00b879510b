//! Asking the APIs that controllers and proxies have for each other.
use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, Uri, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

use crate::telemetry::chain;

/// How long whoever is asked may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(4);

/// As much of an answer is read. More of a reason nobody wants.
const MOST: usize = 64 << 10;

/// What became of a message that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It was not sent.
    #[error("cannot connect to {at}; does it run there, and may it be reached from here?")]
    Connect {
        /// Where.
        at: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It may have arrived, or may yet.
    #[error("no answer to {what}: {why}")]
    NoAnswer {
        /// The request.
        what: String,
        /// Why not.
        why: String,
    },
    /// It arrived, and was refused.
    #[error("{what} was answered {status}: {body:?}")]
    Refused {
        /// The request.
        what: String,
        /// How.
        status: StatusCode,
        /// The answer.
        body: String,
    },
}

/// Why there is no answer.
enum Failed {
    Connect(AskError),
    Http(hyper::Error),
}

impl From<AskError> for Failed {
    fn from(error: AskError) -> Self {
        Self::Connect(error)
    }
}

/// Whoever is asked. There is a connection while it is of use.
#[derive(Debug)]
pub struct Client {
    endpoint: String,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    task: AbortHandle,
    /// This side's address.
    local: SocketAddr,
}

impl Client {
    /// The API at `endpoint`, such as `http://10.0.0.7:9001`. It is connected to when there is something to say.
    pub fn new(endpoint: &str) -> Self {
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), connection: None }
    }

    /// Whether this is the API at `endpoint`.
    pub fn is_at(&self, endpoint: &str) -> bool {
        self.endpoint == endpoint.trim_end_matches('/')
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// When it cannot be sent, is not answered, or is not answered with success.
    pub async fn ask(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<(), AskError> {
        let url = format!("{}{path}", self.endpoint);
        let what = format!("{method} {url}");
        let no_answer = |why: String| AskError::NoAnswer { what: what.clone(), why };
        let uri: Uri = url.parse().map_err(|_| self.not_an_address())?;
        let host = uri.authority().ok_or_else(|| self.not_an_address())?.clone();
        let request = Request::builder()
            .method(method)
            .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, host.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
            .map_err(|_| self.not_an_address())?;
        let asked = async {
            let answer = self.sent(&uri, request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MOST).collect().await;
            Ok((status, body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned())))
        };
        let asked = timeout(ANSWER, asked).await;
        if !matches!(asked, Ok(Ok((_, Ok(_))))) {
            self.disconnect();
        }
        let (status, body) = match asked {
            // Also if the rest of the answer is not to be had: its status has been said.
            Ok(Ok((status, body))) => (status, body.unwrap_or_default()),
            Ok(Err(Failed::Connect(error))) => return Err(error),
            Ok(Err(Failed::Http(error))) => return Err(no_answer(chain(&error))),
            Err(_) => return Err(no_answer(format!("not within {ANSWER:?}"))),
        };
        if status.is_success() {
            return Ok(());
        }
        let body = body.trim().chars().take(200).collect();
        Err(AskError::Refused { what, status, body })
    }

    /// Sends a request, on a new connection if the last one turns out to be closed.
    async fn sent(
        &mut self,
        uri: &Uri,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failed> {
        loop {
            let is_new = self.connection.is_none();
            let mut failed = match self.connected(uri).await?.sender.try_send_request(request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            match failed.take_message() {
                // Nothing of it was sent.
                Some(unsent) if !is_new => request = unsent,
                _ => return Err(Failed::Http(failed.into_error())),
            }
            self.disconnect();
        }
    }

    /// Endpoints are checked where they come from. This one comes from elsewhere: a person has written it into the
    /// database.
    fn not_an_address(&self) -> AskError {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no URL of HTTP");
        AskError::Connect { at: self.endpoint.clone(), source }
    }

    async fn connected(&mut self, uri: &Uri) -> Result<&mut Connection, AskError> {
        if self.connection.as_ref().is_some_and(|it| it.sender.is_closed()) {
            self.disconnect();
        }
        if self.connection.is_none() {
            let failed = |source| AskError::Connect { at: self.endpoint.clone(), source };
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(80);
            let stream = match timeout(CONNECT, TcpStream::connect((host, port))).await {
                Ok(stream) => stream.map_err(failed)?,
                Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
            };
            let local = stream.local_addr().map_err(failed)?;
            // It matters little if it is not to be had.
            stream.set_nodelay(true).ok();
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| failed(io::Error::other(error)))?;
            let task = tokio::spawn(async move {
                // Told to whoever asks.
                connection.await.ok();
            });
            self.connection = Some(Connection { sender, task: task.abort_handle(), local });
        }
        Ok(self.connection.as_mut().expect("made above"))
    }

    /// This side's address of the connection: where whoever is asked can reach this machine.
    ///
    /// # Errors
    /// When there can be no connection.
    pub async fn local(&mut self) -> Result<SocketAddr, AskError> {
        let uri: Uri = self.endpoint.parse().map_err(|_| self.not_an_address())?;
        Ok(self.connected(&uri).await?.local)
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.task.abort();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
    }
}

#[cfg(test)]
mod tests;
