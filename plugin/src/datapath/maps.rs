//! The maps of the programs: each is found once by its name, and then used with typed keys and values.

use super::{Error, prefix_key::PrefixKey, sys};
use aya::maps::{MapData, MapInfo};
use meridian_abi::{
    Counter,
    control::{Control, PinnedState},
    flow::{FlowSlot, V4, V6},
    index::{Line, Numbers, Pair},
    service,
    zone::{self, Entry},
};
use std::{
    collections::HashMap,
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Maps by their names in the object.
pub(super) type Named = HashMap<String, Arc<MapData>>;

/// A map with keys and values of these types. For a per-CPU map, V is the value of one CPU.
pub(super) struct Map<K, V> {
    name: &'static str,
    data: Arc<MapData>,
    kind: PhantomData<fn(K) -> V>,
}

impl<K, V> Map<K, V> {
    /// The map of this name, if its keys and values have the sizes of these types.
    pub(super) fn find(maps: &Named, name: &'static str) -> Result<Self, Error> {
        let data = maps.get(name).map(Arc::clone).ok_or(Error::Object { what: format!("no map {name}") })?;
        let map = Self { name, data, kind: PhantomData };
        let info = map.info()?;
        let (found, expected) = ((info.key_size(), info.value_size()), (size_of::<K>(), size_of::<V>()));
        if (found.0 as usize, found.1 as usize) != expected {
            return Err(Error::Object { what: format!("{name} has keys and values of {found:?} bytes") });
        }
        Ok(map)
    }

    /// The kernel's information about the map: its id, its size.
    pub(super) fn info(&self) -> Result<MapInfo, Error> {
        self.data.info().map_err(|error| self.failed(io::Error::other(error)))
    }

    /// Wraps the kernel's error as an error of this map.
    pub(super) fn failed(&self, source: io::Error) -> Error {
        Error::Map { map: self.name.into(), source }
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.data.fd().as_fd()
    }
}

impl<K: IntoBytes + Immutable, V> Map<K, V> {
    /// The value of a key.
    pub(super) fn lookup(&self, key: &K) -> Result<V, Error>
    where
        V: FromBytes,
    {
        sys::lookup(self.as_fd(), key).map_err(|source| self.failed(source))
    }

    /// Writes a value.
    pub(super) fn update(&self, key: &K, value: &V) -> io::Result<()>
    where
        V: IntoBytes + Immutable,
    {
        sys::update(self.as_fd(), key, value)
    }

    /// Writes many values, in one call where the kernel has one for this map.
    ///
    /// # Errors
    /// The first element that can't be written, and the reason. Others may be written.
    pub(super) fn update_all(&self, keys: &[K], values: &[V]) -> Result<(), (usize, io::Error)>
    where
        V: IntoBytes + Immutable,
    {
        if sys::update_batch(self.as_fd(), keys, values).is_ok() {
            return Ok(());
        }
        // One by one, to find the element that the kernel refuses. Writing an element again changes nothing.
        let mut each = keys.iter().zip(values).enumerate();
        each.try_for_each(|(at, (key, value))| self.update(key, value).map_err(|error| (at, error)))
    }

    /// Deletes a key. Returns whether it was present.
    pub(super) fn delete(&self, key: &K) -> io::Result<bool> {
        match sys::delete(self.as_fd(), key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            deleted => deleted.map(|()| true),
        }
    }

    /// The first key, if there is one.
    pub(super) fn first_key(&self) -> Result<Option<K>, Error>
    where
        K: FromBytes,
    {
        sys::first_key(self.as_fd()).map_err(|source| self.failed(source))
    }
}

/// All maps that userspace reads or writes.
pub(super) struct Maps {
    pub(super) control: Map<u32, Control>,
    pub(super) pinned_state: Map<u32, PinnedState>,
    pub(super) zone_names: Map<u32, zone::Name>,
    /// Programs, as file descriptors.
    pub(super) cores: Map<u32, u32>,
    /// Programs, as file descriptors.
    pub(super) egress_cores: Map<u32, u32>,
    pub(super) node_addresses: Map<zone::Address, u8>,
    pub(super) tunnel_ends: Map<u32, zone::Address>,
    pub(super) service_ports: Map<u32, [u8; service::CHUNK as usize]>,
    pub(super) devices: Map<u32, u64>,
    /// The maps for even and for odd epochs.
    pub(super) zones: [Map<PrefixKey, Entry>; 2],
    pub(super) flows_v4: Map<u32, FlowSlot<V4>>,
    pub(super) flows_v6: Map<u32, FlowSlot<V6>>,
    /// The indexes of the flow entries of IPv4 and IPv6.
    pub(super) indexes: [Map<u32, Pair>; 2],
    /// The rings of free numbers of IPv4 and IPv6.
    pub(super) free: [Map<u32, Line>; 2],
    pub(super) numbers: Map<u32, Numbers>,
    pub(super) zone_matrix: Map<u32, Counter>,
    pub(super) stats: Map<u32, Counter>,
    pub(super) passing: Map<u64, u32>,
    /// A ring buffer has neither keys nor values.
    pub(super) events: Map<(), ()>,
    /// Depth and count, in the layout of a Counter.
    pub(super) reentries: Map<u32, Counter>,
}

impl Maps {
    /// Finds the maps of the object.
    pub(super) fn find(maps: &Named) -> Result<Self, Error> {
        Ok(Self {
            control: Map::find(maps, "CONTROL")?,
            pinned_state: Map::find(maps, "PINNED_STATE")?,
            zone_names: Map::find(maps, "ZONE_NAMES")?,
            cores: Map::find(maps, "CORES")?,
            egress_cores: Map::find(maps, "EGRESS_CORES")?,
            node_addresses: Map::find(maps, "NODE_ADDRESSES")?,
            tunnel_ends: Map::find(maps, "TUNNEL_ENDS")?,
            service_ports: Map::find(maps, "SERVICE_PORTS")?,
            devices: Map::find(maps, "DEVICES")?,
            zones: [Map::find(maps, "ZONES_0")?, Map::find(maps, "ZONES_1")?],
            flows_v4: Map::find(maps, "FLOWS_V4")?,
            flows_v6: Map::find(maps, "FLOWS_V6")?,
            indexes: [Map::find(maps, "INDEX_V4")?, Map::find(maps, "INDEX_V6")?],
            free: [Map::find(maps, "FREE_V4")?, Map::find(maps, "FREE_V6")?],
            numbers: Map::find(maps, "NUMBERS")?,
            zone_matrix: Map::find(maps, "ZONE_MATRIX")?,
            stats: Map::find(maps, "STATS")?,
            passing: Map::find(maps, "PASSING")?,
            events: Map::find(maps, "EVENTS")?,
            reentries: Map::find(maps, "REENTRIES")?,
        })
    }
}
