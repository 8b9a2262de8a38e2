//! The peers that this agent announces to hubble-relay: with a controller, all agents of its list; otherwise this
//! agent and the configured peers.

use super::settings::{Settings, ZoneSource};
use crate::{
    datapath::Devices,
    hubble::{self, PeerAddress, PeerSource},
    proto::v1::FlowServer,
};
use futures_util::FutureExt;
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::watch;

/// The address at which other nodes reach this node's flows, if they can.
pub(super) fn flow_server(settings: &Settings, devices: &Devices) -> Option<FlowServer> {
    let listen = settings.hubble?;
    let addresses = devices.uplinks().flat_map(|uplink| uplink.addresses.clone());
    let own = if listen.ip().is_unspecified() { addresses.min() } else { Some(listen.ip()) };
    let own = own.filter(|ip| !ip.is_loopback())?;
    let tls_server_name = settings.hubble_tls.is_some().then(|| settings.hubble_name.server_name());
    Some(FlowServer {
        name: settings.hubble_name.display_name(),
        address: SocketAddr::new(own, listen.port()).to_string(),
        tls_server_name: tls_server_name.unwrap_or_default(),
    })
}

/// The peers that this agent announces.
pub(super) fn known(settings: &Settings, itself: Option<FlowServer>) -> PeerSource {
    if let ZoneSource::Controller(controller) = &settings.zones {
        let controller = controller.clone();
        // Few agents ask the controller, because a relay asks only one agent.
        return PeerSource::Remote(Arc::new(move || hubble::peers_of(controller.clone()).boxed()));
    }
    let with_tls = settings.hubble_tls.is_some();
    let mut peers = settings.hubble_peers.clone();
    // Clients on this machine reach the server on loopback or at the socket, too.
    let here = || match (settings.hubble, &settings.socket) {
        (Some(listen), _) => Some(listen.to_string()),
        (None, Some(socket)) => Some(format!("unix://{}", socket.display())),
        (None, None) => None,
    };
    if let Some(address) = itself.map(|server| server.address).or_else(here) {
        let server_name = with_tls.then(|| settings.hubble_name.server_name());
        peers.insert(settings.hubble_name.display_name(), PeerAddress { address, server_name });
    }
    // The peers never change, so the sender is dropped.
    PeerSource::Local(watch::Sender::new(Arc::new(peers)).subscribe())
}
