//! Finds the devices through which packets leave the node, and watches for changes.

use super::{
    Error, Readable,
    children::Members,
    clsact,
    sys::{self, Side},
    wireguard,
};
use futures_util::TryStreamExt;
use meridian_abi::control::Control;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        link::{
            InfoData, InfoGeneve, InfoGre, InfoGre6, InfoIpTunnel, InfoKind, InfoVxlan, LinkAttribute, LinkFlags,
            LinkInfo, LinkLayerType, LinkMessage,
        },
        route::{RouteAttribute, RouteMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
};

/// Devices that exist only with a data path that may bypass netfilter: Cilium's, and Calico's with eBPF.
const MARKS: [&str; 3] = ["cilium_host", "bpfin.cali", "bpfout.cali"];

/// The role of a device in counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Packets leave the node through it.
    Uplink,
    /// A device of an overlay: its packets leave through an uplink, inside other packets.
    Overlay,
}

/// A device through which packets leave the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Whether its packets have an Ethernet header.
    pub ethernet: bool,
    /// Whether VLANs over it are uplinks, too: tagged packets are counted there.
    pub trunk: bool,
    /// Its addresses, which are the node's.
    pub addresses: Vec<IpAddr>,
    /// Of an overlay's: the one other end of its tunnel, if it has one.
    pub tunnel_end: Option<IpAddr>,
}

impl Device {
    /// An uplink of which only the index is known.
    pub const fn uplink(ifindex: u32) -> Self {
        Self {
            ifindex,
            name: String::new(),
            role: Role::Uplink,
            ethernet: true,
            trunk: false,
            addresses: Vec::new(),
            tunnel_end: None,
        }
    }
}

/// The devices through which packets leave the node, and the marks of its own and of overlays' packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Uplinks, then overlays' devices.
    pub devices: Vec<Device>,
    /// Addresses from which the node sends its own packets: those of uplinks and of the loopback device. Other devices
    /// are left out: with IPVS, one device has the addresses of all services.
    pub addresses: BTreeSet<IpAddr>,
    /// The marks by which uplinks recognize the packets of overlays.
    pub marks: Overlays,
    /// Devices that exist only with a data path that bypasses netfilter; see [`super::auto`].
    pub bypasses: BTreeSet<String>,
    /// Other devices on which an eBPF program of another program sees arriving packets: it may forward them.
    pub programmed: BTreeSet<String>,
    /// Uplinks with children in other network namespaces: macvlan, ipvlan or VLAN devices of pods.
    pub shared: BTreeSet<String>,
}

/// The marks of packets that carry other packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlays {
    /// Their UDP destination ports.
    pub destination_ports: BTreeSet<u16>,
    /// Their UDP source ports.
    pub source_ports: BTreeSet<u16>,
    /// Their protocols, as [`Control`] has them.
    pub protocols: u32,
}

impl Devices {
    /// The uplinks.
    pub fn uplinks(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.role == Role::Uplink)
    }

    /// The devices of overlays.
    pub fn overlays(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| device.role == Role::Overlay)
    }
}

/// The netlink state of the calling thread's network namespace.
struct NetlinkState {
    links: Vec<LinkMessage>,
    addresses: Vec<(u32, IpAddr)>,
    /// Devices of default routes in any routing table.
    routed: BTreeSet<u32>,
    members: Members,
}

/// The devices of these names, or those of the default routes if no names are given, and the devices of overlays, in
/// the calling thread's network namespace.
///
/// # Errors
/// A device is missing, there is no default route, or netlink fails.
pub fn find(names: &[String]) -> Result<Devices, Error> {
    let found = look(names)?;
    let uplink = |name: &String| found.uplinks().all(|device| device.name != *name);
    if let Some(missing) = names.iter().find(|name| uplink(name)) {
        return Err(Error::NoSuchUplink { name: missing.clone() });
    }
    if found.uplinks().next().is_none() { Err(Error::NoUplink) } else { Ok(found) }
}

/// The devices as by [`find`], without those that are missing (now).
///
/// # Errors
/// Netlink fails.
pub fn look(names: &[String]) -> Result<Devices, Error> {
    netlink(async |handle| ask(&handle, names).await).map(|seen| sort(seen, names))
}

/// Runs `work` with netlink of the calling thread's network namespace.
fn netlink<T>(work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>) -> Result<T, Error> {
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            let connection = tokio::spawn(connection);
            let answer = work(handle).await;
            connection.abort();
            answer.map_err(io::Error::other)
        })
    };
    // Runs on this thread, because its namespace counts, also inside a runtime.
    tokio::task::block_in_place(asked).map_err(|source| Error::Devices { source })
}

/// The name of an uplink with children in other network namespaces, if there is one now.
///
/// # Errors
/// Netlink fails.
pub fn shared(devices: &Devices) -> Result<Option<String>, Error> {
    let members = Members::read();
    if !devices.uplinks().any(|uplink| members.has_others(uplink.ifindex)) {
        return Ok(None);
    }
    let links = ask_links()?;
    let shared = devices.uplinks().find(|uplink| members.has_hidden(uplink.ifindex, &links));
    Ok(shared.map(|uplink| uplink.name.clone()))
}

/// IP bytes that the devices have sent by their own counters, without link headers: uplinks, overlays.
///
/// # Errors
/// Netlink fails.
pub(super) fn sent(devices: &Devices) -> Result<(u64, u64), Error> {
    const ETHERNET: u64 = 14;
    let links = ask_links()?;
    let find = |ifindex: u32| devices.devices.iter().find(|device| device.ifindex == ifindex);
    let of_link = |link: &LinkMessage| {
        let device = find(link.header.index)?;
        // The trunk counts its VLANs' packets once more.
        if Link::new(link).lower.and_then(find).is_some_and(|lower| lower.trunk) {
            return None;
        }
        let header = if device.ethernet { ETHERNET } else { 0 };
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => {
                Some((device.role, stats.tx_bytes.saturating_sub(header * stats.tx_packets)))
            }
            _ => None,
        })
    };
    let (mut uplinks, mut overlays) = (0, 0);
    for (role, bytes) in links.iter().filter_map(of_link) {
        match role {
            Role::Uplink => uplinks += bytes,
            Role::Overlay => overlays += bytes,
        }
    }
    Ok((uplinks, overlays))
}

fn ask_links() -> Result<Vec<LinkMessage>, Error> {
    netlink(async |handle| handle.link().get().execute().try_collect().await)
}

/// The indices of all devices.
pub(super) fn indices() -> Result<Vec<u32>, Error> {
    let names = nix::net::if_::if_nameindex().map_err(|errno| Error::Devices { source: errno.into() })?;
    Ok(names.iter().map(|name| name.index()).collect())
}

async fn ask(handle: &Handle, names: &[String]) -> Result<NetlinkState, rtnetlink::Error> {
    let links = handle.link().get().execute().try_collect().await?;
    let mut addresses = Vec::new();
    let mut messages = handle.address().get().execute();
    while let Some(message) = messages.try_next().await? {
        let (mut local, mut other) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                // On a point-to-point link this is the address of the other end.
                AddressAttribute::Address(address) => other = Some(*address),
                _ => {}
            }
        }
        addresses.extend(local.or(other).map(|address| (message.header.index, address)));
    }
    let mut routed = BTreeSet::new();
    if names.is_empty() {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let mut routes = handle.route().get(family).execute();
            while let Some(route) = routes.try_next().await? {
                routed.extend(default_devices(&route));
            }
        }
    }
    Ok(NetlinkState { links, addresses, routed, members: Members::read() })
}

/// The devices of a default route.
fn default_devices(route: &RouteMessage) -> Vec<u32> {
    if route.header.destination_prefix_length != 0 {
        return Vec::new();
    }
    let of_attribute = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(of_attribute).collect()
}

fn sort(seen: NetlinkState, names: &[String]) -> Devices {
    let mut of_device: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for (ifindex, address) in &seen.addresses {
        let addresses = of_device.entry(*ifindex).or_default();
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    let mut found = Devices::default();
    let (mut overlays, mut lowers) = (Vec::new(), Vec::new());
    for link in &seen.links {
        let ifindex = link.header.index;
        let link = Link::new(link);
        if link.bypasses_netfilter() {
            found.bypasses.insert(link.name.clone());
        }
        if link.is_loopback {
            found.addresses.extend(of_device.get(&ifindex).into_iter().flatten());
        }
        let named = names.contains(&link.name);
        let carries = link.overlay(&mut found.marks);
        let role = match carries {
            _ if named => Role::Uplink,
            true => Role::Overlay,
            false if names.is_empty() && seen.routed.contains(&ifindex) && !link.is_loopback => Role::Uplink,
            false => {
                if has_program(ifindex) {
                    found.programmed.insert(link.name);
                }
                continue;
            }
        };
        let addresses = of_device.remove(&ifindex).unwrap_or_default();
        let tunnel_end = link.data.filter(|_| carries && !named).and_then(tunnel_end);
        let device =
            Device { ifindex, name: link.name, role, ethernet: link.ethernet, trunk: false, addresses, tunnel_end };
        match role {
            Role::Uplink => {
                lowers.extend(link.lower);
                if seen.members.has_hidden(ifindex, &seen.links) {
                    found.shared.insert(device.name.clone());
                }
                found.addresses.extend(&device.addresses);
                found.devices.push(device);
            }
            Role::Overlay => overlays.push(device),
        }
    }
    found.devices.extend(overlays);
    found.devices.iter_mut().for_each(|device| device.trunk = lowers.contains(&device.ifindex));
    found
}

/// Whether another program's eBPF program sees packets that arrive at the device. Ours are on uplinks and overlays.
fn has_program(ifindex: u32) -> bool {
    sys::query_tcx(ifindex, Side::Ingress).is_ok_and(|programs| programs > 0)
        || clsact::filters(ifindex, Side::Ingress).is_ok_and(|filters| !filters.is_empty())
}

/// The one other end of a tunnel. One that is chosen for each packet has none here.
fn tunnel_end(data: &InfoData) -> Option<IpAddr> {
    let end = match data {
        InfoData::Vxlan(infos) => infos.iter().find_map(|info| match info {
            InfoVxlan::Group(end) => Some(IpAddr::from(*end)),
            InfoVxlan::Group6(end) => Some((*end).into()),
            _ => None,
        }),
        InfoData::Geneve(infos) => infos.iter().find_map(|info| match info {
            InfoGeneve::Remote(end) => Some(IpAddr::from(*end)),
            InfoGeneve::Remote6(end) => Some((*end).into()),
            _ => None,
        }),
        InfoData::IpTunnel(infos) => infos.iter().find_map(|info| match info {
            InfoIpTunnel::Remote(end) => Some(*end),
            _ => None,
        }),
        InfoData::GreTun(infos) | InfoData::GreTap(infos) => infos.iter().find_map(|info| match info {
            InfoGre::Remote(end) => Some(IpAddr::from(*end)),
            _ => None,
        }),
        InfoData::GreTun6(infos) | InfoData::GreTap6(infos) => infos.iter().find_map(|info| match info {
            InfoGre6::Remote(end) => Some(IpAddr::from(*end)),
            _ => None,
        }),
        _ => None,
    };
    end.filter(|end| !end.is_unspecified() && !end.is_multicast())
}

/// The needed fields of a link message.
struct Link<'a> {
    ifindex: u32,
    name: String,
    kind: Option<&'a InfoKind>,
    data: Option<&'a InfoData>,
    ethernet: bool,
    is_loopback: bool,
    is_up: bool,
    /// The device below a VLAN.
    lower: Option<u32>,
}

impl<'a> Link<'a> {
    fn new(message: &'a LinkMessage) -> Self {
        let kind = message.header.link_layer_type;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            kind: None,
            data: None,
            ethernet: matches!(kind, LinkLayerType::Ether | LinkLayerType::Loopback),
            is_loopback: kind == LinkLayerType::Loopback,
            is_up: message.header.flags.contains(LinkFlags::Up),
            lower: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Link(lower) => link.lower = Some(*lower),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => link.kind = Some(kind),
                            LinkInfo::Data(data) => link.data = Some(data),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link.lower = link.lower.filter(|_| link.kind == Some(&InfoKind::Vlan));
        link
    }

    /// Whether the device belongs to an overlay and is up; adds the marks of the overlay's packets.
    fn overlay(&self, overlays: &mut Overlays) -> bool {
        // Cilium encrypts packets through this device after they have passed the uplink unencrypted.
        let again = self.name == "cilium_wg0";
        match self.kind {
            _ if !self.is_up => return false,
            Some(InfoKind::Vxlan) => {
                overlays.destination_ports.extend(self.data.and_then(|data| match data {
                    InfoData::Vxlan(infos) => infos.iter().find_map(|info| match info {
                        InfoVxlan::Port(port) => Some(*port),
                        _ => None,
                    }),
                    _ => None,
                }));
            }
            Some(InfoKind::Geneve) => {
                overlays.destination_ports.extend(self.data.and_then(|data| match data {
                    InfoData::Geneve(infos) => infos.iter().find_map(|info| match info {
                        InfoGeneve::Port(port) => Some(*port),
                        _ => None,
                    }),
                    _ => None,
                }));
            }
            Some(InfoKind::Wireguard) => {
                match wireguard::port(self.ifindex) {
                    Ok(port) => overlays.source_ports.extend(port),
                    Err(error) => {
                        tracing::warn!(device = self.name, %error, "its port is unknown: its traffic counts twice");
                    }
                }
                return !again;
            }
            Some(InfoKind::IpIp) => overlays.protocols |= Control::IPIP,
            Some(InfoKind::SitTun) => overlays.protocols |= Control::IPV6 | Control::IPIP,
            Some(InfoKind::Ip6Tnl) => overlays.protocols |= Control::IPV6 | Control::IPIP,
            Some(InfoKind::GreTun | InfoKind::GreTap | InfoKind::GreTun6 | InfoKind::GreTap6) => {
                overlays.protocols |= Control::GRE;
            }
            _ => return false,
        }
        true
    }

    fn bypasses_netfilter(&self) -> bool {
        self.kind == Some(&InfoKind::Netkit) || MARKS.contains(&self.name.as_str())
    }
}

/// Watches a network namespace for changes of devices, addresses, routes or filters.
pub struct Watch(Socket);

/// Links, traffic control, addresses and routes of both families: `RTMGRP_…`.
const GROUPS: u32 = 0x1 | 0x8 | 0x10 | 0x40 | 0x100 | 0x400;

impl Watch {
    /// Watches the calling thread's namespace from now on.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn new() -> Result<Self, Error> {
        let bound = Socket::new(NETLINK_ROUTE).and_then(|mut socket| {
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        });
        bound.map(Self).map_err(|source| Error::Devices { source })
    }

    /// A handle that waits for a change. Must be called inside a runtime.
    ///
    /// # Errors
    /// The runtime can't wait for the socket.
    pub fn readable(&self) -> Result<Readable, Error> {
        Readable::new(self.0.as_fd()).map_err(|source| Error::Devices { source })
    }

    /// Whether anything changed since the last call.
    pub fn changed(&self) -> bool {
        let mut changed = false;
        // Only the presence of a message matters; its contents are dropped.
        let mut message = Vec::with_capacity(64);
        loop {
            message.clear();
            match self.0.recv(&mut message, 0) {
                Ok(_) => changed = true,
                // More messages than the socket holds.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return changed,
            }
        }
    }
}
