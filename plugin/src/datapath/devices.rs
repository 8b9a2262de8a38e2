//! Finds the devices through which packets leave the node, and tells when they change.

use super::{
    Error, Readable, clsact,
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
            InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
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

/// Devices that only a data path makes that may bypass netfilter: Cilium's, and Calico's with eBPF.
const MARKS: [&str; 3] = ["cilium_host", "bpfin.cali", "bpfout.cali"];

/// What a device is to the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Packets leave the node through it.
    Uplink,
    /// An overlay's: packets go on through an uplink, inside others.
    Overlay,
}

/// A device through which packets leave the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Whether packets have an Ethernet header there.
    pub ethernet: bool,
    /// Whether VLANs over it are uplinks, too: what has a tag is counted there.
    pub trunk: bool,
    /// Its addresses: the node's.
    pub addresses: Vec<IpAddr>,
}

impl Device {
    /// An uplink of which no more is known than its index.
    pub const fn uplink(ifindex: u32) -> Self {
        Self { ifindex, name: String::new(), role: Role::Uplink, ethernet: true, trunk: false, addresses: Vec::new() }
    }
}

/// The devices through which packets leave the node, and how its own packets are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Uplinks, then overlays' devices.
    pub devices: Vec<Device>,
    /// Addresses of the node from which it may send what it has made: those of uplinks and of the loopback
    /// device. Not of every device: with IPVS one has all addresses of all services.
    pub addresses: BTreeSet<IpAddr>,
    /// How the packets of overlays are told on the uplinks.
    pub marks: Overlays,
    /// Devices that only a data path past netfilter makes; see [`super::auto`].
    pub bypasses: BTreeSet<String>,
    /// Other devices where somebody's eBPF program sees what arrives, as from a pod: it may forward it.
    pub programmed: BTreeSet<String>,
}

/// How packets that carry others are told from those that do not.
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

/// What netlink says of the calling thread's network namespace.
struct NetlinkState {
    links: Vec<LinkMessage>,
    addresses: Vec<(u32, IpAddr)>,
    /// Devices of default routes, in any table.
    routed: BTreeSet<u32>,
}

/// The devices of these names, or those of the default routes where none is named, and the devices of
/// overlays, in the calling thread's network namespace.
///
/// # Errors
/// There is no such device, no default route, or netlink can't be asked.
pub fn find(names: &[String]) -> Result<Devices, Error> {
    let found = look(names)?;
    let uplink = |name: &String| found.uplinks().all(|device| device.name != *name);
    if let Some(missing) = names.iter().find(|name| uplink(name)) {
        return Err(Error::NoSuchUplink { name: missing.clone() });
    }
    if found.uplinks().next().is_none() { Err(Error::NoUplink) } else { Ok(found) }
}

/// The same, without those that are not there (any more).
///
/// # Errors
/// Netlink can't be asked.
pub fn look(names: &[String]) -> Result<Devices, Error> {
    netlink(async |handle| ask(&handle, names).await).map(|seen| sort(seen, names))
}

/// Asks netlink of the calling thread's network namespace.
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
    // It is this thread whose namespace is asked, also where it runs a future.
    tokio::task::block_in_place(asked).map_err(|source| Error::Devices { source })
}

/// IP bytes that the devices have sent, by their own counters, less their link headers: uplinks, overlays.
///
/// # Errors
/// Netlink can't be asked.
pub(super) fn sent(devices: &Devices) -> Result<(u64, u64), Error> {
    const ETHERNET: u64 = 14;
    let links = ask_links()?;
    let find = |ifindex: u32| devices.devices.iter().find(|device| device.ifindex == ifindex);
    let of_link = |link: &LinkMessage| {
        let device = find(link.header.index)?;
        // What a VLAN has sent its trunk has sent once more.
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
                // With the one before, the address at the other end of the link.
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
    Ok(NetlinkState { links, addresses, routed })
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
    for link in seen.links {
        let ifindex = link.header.index;
        let link = Link::new(&link);
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
        let device = Device { ifindex, name: link.name, role, ethernet: link.ethernet, trunk: false, addresses };
        match role {
            Role::Uplink => {
                lowers.extend(link.lower);
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

/// Whether somebody's program sees what arrives on the device. Ours are on uplinks and overlays.
fn has_program(ifindex: u32) -> bool {
    sys::query_tcx(ifindex, Side::Ingress).is_ok_and(|programs| programs > 0)
        || clsact::filters(ifindex, Side::Ingress).is_ok_and(|filters| !filters.is_empty())
}

/// What a link message says that matters here.
struct Link<'a> {
    ifindex: u32,
    name: String,
    kind: Option<&'a InfoKind>,
    data: Option<&'a InfoData>,
    ethernet: bool,
    is_loopback: bool,
    is_up: bool,
    /// The device under a VLAN.
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

    /// Whether it is a device of an overlay that is up; how its packets are told is noted down.
    fn overlay(&self, overlays: &mut Overlays) -> bool {
        // Cilium sends what it encrypts through this one after it has passed the uplink in the clear.
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
                        tracing::warn!(device = self.name, %error, "its port is not known: what it sends counts twice");
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

/// Tells when devices, addresses or routes of a network namespace change.
pub struct Watch(Socket);

/// Links, addresses and routes of both families: `RTMGRP_…`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

impl Watch {
    /// Of the calling thread's namespace, from now on.
    ///
    /// # Errors
    /// Netlink can't be asked.
    pub fn new() -> Result<Self, Error> {
        let bound = Socket::new(NETLINK_ROUTE).and_then(|mut socket| {
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        });
        bound.map(Self).map_err(|source| Error::Devices { source })
    }

    /// Tells when something has changed. Inside a runtime.
    ///
    /// # Errors
    /// The runtime can't wait for it.
    pub fn readable(&self) -> Result<Readable, Error> {
        Readable::new(self.0.as_fd()).map_err(|source| Error::Devices { source })
    }

    /// Whether something has changed since the last time.
    pub fn changed(&self) -> bool {
        let mut changed = false;
        // That there is one is all that matters; the rest of it is thrown away.
        let mut message = Vec::with_capacity(64);
        loop {
            message.clear();
            match self.0.recv(&mut message, 0) {
                Ok(_) => changed = true,
                // More than the socket holds.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return changed,
            }
        }
    }
}
