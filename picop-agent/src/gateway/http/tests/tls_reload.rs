//! Certificates that change while the gateway runs.

use std::{fs, path::Path};

use http_body_util::Full;
use hyper::{StatusCode, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};

use super::{super::*, scene::*};
use crate::gateway::testing::{connect, text, within};

const HOST: &str = "pr-1.preview.localhost";

/// Writes a new pair; its certificate.
fn renew(dir: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([HOST.to_owned()]).expect("a pair");
    fs::write(dir.join("tls.crt"), cert.pem()).expect("written");
    fs::write(dir.join("tls.key"), signing_key.serialize_pem()).expect("written");
    cert.into()
}

/// A connection of a client that trusts this certificate alone.
async fn trusting(
    root: &CertificateDer<'static>,
    at: std::net::SocketAddr,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(HOST).expect("a name");
    within(TlsConnector::from(Arc::new(config)).connect(name, connect(at).await)).await
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = renew(dir.path());
    let read = Certificate::read(dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let certificate = Arc::new(read.expect("a pair"));
    let (server, _) = server().await;
    let (at, _edge) = begin(edge_to(server, &Life::default()), Some(Arc::clone(&certificate))).await;

    let tls = trusting(&first, at, b"h2").await.expect("a connection");
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut old, connection) =
        http2::handshake::<_, _, Full<bytes::Bytes>>(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let ask = || {
        let uri = format!("https://{HOST}/x");
        hyper::Request::get(uri).body(Full::default()).expect("a request")
    };
    let answer = within(old.send_request(ask())).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(text(answer).await, format!("pr-1 /x {HOST} https "));

    // What cannot be used changes nothing.
    fs::write(dir.path().join("tls.key"), "no key").expect("written");
    assert!(certificate.reload().is_err());
    trusting(&first, at, b"http/1.1").await.expect("the last one stays");

    let second = renew(dir.path());
    certificate.reload().expect("a pair");
    assert!(trusting(&first, at, b"h2").await.is_err(), "it still shows the old one");
    trusting(&second, at, b"http/1.1").await.expect("the new one");
    let answer = within(old.send_request(ask())).await.expect("an answer on the old connection");
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn changed_files_are_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = renew(dir.path());
    let read = Certificate::read(dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let certificate = Arc::new(read.expect("a pair"));
    let (server, _) = server().await;
    let (at, edge) = begin(edge_to(server, &Life::default()), Some(Arc::clone(&certificate))).await;
    trusting(&first, at, b"http/1.1").await.expect("a connection");
    // Also if they change before anybody follows them.
    let second = renew(dir.path());
    until_stopped(&edge.life, async move { certificate.follow().await });
    let noticed = async { while trusting(&second, at, b"http/1.1").await.is_err() {} };
    within(noticed).await;
    let second = renew(dir.path());
    let noticed = async { while trusting(&second, at, b"http/1.1").await.is_err() {} };
    within(noticed).await;
}
