//! The gRPC server of a process: Hubble's services and ours, on a port and on a unix socket.

mod agents;
mod coalesced;
mod port;
mod reflection;
mod streams;
mod unimplemented;

pub use agents::{AgentServices, serve as serve_agents};

use crate::{
    api::{
        CountersService, LeaderCounters, ZonesService,
        services::{counters_server::CountersServer, zones_server::ZonesServer},
    },
    counters::Sample,
    feed::{FeedService, services::controller_server::ControllerServer},
    flows::READERS,
    hubble::{
        self,
        services::{observer_server::ObserverServer, peer_server::PeerServer},
    },
    link::{self, Admission, Backlog, PermittedStream, Requests, Tls},
};
use port::Port;
use reflection::Reflection;
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::pb::{v1, v1alpha};

/// The Observer's name in the health service, which differs from its gRPC service name.
const HEALTH_NAME: &str = "hubble.server.Observer";
/// The limits of simultaneous connections of clients, in all and from one address: a newer one displaces an older
/// one. hubble-relay has one.
const CONNECTIONS: usize = 512;
const CONNECTIONS_BY_ADDRESS: usize = 128;
/// Bytes that may wait for all clients of the port and the socket together.
const BACKLOG_BYTES: usize = 64 << 20;

/// Bytes of all requests that are not complete.
const INCOMPLETE_BYTES: usize = 8 << 20;
/// Bytes of a request.
const REQUEST_BYTES: usize = 256 << 10;

/// The bound on the requests to a process: as many as there may be streams of flows.
pub fn requests() -> Arc<Requests> {
    Arc::new(Requests::new(READERS, INCOMPLETE_BYTES))
}

/// The bound on the bytes that wait for the clients of a process.
pub fn backlog() -> Arc<Backlog> {
    Arc::new(Backlog::new(BACKLOG_BYTES))
}

/// The services of a process.
#[derive(Debug)]
pub struct Services {
    /// Hubble's Observer.
    pub observer: Arc<hubble::Server>,
    /// Peer: the addresses of other flow servers, where they are known.
    pub peers: Option<Arc<hubble::PeerService>>,
    /// Counters and the zone table, where the process has them.
    pub own: Option<(Arc<CountersService<Sample>>, Arc<ZonesService>)>,
    /// The bytes that wait for clients.
    pub backlog: Arc<Backlog>,
    /// The requests of clients.
    pub requests: Arc<Requests>,
}

/// Serves on the port and on the socket that are given, until `shutdown`. The port uses TLS if there is any.
///
/// # Errors
/// A listener fails.
pub async fn serve(
    services: Services,
    listener: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
    socket: Option<Socket>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let health = health(HEALTH_NAME).await;
    let (own, peers) = (services.own.as_ref(), services.peers.as_ref());
    let mut names = vec!["observer.Observer"];
    names.extend(peers.map(|_| "peer.Peer"));
    names.extend(own.iter().flat_map(|_| ["meridian.v1.Counters", "meridian.v1.Zones"]));
    let reflection = Reflection::of(&names);
    let observer = ObserverServer::from_arc(Arc::clone(&services.observer)).max_decoding_message_size(REQUEST_BYTES);
    let mut routes = with_reflection(Routes::new(observer).add_service(health), &reflection);
    if let Some(peers) = peers {
        routes = routes.add_service(PeerServer::from_arc(Arc::clone(peers)).max_decoding_message_size(REQUEST_BYTES));
    }
    if let Some((counters, zones)) = own {
        routes = routes
            .add_service(CountersServer::from_arc(Arc::clone(counters)).max_decoding_message_size(REQUEST_BYTES))
            .add_service(ZonesServer::from_arc(Arc::clone(zones)).max_decoding_message_size(REQUEST_BYTES));
    }
    let (named, shutdown_of_port) = (reflection.named(), shutdown.clone());
    let Services { backlog, requests, .. } = services;
    let served = Port { routes, named, backlog, requests, shutdown: shutdown_of_port };
    let port = async {
        let Some(listener) = listener else { return not_served(&shutdown).await };
        served.clone().serve(connections(listener, tls, shutdown.clone())).await
    };
    let local = async {
        let Some(Socket { listener, path: _path }) = socket else { return not_served(&shutdown).await };
        let clients = UnixListenerStream::new(listener).map(|stream| stream.map(|stream| (stream, None)));
        served.clone().serve(clients).await
    };
    tokio::try_join!(port, local).map(drop)
}

/// Waits instead of a server: one that ends before the shutdown has failed.
async fn not_served(shutdown: &CancellationToken) -> io::Result<()> {
    shutdown.cancelled().await;
    Ok(())
}

/// The health service, which reports the process and the service of this name as serving.
async fn health(name: &str) -> HealthServer<impl Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    service
}

/// The services of a controller for people.
pub struct ControllerServices {
    /// The controller's state.
    pub controller: FeedService,
    /// The cluster's counters.
    pub counters: LeaderCounters,
    /// The addresses of flow servers.
    pub peers: hubble::PeerService,
    /// The zone table.
    pub zones: ZonesService,
    /// The bytes that wait for clients.
    pub backlog: Arc<Backlog>,
    /// The requests of clients.
    pub requests: Arc<Requests>,
}

/// Adds reflection in both versions: old clients use the older one.
fn with_reflection(routes: Routes, reflection: &Reflection) -> Routes {
    let newer = v1::server_reflection_server::ServerReflectionServer::new(reflection.clone());
    let older = v1alpha::server_reflection_server::ServerReflectionServer::new(reflection.clone());
    routes
        .add_service(newer.max_decoding_message_size(REQUEST_BYTES))
        .add_service(older.max_decoding_message_size(REQUEST_BYTES))
}

/// Serves these services until `shutdown`, with TLS if there is any.
///
/// # Errors
/// The listener fails.
pub async fn serve_controller(
    services: ControllerServices,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let reflection =
        Reflection::of(&["meridian.v1.Controller", "meridian.v1.Counters", "peer.Peer", "meridian.v1.Zones"]);
    let routes = Routes::new(ControllerServer::new(services.controller).max_decoding_message_size(REQUEST_BYTES))
        .add_service(CountersServer::new(services.counters).max_decoding_message_size(REQUEST_BYTES))
        .add_service(PeerServer::new(services.peers).max_decoding_message_size(REQUEST_BYTES))
        .add_service(ZonesServer::new(services.zones).max_decoding_message_size(REQUEST_BYTES))
        .add_service(health("meridian.v1.Controller").await);
    let routes = with_reflection(routes, &reflection);
    let (backlog, requests) = (services.backlog, services.requests);
    let port = Port { routes, named: reflection.named(), backlog, requests, shutdown: shutdown.clone() };
    port.serve(connections(listener, tls, shutdown)).await
}

fn connections(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<(PermittedStream, Option<SocketAddr>)>> {
    let places = Arc::new(Admission::new(CONNECTIONS, CONNECTIONS_BY_ADDRESS));
    let accepted = ReceiverStream::new(link::connections(listener, tls, places, shutdown));
    accepted.map(|arrival| {
        let stream = PermittedStream::from(arrival);
        let from = stream.client();
        Ok((stream, Some(from)))
    })
}

/// A unix socket whose file is removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: OwnPath,
}

#[derive(Debug)]
struct OwnPath(PathBuf);

impl Drop for OwnPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Listens at this path; makes the folder, and replaces a socket that no process serves any more. Only this user
    /// and its group may connect.
    ///
    /// # Errors
    /// Another process serves the socket, or the file system refuses.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves it"));
        }
        let is_socket = |meta: fs::Metadata| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type());
        if fs::symlink_metadata(path).is_ok_and(is_socket) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener, path: OwnPath(path.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_replaced_only_if_nobody_serves_it_and_is_removed_with_its_server() {
        let path = std::env::temp_dir().join(format!("meridian-socket-{}/sub/hubble.sock", std::process::id()));
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(Socket::bind(&path).unwrap_err().to_string(), "another process serves it");
        // After a kill the socket's file stays.
        let OwnPath(kept) = &socket.path;
        assert_eq!(*kept, path);
        drop(socket);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&path).unwrap());
        // A file that is not a socket must not be replaced.
        fs::write(&path, "text").unwrap();
        assert!(Socket::bind(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"text");
        fs::remove_dir_all(path.parent().unwrap().parent().unwrap()).unwrap();
    }
}
