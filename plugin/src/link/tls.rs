//! TLS of our servers: certificates that are read again when their files change, and connections that agree on them.

use crate::watched::Stamp;
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
    sync::{Semaphore, mpsc},
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

/// How long a client may take to agree.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that agree at a time; further ones wait.
const HANDSHAKES: usize = 256;
/// How long to wait where no connection can be accepted, for want of files perhaps.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a server's certificate is, and who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those up to the authority: PEM.
    pub certificate: PathBuf,
    /// Its key: PEM.
    pub key: PathBuf,
    /// The authorities of which a client must show a certificate: PEM. Anybody may connect if there are none.
    pub client_authorities: Vec<PathBuf>,
}

/// Accepts connections with the certificate as its files are now.
#[derive(Debug)]
pub struct Tls {
    /// Whose it is, for metrics and the log.
    pub server: &'static str,
    /// Connections that did not agree.
    pub refused: AtomicU64,
    files: Files,
    current: Mutex<Current>,
    handshakes: Arc<Semaphore>,
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
    /// With the certificate of these files.
    ///
    /// # Errors
    /// They can't be read, or are not a certificate and its key.
    pub fn new(server: &'static str, files: Files) -> io::Result<Self> {
        let (stamps, in_use) = (files.stamps(), files.read()?);
        Ok(Self::with(server, files, Current { in_use: Some(in_use), stamps }))
    }

    /// The same; where the files are not good yet, connections are refused until they are.
    pub fn waiting(server: &'static str, files: Files) -> Self {
        let (stamps, read) = (files.stamps(), files.read());
        if let Err(error) = &read {
            tracing::error!(server, %error, "the certificate is not there yet; connections are refused until it is");
        }
        Self::with(server, files, Current { in_use: read.ok(), stamps })
    }

    fn with(server: &'static str, files: Files, current: Current) -> Self {
        let (current, handshakes) = (Mutex::new(current), Arc::new(Semaphore::new(HANDSHAKES)));
        Self { server, refused: AtomicU64::new(0), files, current, handshakes }
    }

    /// When the certificate in use expires; `None` if there is none.
    pub fn expires(&self) -> Option<SystemTime> {
        self.lock().in_use.as_ref().map(|certificate| certificate.expires)
    }

    /// For the next connection. New files that are not good leave the old ones in use.
    fn acceptor(&self) -> Option<TlsAcceptor> {
        // Files are looked at before the lock is taken: nobody waits for a slow disk of another.
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
        // What is behind the lock is replaced as a whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Agrees with a client, or says in the log why not.
    async fn agree(&self, stream: TcpStream, from: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let agreed = match self.acceptor() {
            Some(acceptor) => {
                let late = |_| Err(Error::new(ErrorKind::TimedOut, "it took too long"));
                timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.unwrap_or_else(late)
            }
            None => Err(Error::other("there is no certificate yet")),
        };
        agreed
            .inspect_err(|error| {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(server = self.server, %from, %error, "no agreement on TLS");
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
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| named(&self.key, &error))?;
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

/// Lets in who shows a certificate of one of these authorities.
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
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

fn expires(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.to_datetime().into())
}

/// A connection, with TLS or without.
pub type Connection = Either<TlsStream<TcpStream>, TcpStream>;

/// The connections to a listener that agree on TLS; where there is none, all of them. It ends with `shutdown`.
pub fn connections(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) -> mpsc::Receiver<(Connection, SocketAddr)> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
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
            // What belongs together is written together: the kernel need not wait for more. It refuses where
            // the client has gone already.
            let _ = stream.set_nodelay(true);
            let Some(tls) = tls.clone() else {
                if sender.send((Either::Right(stream), from)).await.is_err() {
                    return;
                }
                continue;
            };
            // Nobody is accepted whom there is no place for.
            let Ok(place) = Arc::clone(&tls.handshakes).acquire_owned().await else { return };
            let sender = sender.clone();
            tokio::spawn(async move {
                let agreed = tls.agree(stream, from).await;
                drop(place);
                if let Some(stream) = agreed {
                    // Nobody takes it: the server has ended.
                    let _ = sender.send((Either::Left(stream), from)).await;
                }
            });
        }
    });
    receiver
}
