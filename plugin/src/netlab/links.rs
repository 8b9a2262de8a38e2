//! Devices, addresses and routes inside a namespace, by netlink.

use super::{Error, namespace::Namespace};
use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::AddressHeaderFlags,
        link::{InfoData, InfoVeth, LinkAttribute, Stats64},
    },
};
use std::{fs, io, net::IpAddr, os::fd::RawFd};

/// Netlink inside one namespace.
pub struct Links {
    handle: Handle,
}

/// Runs `work` inside the namespace with its own netlink socket.
///
/// # Errors
/// The errors of `work`, with the namespace's name.
pub fn configure<T: Send>(
    namespace: &Namespace,
    what: &'static str,
    work: impl AsyncFnOnce(&Links) -> Result<T, rtnetlink::Error> + Send,
) -> Result<T, Error> {
    let result = namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            let connection = tokio::spawn(connection);
            let result = work(&Links { handle }).await;
            connection.abort();
            result.map_err(io::Error::other)
        })
    })?;
    result.map_err(|source| namespace.failed(what, source))
}

/// Sets a kernel parameter below net/ inside the namespace.
///
/// # Errors
/// The kernel refuses.
pub fn sysctl(namespace: &Namespace, name: &str, value: &str) -> Result<(), Error> {
    namespace
        .run(|| fs::write(format!("/proc/sys/net/{name}"), value))?
        .map_err(|source| namespace.failed("setting a kernel parameter", source))
}

impl Links {
    /// The netlink handle, for requests that this type does not offer.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A pair of virtual Ethernet devices: one here, the peer in another namespace.
    pub async fn veth(&self, name: &str, peer: &str, peer_namespace: RawFd) -> Result<(), rtnetlink::Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(peer).setns_by_fd(peer_namespace).build();
        let pair = LinkVeth::new(name, "").set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.handle.link().add(pair.build()).execute().await
    }

    /// A bridge.
    pub async fn bridge(&self, name: &str) -> Result<(), rtnetlink::Error> {
        // Without snooping every port sees multicast, as on a plain wire.
        self.handle.link().add(LinkBridge::new(name).mcast_snooping(false).up().build()).execute().await
    }

    /// Sets a device up, as a port of `bridge` if there is one.
    pub async fn up(&self, name: &str, bridge: Option<&str>) -> Result<(), rtnetlink::Error> {
        let mut link = LinkUnspec::new_with_name(name).up();
        if let Some(bridge) = bridge {
            link = link.controller(self.index(bridge).await?);
        }
        self.handle.link().set(link.build()).execute().await
    }

    /// Makes a device accept single segments only: the kernel cuts super-packets before it sends them.
    pub async fn without_offloads(&self, name: &str) -> Result<(), rtnetlink::Error> {
        let link = LinkUnspec::new_with_name(name).append_extra_attribute(LinkAttribute::GsoMaxSegs(1));
        self.handle.link().set(link.build()).execute().await
    }

    /// Sets a device's MTU.
    pub async fn mtu(&self, name: &str, mtu: u32) -> Result<(), rtnetlink::Error> {
        self.handle.link().set(LinkUnspec::new_with_name(name).mtu(mtu).build()).execute().await
    }

    /// Gives a device an address, which can be used at once: the kernel does not ask whether another one has it.
    pub async fn address(&self, device: &str, address: IpAddr, prefix_len: u8) -> Result<(), rtnetlink::Error> {
        let index = self.index(device).await?;
        let mut request = self.handle.address().add(index, address, prefix_len);
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await
    }

    /// Routes a prefix through a gateway.
    pub async fn route(&self, prefix: IpNetwork, gateway: IpAddr) -> Result<(), rtnetlink::Error> {
        let route = RouteMessageBuilder::<IpAddr>::new();
        let route = route.destination_prefix(prefix.network(), prefix.prefix()).map_err(invalid)?;
        let route = route.gateway(gateway).map_err(invalid)?;
        self.handle.route().add(route.build()).execute().await
    }

    /// Routes a prefix through a device without a gateway.
    pub async fn route_on(&self, prefix: IpNetwork, device: u32) -> Result<(), rtnetlink::Error> {
        let route = RouteMessageBuilder::<IpAddr>::new();
        let route = route.destination_prefix(prefix.network(), prefix.prefix()).map_err(invalid)?;
        self.handle.route().add(route.output_interface(device).build()).execute().await
    }

    /// A device's index.
    pub async fn index(&self, device: &str) -> Result<u32, rtnetlink::Error> {
        let mut links = self.handle.link().get().match_name(device.to_owned()).execute();
        links.try_next().await?.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
    }

    /// A device's counters.
    pub async fn counters(&self, device: &str) -> Result<Stats64, rtnetlink::Error> {
        let mut links = self.handle.link().get().match_name(device.to_owned()).execute();
        let link = links.try_next().await?.ok_or(rtnetlink::Error::RequestFailed)?;
        let counters = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counters) => Some(counters),
            _ => None,
        });
        counters.ok_or(rtnetlink::Error::RequestFailed)
    }
}

/// An address or a prefix that can't be.
pub fn invalid(error: impl std::fmt::Debug) -> rtnetlink::Error {
    rtnetlink::Error::InvalidNla(format!("{error:?}"))
}
