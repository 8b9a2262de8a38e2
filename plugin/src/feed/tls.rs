//! TLS of the feed: the controller's certificate, read again when its files change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        version::TLS13,
    },
};

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, and those up to the authority: PEM.
    pub certificate: PathBuf,
    /// The key: PEM.
    pub key: PathBuf,
}

/// Accepts connections with the certificate as its files are now.
#[derive(Debug)]
pub struct Tls {
    files: Certificate,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    changed: Option<(SystemTime, SystemTime)>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("changed", &self.changed).finish_non_exhaustive()
    }
}

impl Tls {
    /// With the certificate of these files.
    ///
    /// # Errors
    /// They can't be read, or are not a certificate and its key.
    pub fn new(files: Certificate) -> io::Result<Self> {
        let (changed, acceptor) = (files.changed(), files.read()?);
        Ok(Self { files, current: Mutex::new(Current { acceptor, changed }) })
    }

    /// For the next connection. New files that are not good leave the old ones in use.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        // What is behind the lock is replaced as a whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.files.changed();
        if changed != current.changed {
            match self.files.read() {
                Ok(acceptor) => {
                    *current = Current { acceptor, changed };
                    tracing::info!(file = %self.files.certificate.display(), "the new certificate is in use");
                }
                Err(error) => {
                    current.changed = changed;
                    tracing::error!(%error, "the new certificate is refused; the old one stays in use");
                }
            }
        }
        current.acceptor.clone()
    }
}

impl Certificate {
    fn changed(&self) -> Option<(SystemTime, SystemTime)> {
        let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        Some((changed(&self.certificate)?, changed(&self.key)?))
    }

    fn read(&self) -> io::Result<TlsAcceptor> {
        let named = |path: &Path, error: &dyn std::fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        };
        let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| named(&self.certificate, &error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| named(&self.key, &error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| named(&self.certificate, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
