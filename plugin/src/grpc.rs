//! The gRPC server of a process: Hubble's services and ours, on a port and on a unix socket.

mod agents;
mod coalesced;
mod reflection;
mod unimplemented;

pub use agents::{AgentServices, serve as serve_agents};

use crate::{
    api::{
        CountersService, LeaderCounters, ZonesService,
        services::{counters_server::CountersServer, zones_server::ZonesServer},
    },
    counters::Sample,
    feed::{FeedService, services::controller_server::ControllerServer},
    hubble::{
        self,
        services::{observer_server::ObserverServer, peer_server::PeerServer},
    },
    link::{self, Admission, Placed, Tls},
};
use coalesced::Coalesced;
use reflection::Reflection;
use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::pb::{v1, v1alpha};

/// The Observer's name in the health service, which differs from its gRPC service name.
const HEALTH_NAME: &str = "hubble.server.Observer";
/// How long until a vanished client is detected.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Connections to the port of people and their tools at one time, and of one address: a newer one takes the place
/// of an older one. hubble-relay has one.
const CONNECTIONS: usize = 512;
const CONNECTIONS_BY_ADDRESS: usize = 128;

/// The services of a process.
#[derive(Debug)]
pub struct Services {
    /// Hubble's Observer.
    pub observer: Arc<hubble::Server>,
    /// Peer: the addresses of other flow servers, where they are known.
    pub peers: Option<Arc<hubble::PeerService>>,
    /// Counters and the zone table, where the process has them.
    pub own: Option<(Arc<CountersService<Sample>>, Arc<ZonesService>)>,
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
    // Old clients use the older version of reflection, new ones the newer.
    let reflection = Reflection::of(&names);
    let router = || {
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .layer(reflection.named())
            .add_service(ObserverServer::from_arc(Arc::clone(&services.observer)))
            .add_optional_service(peers.map(|peers| PeerServer::from_arc(Arc::clone(peers))))
            .add_optional_service(own.map(|(counters, _)| CountersServer::from_arc(Arc::clone(counters))))
            .add_optional_service(own.map(|(_, zones)| ZonesServer::from_arc(Arc::clone(zones))))
            .add_service(health.clone())
            .add_service(v1::server_reflection_server::ServerReflectionServer::new(reflection.clone()))
            .add_service(v1alpha::server_reflection_server::ServerReflectionServer::new(reflection.clone()))
    };
    let unix = |listener| UnixListenerStream::new(listener).map(|stream| stream.map(|it| Coalesced::new(it, None)));
    let port = async {
        let Some(listener) = listener else { return Ok(()) };
        let port = connections(listener, tls, shutdown.clone());
        router().serve_with_incoming_shutdown(port, shutdown.cancelled()).await
    };
    let local = async {
        let Some(Socket { listener, path: _path }) = socket else { return Ok(()) };
        router().serve_with_incoming_shutdown(unix(listener), shutdown.cancelled()).await
    };
    tokio::try_join!(port, local).map(drop).map_err(io::Error::other)
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
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(reflection.named())
        .add_service(ControllerServer::new(services.controller))
        .add_service(CountersServer::new(services.counters))
        .add_service(PeerServer::new(services.peers))
        .add_service(ZonesServer::new(services.zones))
        .add_service(health("meridian.v1.Controller").await)
        .add_service(v1::server_reflection_server::ServerReflectionServer::new(reflection.clone()))
        .add_service(v1alpha::server_reflection_server::ServerReflectionServer::new(reflection))
        .serve_with_incoming_shutdown(connections(listener, tls, shutdown.clone()), shutdown.cancelled_owned())
        .await
        .map_err(io::Error::other)
}

fn connections(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Coalesced<Placed>>> {
    let places = Arc::new(Admission::new(CONNECTIONS, CONNECTIONS_BY_ADDRESS));
    let accepted = ReceiverStream::new(link::connections(listener, tls, places, shutdown));
    accepted.map(|arrival| {
        let stream = Placed::from(arrival);
        let from = stream.client();
        Ok(Coalesced::new(stream, Some(from)))
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
