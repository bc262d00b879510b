//! Whose certificates `picop curl` takes.

use std::{io, path::Path, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    },
};

/// There is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file has no certificates.
    #[error("--cacert {path} has no certificates in PEM")]
    File {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    /// One of them is none.
    #[error("a certificate of --cacert {path} cannot be used")]
    Certificate {
        /// Of which file.
        path: String,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// The system has none.
    #[error(
        "this host trusts no authorities (Debian: apt-get install ca-certificates); --cacert FILE names one"
    )]
    Nobody(#[source] Option<io::Error>),
    /// The library offers no protocol.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Whom to trust: those of a file, those of the system, or whoever answers.
pub fn connector(authorities: Option<&Path>, is_insecure: bool) -> Result<TlsConnector, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?;
    let mut config = if is_insecure {
        let anybody = Arc::new(Anybody(provider));
        builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
    } else {
        let roots = authorities.map_or_else(of_system, of_file)?;
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn of_file(path: &Path) -> Result<RootCertStore, TrustError> {
    let name = || path.display().to_string();
    let none = |source| TrustError::File { path: name(), source };
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut roots = RootCertStore::empty();
    for certificate in all.map_err(|source| none(Some(source)))? {
        roots.add(certificate).map_err(|source| TrustError::Certificate { path: name(), source })?;
    }
    if roots.is_empty() { Err(none(None)) } else { Ok(roots) }
}

fn of_system() -> Result<RootCertStore, TrustError> {
    let mut found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some that a system has are too old for the library; the others are trusted.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(TrustError::Nobody(found.errors.pop().map(io::Error::other)));
    }
    Ok(roots)
}

/// Takes any certificate, of whoever has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
