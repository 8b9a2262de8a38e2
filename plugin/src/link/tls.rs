//! TLS of our servers: certificates that are read again when their files change, and handshakes.

use super::{Admission, LogLimit, PEM_BYTES, Permit};
use crate::{bounded_file, watched::Stamp};
use std::{
    fmt,
    io::{self, Error, ErrorKind},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
        version::TLS13,
    },
    server::TlsStream,
};
use tokio_util::{either::Either, sync::CancellationToken};

/// The time limit of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait where no connection can be accepted, for want of files perhaps.
const PAUSE: Duration = Duration::from_millis(100);

/// The files of a server's certificate, and of the authorities of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate with its intermediate certificates, as PEM.
    pub certificate: PathBuf,
    /// The key, as PEM.
    pub key: PathBuf,
    /// The authorities that must have signed a client's certificate, as PEM. If empty, clients need no certificate.
    pub client_authorities: Vec<PathBuf>,
}

/// Accepts TLS connections, always with the current certificate.
#[derive(Debug)]
pub struct Tls {
    /// The server's name, for metrics and the log.
    pub server: &'static str,
    /// Failed handshakes.
    pub refused: AtomicU64,
    files: Files,
    current: Mutex<Current>,
    log: LogLimit,
}

#[derive(Debug)]
struct Current {
    in_use: Option<Certificate>,
    stamps: Vec<Option<Stamp>>,
}

#[derive(Clone)]
struct Certificate {
    acceptor: TlsAcceptor,
    expires: SystemTime,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Tls {
    /// Loads the certificate from these files.
    ///
    /// # Errors
    /// The files can't be read, or are not a certificate and its key.
    pub fn new(server: &'static str, files: Files) -> io::Result<Self> {
        let (stamps, in_use) = (files.stamps(), files.read()?);
        Ok(Self::with(server, files, Current { in_use: Some(in_use), stamps }))
    }

    /// Loads the certificate; while the files are missing or invalid, connections are refused.
    pub fn waiting(server: &'static str, files: Files) -> Self {
        let (stamps, read) = (files.stamps(), files.read());
        if let Err(error) = &read {
            tracing::error!(server, %error, "the certificate can't be read yet; connections are refused until it can");
        }
        Self::with(server, files, Current { in_use: read.ok(), stamps })
    }

    fn with(server: &'static str, files: Files, current: Current) -> Self {
        Self { server, refused: AtomicU64::new(0), files, current: Mutex::new(current), log: LogLimit::default() }
    }

    /// The expiry of the current certificate; `None` without one.
    pub fn expires(&self) -> Option<SystemTime> {
        self.lock().in_use.as_ref().map(|certificate| certificate.expires)
    }

    /// The acceptor for the next connection. Invalid new files leave the old certificate in use.
    fn acceptor(&self) -> Option<TlsAcceptor> {
        // The files are checked before the lock is taken, so that a slow disk delays only this connection.
        let stamps = self.files.stamps();
        let (server, mut current) = (self.server, self.lock());
        if stamps != current.stamps {
            let file = self.files.certificate.display();
            match self.files.read() {
                Ok(certificate) => {
                    current.in_use = Some(certificate);
                    tracing::info!(server, %file, "the new certificate is in use");
                }
                Err(error) => tracing::error!(server, %error, "the new certificate is refused"),
            }
            current.stamps = stamps;
        }
        current.in_use.as_ref().map(|certificate| certificate.acceptor.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // The value behind the lock is only ever replaced as a whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs the handshake with a client, or logs the reason of a failure.
    async fn agree(&self, stream: TcpStream, from: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let agreed = match self.acceptor() {
            Some(acceptor) => {
                let late = |_| Err(Error::new(ErrorKind::TimedOut, "the handshake took too long"));
                timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.unwrap_or_else(late)
            }
            None => Err(Error::other("there is no certificate yet")),
        };
        agreed
            .inspect_err(|error| {
                self.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(left_out) = self.log.line() {
                    tracing::warn!(server = self.server, %from, %error, left_out, "the TLS handshake failed");
                }
            })
            .ok()
    }
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_authorities)
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.all().map(|path| Stamp::of(path)).collect()
    }

    fn read(&self) -> io::Result<Certificate> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&pem(&self.key)?).map_err(|error| named(&self.key, &error))?;
        let expires = chain.first().and_then(expires);
        let expires = expires.ok_or_else(|| named(&self.certificate, &"it holds no certificate"))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(Error::other)?;
        let builder = match &*self.client_authorities {
            [] => builder.with_no_client_auth(),
            files => builder.with_client_cert_verifier(verifier(files, provider)?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| named(&self.certificate, &error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Certificate { acceptor: TlsAcceptor::from(Arc::new(config)), expires })
    }
}

/// Requires a certificate of one of these authorities.
fn verifier(
    authorities: &[PathBuf],
    provider: Arc<CryptoProvider>,
) -> io::Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for path in authorities {
        for authority in certificates(path)? {
            roots.add(authority).map_err(|error| named(path, &error))?;
        }
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| named(authorities.first().map_or(Path::new(""), |path| path), &error))
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(&pem(path)?).collect::<Result<_, _>>().map_err(|error| named(path, &error))
}

fn pem(path: &Path) -> io::Result<Vec<u8>> {
    bounded_file::read(path, PEM_BYTES).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

fn expires(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.to_datetime().into())
}

/// A connection with or without TLS.
pub type Connection = Either<TlsStream<TcpStream>, TcpStream>;

/// A connection that has come, and its place.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub stream: Connection,
    /// The client's address.
    pub from: SocketAddr,
    /// It is to be closed when this place is another's.
    pub place: Permit,
}

/// The connections of a listener after their TLS handshake, or all of them without TLS. Ends with `shutdown`.
pub fn connections(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    places: Arc<Admission>,
    shutdown: CancellationToken,
) -> mpsc::Receiver<Arrival> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = async { places.room().await; listener.accept().await } => accepted,
                () = shutdown.cancelled() => return,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // We write complete messages, so the kernel need not wait for more. Setting the option fails if the client
            // is gone already.
            let _ = stream.set_nodelay(true);
            let place = places.admit(from.ip());
            // A slow or silent client does not delay the next one.
            tokio::spawn(arrive(stream, from, tls.clone(), place, sender.clone()));
        }
    });
    receiver
}

/// Agrees on TLS if there is any, as long as the connection has its place.
async fn arrive(stream: TcpStream, from: SocketAddr, tls: Option<Arc<Tls>>, place: Permit, to: mpsc::Sender<Arrival>) {
    let agreed = async {
        match &tls {
            Some(tls) => tls.agree(stream, from).await.map(Either::Left),
            None => Some(Either::Right(stream)),
        }
    };
    let agreed = tokio::select! {
        agreed = agreed => agreed,
        () = place.displaced() => return,
    };
    if let Some(stream) = agreed {
        // No receiver: the server has ended.
        let _ = to.send(Arrival { stream, from, place }).await;
    }
}
