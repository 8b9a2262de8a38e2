//! The agent's end of the feed.

use super::{
    BUCKETS, Backoff, Changes, Position,
    buckets::{Bucket, Digest, bucket, digest_of},
    wire::{Reader, WireError},
};
use crate::{
    identity::Index,
    proto::v1::{self, FollowRequest, FollowResponse, Hello, Update, feed_client::FeedClient, follow_request},
    zones::SharedTable,
};
use meridian_abi::zone::PrefixKind;
use prost::Message;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::{StreamExt, wrappers::WatchStream};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// How long a controller may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// A controller that has vanished is noticed after this time, and once more.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// The largest message: a bucket of a million addresses' state is a quarter of it.
const MESSAGE_BYTES: usize = 4 << 20;
/// Prefixes and addresses that are taken before the state is whole.
const ENTRIES: usize = 4 << 20;

/// Where the controller is, and how it and the agent know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node where this agent is.
    pub node: String,
    /// HOST:PORT.
    pub server: String,
    /// The authority that signed the controller's certificate, as PEM; without one there is no TLS.
    pub authority: Option<PathBuf>,
    /// The name in the controller's certificate, if it is not that of the host.
    pub server_name: Option<String>,
    /// The token to show; read for every connection, since it is renewed.
    pub token: Option<PathBuf>,
}

/// How the connection is, for metrics.
#[derive(Debug, Default)]
pub struct Connection {
    /// Whether the controller's state is whole here.
    pub is_current: AtomicBool,
    /// Connections that were made.
    pub connects: AtomicU64,
    /// Connections that failed or broke.
    pub failures: AtomicU64,
}

/// A change of the state that leads to a position: what an agent puts in force at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// Where it leads to.
    pub position: Position,
    /// Buckets of which all that is not in `changes` is forgotten.
    replaced: BTreeSet<usize>,
    changes: Changes,
}

impl Batch {
    /// What it changes in a table and an index.
    pub fn changes(self, table: &SharedTable, index: &Index) -> Changes {
        let Self { replaced, mut changes, .. } = self;
        if !replaced.is_empty() {
            let (mut gone, is_replaced) = (Changes::default(), |address| replaced.contains(&bucket(address)));
            let table = table.read();
            let known = table.prefixes().filter(|(_, placement)| placement.kind != PrefixKind::Default);
            gone.zones.extend(known.filter(|(prefix, _)| is_replaced(prefix.ip())).map(|(prefix, _)| (*prefix, None)));
            index.each(|address, _| {
                if is_replaced(address) {
                    gone.identities.push((address, None));
                }
            });
            // The last change of a key counts.
            gone.zones.append(&mut changes.zones);
            gone.identities.append(&mut changes.identities);
            changes = gone;
        }
        let Changes { zones, identities } = changes;
        Changes {
            zones: zones.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect(),
            identities: identities.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect(),
        }
    }
}

/// Follows a controller, whichever replica answers.
#[derive(Debug)]
pub struct Client {
    /// Whom.
    pub settings: Settings,
    /// What is in force.
    pub table: SharedTable,
    /// Who has an address.
    pub index: Arc<Index>,
    /// Where changes go to be put in force.
    pub batches: mpsc::Sender<Batch>,
    /// What has been put in force.
    pub applied: watch::Receiver<Position>,
    /// How it goes.
    pub connection: Arc<Connection>,
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The controller asked to come again.
    #[error("the controller ended the stream")]
    Moved,
    /// This agent ends.
    #[error("the agent ends")]
    Agent,
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: it is no token", .0.display())]
    Token(PathBuf),
    #[error("{0}")]
    Unreachable(String),
    #[error("the controller answers {code:?}: {message}", code = .0.code(), message = .0.message())]
    Refused(Status),
    #[error("what the controller says makes no sense: {0}")]
    Wire(#[from] WireError),
    #[error("the controller tells of too many prefixes and addresses")]
    TooMuch,
}

impl Client {
    /// Follows until nobody takes batches any more.
    pub async fn follow(mut self) {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        loop {
            let ended = self.once(&mut backoff).await;
            self.connection.is_current.store(false, Ordering::Relaxed);
            let wait = match &ended {
                Ended::Agent => return,
                Ended::Moved => backoff.moved(),
                failed => {
                    self.connection.failures.fetch_add(1, Ordering::Relaxed);
                    let wait = backoff.failed();
                    let (controller, reason) = (&self.settings.server, failed.to_string());
                    // The same again is said once: it lasts.
                    if reason == told {
                        tracing::debug!(controller, reason, ?wait, "still no controller");
                    } else {
                        tracing::warn!(controller, reason, ?wait, "no controller: the last table stays in force");
                        told = reason;
                    }
                    wait
                }
            };
            if self.connection.is_current.load(Ordering::Relaxed) {
                told.clear();
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = self.batches.closed() => return,
            }
        }
    }

    async fn once(&mut self, backoff: &mut Backoff) -> Ended {
        match self.try_once(backoff).await {
            Ok(()) => Ended::Moved,
            Err(ended) => ended,
        }
    }

    async fn try_once(&mut self, backoff: &mut Backoff) -> Result<(), Ended> {
        let token = self.settings.token.as_deref().map(token).transpose()?;
        let channel = connect(&self.settings).await?;
        let hello = follow_request::Request::Hello(self.hello());
        // What is put in force is acknowledged; what has been overtaken is not.
        let hello = tokio_stream::once(FollowRequest { request: Some(hello) });
        let acknowledged = WatchStream::from_changes(self.applied.clone()).map(|position: Position| FollowRequest {
            request: Some(follow_request::Request::Acknowledged(position.into())),
        });
        let mut request = Request::new(hello.chain(acknowledged));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let mut client = FeedClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        let mut responses = client.follow(request).await.map_err(Ended::Refused)?.into_inner();
        self.connection.connects.fetch_add(1, Ordering::Relaxed);
        backoff.succeeded();
        let (mut reader, mut batch) = (Reader::default(), Batch::default());
        let mut entries = 0;
        loop {
            let response = tokio::select! {
                response = responses.message() => response.map_err(Ended::Refused)?,
                () = self.batches.closed() => return Err(Ended::Agent),
            };
            let Some(FollowResponse { position, update, whole }) = response else { return Ok(()) };
            let update = Update::decode(update).map_err(WireError::from)?;
            let (bucket, mut changes) = reader.read(update)?;
            entries += changes.zones.len() + changes.identities.len();
            if entries > ENTRIES {
                return Err(Ended::TooMuch);
            }
            batch.position = position.unwrap_or_default().into();
            batch.replaced.extend(bucket);
            batch.changes.zones.append(&mut changes.zones);
            batch.changes.identities.append(&mut changes.identities);
            if whole {
                self.batches.send(std::mem::take(&mut batch)).await.map_err(|_| Ended::Agent)?;
                entries = 0;
                if !self.connection.is_current.swap(true, Ordering::Relaxed) {
                    tracing::info!(controller = self.settings.server, "the controller's table is here");
                }
            }
        }
    }

    /// What is in force, by its digests.
    fn hello(&self) -> Hello {
        let position = *self.applied.borrow();
        let position = (position != Position::default()).then(|| v1::Position::from(position));
        Hello {
            node: self.settings.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            position,
            digests: position.map_or_else(Vec::new, |_| digests(&self.table, &self.index).concat()),
        }
    }
}

/// The content of every bucket.
pub(super) fn buckets(table: &SharedTable, index: &Index) -> Vec<Bucket> {
    let mut buckets = vec![Bucket::default(); BUCKETS];
    for (prefix, placement) in table.read().prefixes().filter(|(_, placement)| placement.kind != PrefixKind::Default) {
        buckets[bucket(prefix.ip())].prefixes.insert(*prefix, placement.clone());
    }
    index.each(|address, endpoint| {
        buckets[bucket(address)].identities.insert(address, Arc::clone(endpoint));
    });
    buckets
}

fn digests(table: &SharedTable, index: &Index) -> Vec<Digest> {
    buckets(table, index).iter().enumerate().map(|(index, bucket)| digest_of(&bucket.encode(index))).collect()
}

fn token(path: &Path) -> Result<MetadataValue<Ascii>, Ended> {
    let text = fs::read_to_string(path).map_err(|error| Ended::File { path: path.to_owned(), error })?;
    format!("Bearer {}", text.trim()).parse().map_err(|_| Ended::Token(path.to_owned()))
}

async fn connect(settings: &Settings) -> Result<Channel, Ended> {
    let scheme = if settings.authority.is_some() { "https" } else { "http" };
    let failed = |error: tonic::transport::Error| Ended::Unreachable(causes(&error));
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", settings.server))
        .map_err(failed)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .tcp_nodelay(true);
    if let Some(path) = &settings.authority {
        let authority = fs::read(path).map_err(|error| Ended::File { path: path.clone(), error })?;
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        if let Some(name) = &settings.server_name {
            tls = tls.domain_name(name);
        }
        endpoint = endpoint.tls_config(tls).map_err(failed)?;
    }
    endpoint.connect().await.map_err(failed)
}

/// An error with all that is below it: the layers above say only that there was one.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        below = cause.source();
    }
    text
}
