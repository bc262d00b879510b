//! The certificate that clients are shown, read again when its files change.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::telemetry::chain;

/// HTTP/1.1 among the protocols that client and server agree on in TLS (RFC 7301).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// How often the files are looked at: directories of Kubernetes secrets are swapped as a whole, which not every watch notices.
const LOOK: Duration = Duration::from_secs(2);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file has none of what it should have.
    #[error("{path} has no {what} in PEM")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
        /// Why not.
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    /// They are of no use.
    #[error("{cert} and {key} cannot be used; is the key that of the first certificate?")]
    Pair {
        /// The certificates.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// Device, inode, size and times: other marks mean another content, most likely.
type Mark = (u64, u64, u64, (i64, i64), (i64, i64));

fn mark(path: &Path) -> Option<Mark> {
    let it = fs::metadata(path).ok()?;
    Some((it.dev(), it.ino(), it.size(), (it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec())))
}

/// Those of both files.
type Marks = (Option<Mark>, Option<Mark>);

/// A certificate and its key, as last read.
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
    /// What was read first.
    first: Marks,
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn read(cert: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        // Looked at before they are read: a change in between is noticed then.
        let first = (mark(&cert), mark(&key));
        let config = ArcSwap::from(load(&cert, &key)?);
        Ok(Self { cert, key, config, first })
    }

    /// For a new connection. Those that are open keep what they began with.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Reads both again. On an error the last ones stay.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(load(&self.cert, &self.key)?);
        Ok(())
    }

    /// Reads them whenever they have changed, for ever.
    pub async fn follow(&self) {
        let mut seen = self.first;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.marks();
            if now == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => tracing::info!(cert = %self.cert.display(), "the certificate was read again"),
                // Both files are hardly ever replaced at once: the next look finds the other one.
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "a new certificate is not used; the last one stays"
                    );
                }
            }
            seen = now;
        }
    }

    fn marks(&self) -> Marks {
        (mark(&self.cert), mark(&self.key))
    }
}

fn load(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let read =
        |path: &Path| fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
    let pem = |path: &Path, what, source| TlsError::Pem { path: path.to_owned(), what, source };
    let chain = CertificateDer::pem_slice_iter(&read(cert)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|source| pem(cert, "certificate", Some(source)))?;
    if chain.is_empty() {
        return Err(pem(cert, "certificate", None));
    }
    let private =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|source| pem(key, "private key", Some(source)))?;
    let pair = |source| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
