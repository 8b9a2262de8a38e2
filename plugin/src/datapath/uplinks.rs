//! Finds the devices through which packets leave the node.

use super::Error;
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        link::LinkAttribute,
        route::{RouteAttribute, RouteMessage},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A device through which packets leave the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its addresses: the node's.
    pub addresses: Vec<IpAddr>,
}

/// The devices of these names, or those of the default routes where none is named, in the calling
/// thread's network namespace.
///
/// # Errors
/// There is no such device, no default route, or netlink can't be asked.
pub fn find(names: &[String]) -> Result<Vec<Uplink>, Error> {
    let (devices, routed) = look(names)?;
    let wanted = |device: &Uplink| {
        if names.is_empty() { routed.contains(&device.ifindex) } else { names.contains(&device.name) }
    };
    let uplinks: Vec<Uplink> = devices.into_values().filter(wanted).collect();
    if let Some(missing) = names.iter().find(|name| uplinks.iter().all(|uplink| uplink.name != **name)) {
        return Err(Error::NoSuchUplink { name: missing.clone() });
    }
    if uplinks.is_empty() { Err(Error::NoUplink) } else { Ok(uplinks) }
}

/// The names of all devices in the calling thread's network namespace.
///
/// # Errors
/// Netlink can't be asked.
pub fn device_names() -> Result<Vec<String>, Error> {
    let (devices, _) = look(&[])?;
    Ok(devices.into_values().map(|device| device.name).collect())
}

fn look(names: &[String]) -> Result<(BTreeMap<u32, Uplink>, BTreeSet<u32>), Error> {
    let failed = |source| Error::Uplinks { source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let found = runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let found = ask(&handle, names).await;
        connection.abort();
        found.map_err(io::Error::other)
    });
    found.map_err(failed)
}

/// Every device by its index, and the indices of those with a default route.
async fn ask(handle: &Handle, names: &[String]) -> Result<(BTreeMap<u32, Uplink>, BTreeSet<u32>), rtnetlink::Error> {
    let mut devices = BTreeMap::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        let (ifindex, name) = (link.header.index, name.unwrap_or_default());
        devices.insert(ifindex, Uplink { ifindex, name, addresses: Vec::new() });
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let Some(device) = devices.get_mut(&message.header.index) else { continue };
        device.addresses.extend(message.attributes.into_iter().filter_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(address),
            _ => None,
        }));
    }
    let mut routed = BTreeSet::new();
    if names.is_empty() {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let mut routes = handle.route().get(family).execute();
            while let Some(route) = routes.try_next().await? {
                routed.extend(default_device(&route));
            }
        }
    }
    Ok((devices, routed))
}

/// The device of a default route.
fn default_device(route: &RouteMessage) -> Option<u32> {
    let gateway = route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)));
    let device = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    device.filter(|_| gateway && route.header.destination_prefix_length == 0)
}
