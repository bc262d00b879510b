//! Asking an HTTP/1.1 server for something, once, over a connection that may begin with a header.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::stream::{OpenError, open};

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It is no URL that can be asked.
    #[error("{0} cannot be asked: write http://HOST[:PORT]/PATH (where TLS is spoken, https:// too)")]
    Url(Uri),
    /// There is no connection.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its name cannot be in a certificate.
    #[error("{0} is no name that a certificate could have")]
    Name(String),
    /// No TLS.
    #[error(
        "no TLS with {destination}; --cacert FILE names an authority to trust, and -k asks for no certificate"
    )]
    Tls {
        /// Where to.
        destination: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake takes too long.
    #[error(
        "{destination} did not finish a TLS handshake within {waited:?}; does it speak TLS at that port?"
    )]
    SlowTls {
        /// Where to.
        destination: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The connection is of no use.
    #[error("the connection to {destination} is gone")]
    Gone {
        /// Where to.
        destination: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It broke, or something else than HTTP came.
    #[error("{destination} did not answer in HTTP/1.1")]
    Http {
        /// Who.
        destination: String,
        /// How.
        #[source]
        source: hyper::Error,
    },
}

/// A connection to the server of a URL.
pub struct Asked {
    destination: String,
    /// This side's address, as the server sees it where nothing translates addresses.
    pub local: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

/// `host:port` of an `http` URL.
pub fn destination(url: &Uri) -> Result<String, AskError> {
    match (url.scheme_str(), url.host()) {
        (Some("http"), Some(host)) if !host.is_empty() => Ok(format!("{host}:{}", port(url, 80)?)),
        _ => Err(AskError::Url(url.clone())),
    }
}

/// The port that a URL names, or else this one.
fn port(url: &Uri, default: u16) -> Result<u16, AskError> {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let named = authority.rsplit('@').next().filter(|at| url.host() != Some(at));
    match (named, url.port_u16()) {
        (None, _) => Ok(default),
        (_, Some(port)) if port > 0 => Ok(port),
        // Of one that is too large, `Uri` says that there is none.
        _ => Err(AskError::Url(url.clone())),
    }
}

impl Asked {
    /// Connects, and sends `header` first.
    pub async fn connect(url: &Uri, header: &[u8], patience: Duration) -> Result<Self, AskError> {
        let destination = destination(url)?;
        let stream = open(&destination, header, patience).await?;
        let gone = |source| AskError::Gone { destination: destination.clone(), source };
        let local = stream.local_addr().map_err(gone)?;
        Self::over(stream, destination, local).await
    }

    /// The same by TLS, of which the header is no part: it goes in front, where whoever routes can read it.
    pub async fn connect_tls(
        url: &Uri,
        header: &[u8],
        patience: Duration,
        connector: &TlsConnector,
    ) -> Result<Self, AskError> {
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(|| AskError::Url(url.clone()))?;
        let destination = format!("{host}:{}", port(url, 443)?);
        // Addresses of IPv6 are in brackets in URLs, and not in certificates.
        let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| AskError::Name(name.to_owned()))?;
        let stream = open(&destination, header, patience).await?;
        let gone = |source| AskError::Gone { destination: destination.clone(), source };
        let local = stream.local_addr().map_err(gone)?;
        let stream = timeout(patience, connector.connect(name, stream))
            .await
            .map_err(|_| AskError::SlowTls { destination: destination.clone(), waited: patience })?
            .map_err(|source| AskError::Tls { destination: destination.clone(), source })?;
        Self::over(stream, destination, local).await
    }

    async fn over<S>(stream: S, destination: String, local: SocketAddr) -> Result<Self, AskError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| AskError::Http { destination: destination.clone(), source })?;
        // Its end shows in the answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { destination, local, sender })
    }

    /// Sends a request for a whole URL.
    pub async fn ask(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, AskError> {
        let url = request.uri().clone();
        if !request.headers().contains_key(HOST)
            && let Some(host) = url.authority().map(|authority| {
                // Without a user's name, which is nobody's business.
                authority.as_str().rsplit('@').next().unwrap_or_default()
            })
            && let Ok(host) = HeaderValue::from_str(host)
        {
            request.headers_mut().insert(HOST, host);
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
        self.sender
            .send_request(request)
            .await
            .map_err(|source| AskError::Http { destination: self.destination.clone(), source })
    }
}
