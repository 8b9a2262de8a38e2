//! Who serves flows, as this agent tells hubble-relay: all agents that the controller knows; without one itself and
//! those that it is told of.

use super::settings::{Settings, ZoneSource};
use crate::{
    datapath::Devices,
    hubble::{self, PeerAddress, PeerSource},
    proto::v1::FlowServer,
};
use futures_util::FutureExt;
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::watch;

/// Where this node's flows are served beyond the node, if they are.
pub(super) fn flow_server(settings: &Settings, devices: &Devices) -> Option<FlowServer> {
    let listen = settings.hubble;
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
        // Asked for by few: the relay asks one of the agents.
        return PeerSource::Remote(Arc::new(move || hubble::peers_of(controller.clone()).boxed()));
    }
    let with_tls = settings.hubble_tls.is_some();
    let mut peers = settings.hubble_peers.clone();
    // Who asks on this machine reaches it on loopback, too.
    let address = itself.map_or_else(|| settings.hubble.to_string(), |server| server.address);
    let server_name = with_tls.then(|| settings.hubble_name.server_name());
    peers.insert(settings.hubble_name.display_name(), PeerAddress { address, server_name });
    // They are what they are: nobody keeps the sender.
    PeerSource::Local(watch::Sender::new(Arc::new(peers)).subscribe())
}
