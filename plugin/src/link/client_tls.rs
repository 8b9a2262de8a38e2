//! TLS towards a server of others.

use super::PEM_BYTES;
use crate::bounded_file;
use std::{
    io::{self, Error, ErrorKind},
    path::Path,
    sync::Arc,
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// Opens TLS on a connection to a host whose certificate one of the authorities in a PEM file has signed.
///
/// # Errors
/// The file has no authority, or the handshake fails.
pub async fn start_tls(stream: TcpStream, host: &str, authority: &Path) -> io::Result<TlsStream<TcpStream>> {
    let named = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::InvalidInput, format!("{}: {error}", authority.display()))
    };
    let pem = bounded_file::read(authority, PEM_BYTES).map_err(|error| named(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        // A bundle may hold one that this library does not take.
        let _ = roots.add(certificate.map_err(|error| named(&error))?);
    }
    if roots.is_empty() {
        return Err(named(&"there is no certificate"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(Error::other)?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
