//! `picop curl` by TLS, with authorities made here.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use super::super::curl;
use super::curl_args;
use crate::gateway::testing::{accept, expect, listener, of, within};

/// An authority, and its certificate in a file.
fn authority(dir: &Path, name: &str) -> (CertifiedIssuer<'static, KeyPair>, PathBuf) {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let own =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let path = dir.join(format!("{name}.pem"));
    fs::write(&path, own.pem()).expect("written");
    (own, path)
}

/// A server of localhost, whose certificate is of this authority, at the port that is returned; it wants a header first.
async fn server(issuer: &CertifiedIssuer<'static, KeyPair>, environment: Option<&'static str>) -> u16 {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], private)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, at) = listener().await;
    tokio::spawn(async move {
        loop {
            let mut stream = accept(&listener).await;
            if let Some(environment) = environment {
                expect(&mut stream, &of(environment)).await;
            }
            let answer = |_: Request<Incoming>| async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"by TLS\n"))))
            };
            // One that does not trust it is gone.
            if let Ok(stream) = acceptor.accept(stream).await {
                let serving =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
                drop(serving.await);
            }
        }
    });
    at.port()
}

async fn said(args: &[&str]) -> Result<String, String> {
    let mut out = Vec::new();
    match within(curl::run(curl_args(args), &mut out)).await {
        Ok(_) => Ok(String::from_utf8(out).expect("text")),
        Err(error) => Err(crate::telemetry::chain(&error)),
    }
}

#[tokio::test]
async fn the_header_goes_in_front_of_the_handshake() {
    let dir = tempfile::tempdir().expect("a directory");
    let (issuer, path) = authority(dir.path(), "own");
    let port = server(&issuer, Some("pr-1")).await;
    let url = format!("https://localhost:{port}/");
    let path = path.display().to_string();
    let answer = said(&["--env-id", "pr-1", "--url", &url, "--cacert", &path]).await;
    assert_eq!(answer.as_deref(), Ok("by TLS\n"));
}

#[tokio::test]
async fn whom_curl_trusts() {
    let dir = tempfile::tempdir().expect("a directory");
    let (issuer, own) = authority(dir.path(), "own");
    let (_, other) = authority(dir.path(), "other");
    let port = server(&issuer, None).await;
    let [by_name, by_address] = ["localhost", "127.0.0.1"].map(|host| format!("https://{host}:{port}/"));
    let [own, other] = [own, other].map(|path| path.display().to_string());
    assert_eq!(said(&["--url", &by_name, "--cacert", &own]).await.as_deref(), Ok("by TLS\n"));
    assert_eq!(said(&["--url", &by_name, "-k"]).await.as_deref(), Ok("by TLS\n"));
    assert_eq!(said(&["--url", &by_address, "-k"]).await.as_deref(), Ok("by TLS\n"));
    // Of another authority, for another name, of one that the system does not know.
    for args in [
        &["--url", &by_name, "--cacert", &other][..],
        &["--url", &by_address, "--cacert", &own],
        &["--url", &by_name],
    ] {
        let error = said(args).await.expect_err("not trusted");
        assert!(
            error.contains("no TLS with") || error.contains("trusts no authorities"),
            "{args:?}: {error}"
        );
    }
}

#[tokio::test]
async fn files_that_name_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "").expect("written");
    for path in [empty, dir.path().join("nowhere.pem")] {
        let path = path.display().to_string();
        let error = said(&["--url", "https://localhost:1/", "--cacert", &path]).await.expect_err("nobody");
        assert!(error.contains("has no certificates in PEM"), "{error}");
    }
}
