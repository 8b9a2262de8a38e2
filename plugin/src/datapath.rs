//! The kernel side as seen from userspace: loads and attaches the programs, writes the zone table, reads the
//! counters. The only module that uses aya and bpf(2).

mod attach;
pub mod auto;
pub mod btf;
pub mod capabilities;
mod change_step;
mod children;
mod clsact;
mod coverage;
mod denial;
pub mod devices;
mod error;
mod events;
mod flow_maps;
mod functions;
mod grace;
mod hook;
mod hook_change;
mod immediates;
mod maps;
mod memory;
mod names;
mod numbers;
mod object;
mod only;
mod pins;
mod prefix_key;
mod probe;
mod read;
mod readable;
pub mod sys;
mod wireguard;
mod zone_maps;

pub use coverage::{Compared, Coverage};
pub use devices::{Device, Devices, Overlays, Role as DeviceRole};
pub use error::Error;
pub use flow_maps::Retiring;
pub use hook::Hook;
pub use hook_change::GRACE;
pub use object::Options;
pub use only::{NotAlone, Only};
pub use pins::Pins;
pub use probe::{accept_all, next};
pub use read::{Cell, Stats};
pub use readable::Readable;

use crate::{
    flows::{Entry, Event, SlotId},
    zones::{Slots, Table, Zone},
};
use attach::{Attached, DeviceHooks};
use change_step::HookChange;
use events::Events;
use flow_maps::FlowMaps;
use ipnetwork::IpNetwork;
use maps::Maps;
use meridian_abi::{
    Counter, control, device,
    flow::Verdict,
    service,
    stats::Stat,
    zone::{Slot, UNKNOWN},
};
use object::{Loaded, Netfilter};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use zone_maps::ZoneMaps;

/// Removes everything of ours that is pinned or attached in the calling thread's network namespace.
///
/// # Errors
/// The kernel refuses.
pub fn unload(pins: &Pins) -> Result<(), Error> {
    pins.remove()?;
    for ifindex in devices::indices()? {
        for side in [sys::Side::Ingress, sys::Side::Egress] {
            let failed = |source| Error::Attach { to: format!("clsact of device {ifindex}"), source };
            clsact::remove(ifindex, side).map_err(failed)?;
        }
    }
    Ok(())
}

/// The programs and maps of one node. When dropped, everything that is not pinned leaves the kernel: links first,
/// because a link would keep a network namespace alive.
pub struct Datapath {
    attached: Attached,
    /// The hooks on devices at which programs are attached.
    device_hooks: DeviceHooks,
    changing: Option<HookChange>,
    zones: ZoneMaps,
    flows: FlowMaps,
    loaded: Loaded,
    maps: Maps,
    options: Options,
    events: Events,
    pins: Option<Pins>,
    devices: Devices,
    /// The contents of the map DEVICES, without zeros.
    roles: BTreeMap<u32, u64>,
    /// The contents of the map NODE_ADDRESSES.
    addresses: BTreeSet<IpAddr>,
    /// The contents of the map TUNNEL_ENDS.
    tunnel_ends: BTreeMap<u32, IpAddr>,
    named_zones: Vec<Arc<Zone>>,
    restored_filters: u64,
}

impl Datapath {
    /// Loads programs and maps. Nothing is attached yet, and every zone is unknown.
    ///
    /// # Errors
    /// The kernel is too old, or refuses.
    pub fn load(options: Options) -> Result<Self, Error> {
        Self::load_pinned(options, None)
    }

    /// Loads with maps that outlive this process; an earlier agent's maps are taken over.
    ///
    /// # Errors
    /// The kernel is too old, or refuses; or the pins are of another version.
    pub fn load_pinned(mut options: Options, pins: Option<Pins>) -> Result<Self, Error> {
        if let Some(pins) = &pins {
            for layout in pins.other_layouts() {
                tracing::warn!(layout = %layout.display(), "removing the pins of another version: the counters start from zero");
                pins::remove_layout(&layout)?;
            }
            if let Some(matrix) = pins.map("ZONE_MATRIX")? {
                let cells = matrix
                    .info()
                    .map_err(|error| Error::Map { map: "ZONE_MATRIX".into(), source: io::Error::other(error) })?;
                options.matrix_slots = (cells.max_entries() / 4).isqrt();
            }
        }
        let loaded = object::load(&options, pins.as_ref())?;
        let maps = Maps::find(&loaded.maps)?;
        let events = Events::new(&maps.events)?;
        let zones = ZoneMaps::new(&maps)?;
        let flows = FlowMaps::new(&maps, options.flow_slots)?;
        let (attached, devices) = (Attached::default(), Devices::default());
        let (roles, addresses) = (BTreeMap::new(), BTreeSet::new());
        let named_zones = names::read(&maps.zone_names)?;
        let device_hooks = DeviceHooks::of(options.hook);
        let datapath = Self {
            attached,
            device_hooks,
            changing: None,
            zones,
            flows,
            loaded,
            maps,
            options,
            events,
            pins,
            devices,
            roles,
            addresses,
            tunnel_ends: BTreeMap::new(),
            named_zones,
            restored_filters: 0,
        };
        // The programs of an earlier agent may still use pinned ones, with its own table.
        if datapath.pins.is_none() {
            datapath.set_egress_cores()?;
            datapath.loaded.programs.netfilter.as_ref().map_or(Ok(()), |netfilter| datapath.set_cores(netfilter))?;
        }
        Ok(datapath)
    }

    /// Attaches in the calling thread's network namespace. Netfilter: at POSTROUTING for IPv4 and IPv6, each at the
    /// highest free priority below source NAT. Traffic control: at the egress of each device, before all other
    /// programs. In both cases also at the ingress of each device. Returns the places, for people.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach(&mut self) -> Result<Vec<String>, Error> {
        if let Some(pins) = &self.pins {
            attach::clean(self.options.hook, &self.devices.devices, pins)?;
        }
        self.attached.active = true;
        self.set_egress_cores()?;
        let netfilter = self.loaded.programs.netfilter.take();
        let attached = netfilter.as_ref().map(|netfilter| self.attach_netfilter(netfilter)).transpose();
        self.loaded.programs.netfilter = netfilter;
        let mut places = attached?.unwrap_or_default();
        let Self { attached, loaded, pins, devices, device_hooks, .. } = self;
        for device in &devices.devices {
            places.extend(attached.device(*device_hooks, &loaded.programs, device, pins.as_ref())?);
        }
        Ok(places)
    }

    /// Whether the programs are attached.
    pub const fn is_attached(&self) -> bool {
        self.attached.active
    }

    fn attach_netfilter(&mut self, netfilter: &Netfilter) -> Result<Vec<String>, Error> {
        let Self { attached, maps, pins, .. } = self;
        let seen = || read::stats(&maps.stats).map(|stats| stats.get(Stat::Loopback));
        let is_alive = |family| {
            let before = seen().unwrap_or_default();
            attach::send_probe(family).is_ok() && seen().is_ok_and(|after| after.packets > before.packets)
        };
        attached.netfilter(netfilter, &maps.cores, pins.as_ref(), is_alive)
    }

    /// Makes the programs at the egress leave unusual packets to the loaded ones.
    fn set_egress_cores(&self) -> Result<(), Error> {
        let cores = self.loaded.programs.egress.as_ref().and_then(|egress| egress.cores.as_ref());
        cores.map_or(Ok(()), |cores| attach::set_programs(&self.maps.egress_cores, [0, 1], cores))
    }

    /// Makes netfilter's entries continue with these programs.
    fn set_cores(&self, netfilter: &Netfilter) -> Result<(), Error> {
        attach::set_cores(&self.maps.cores, Some(netfilter))
    }

    /// Makes netfilter's entries continue with no program.
    fn clear_cores(&self) -> Result<(), Error> {
        attach::set_cores(&self.maps.cores, None)
    }

    /// Detaches the programs that are not pinned; the maps stay readable.
    pub fn detach(&mut self) {
        self.attached = Attached::default();
    }

    /// Counts packets that leave through these devices, and through no others. If the programs are attached, they move
    /// with the devices, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel refuses, or an index is above [`device::MAX_IFINDEX`]. A device that no longer exists is not an
    /// error.
    pub fn set_devices(&mut self, devices: Devices) -> Result<(), Error> {
        let mut roles: BTreeMap<u32, u64> = self.roles.keys().map(|word| (*word, 0)).collect();
        for device in &devices.devices {
            let (word, shift) = device::place(device.ifindex);
            let bits = match device.role {
                devices::Role::Uplink if device.trunk => device::TRUNK,
                devices::Role::Uplink => device::UPLINK,
                devices::Role::Overlay => device::OVERLAY,
            };
            *roles.entry(word).or_default() |= bits << shift;
        }
        let changed: Vec<_> = roles.iter().filter(|(word, bits)| self.roles.get(word) != Some(bits)).collect();
        if !changed.is_empty() {
            // CONTROL names a device later than DEVICES has it, and for no longer.
            self.zones.forget_devices()?;
            for (word, bits) in changed {
                let failed = |source| Error::Map { map: format!("DEVICES, word {word}"), source };
                self.maps.devices.update(word, bits).map_err(failed)?;
            }
            self.zones.set_devices(&devices.devices)?;
        }
        roles.retain(|_, bits| *bits != 0);
        self.roles = roles;
        self.set_addresses(&devices.addresses)?;
        self.set_tunnel_ends(&devices)?;
        self.zones.set_overlays(&devices.marks)?;
        let gone = self.attached.device_indices().into_iter();
        let same = |ifindex: u32| devices.devices.iter().find(|device| device.ifindex == ifindex);
        for ifindex in gone.filter(|ifindex| same(*ifindex).is_none()) {
            self.attached.leave(ifindex, self.pins.as_ref())?;
        }
        if self.attached.active {
            let known = self.attached.device_indices();
            for device in devices.devices.iter().filter(|device| !known.contains(&device.ifindex)) {
                let Self { attached, loaded, device_hooks, pins, .. } = self;
                match attached.device(*device_hooks, &loaded.programs, device, pins.as_ref()) {
                    Err(Error::Attach { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
                    attached => attached.map(drop)?,
                }
            }
        }
        self.devices = devices;
        Ok(())
    }

    /// Attaches the programs again where another program has removed our filters from clsact: Cilium's agent removes
    /// all filters from an egress that it does not use. Returns the places, for people. Must be called in the node's network
    /// namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn restore_filters(&mut self) -> Result<Vec<String>, Error> {
        let Self { attached, loaded, device_hooks, pins, devices, .. } = self;
        let mut places = Vec::new();
        let is_active = attached.active;
        for device in devices.devices.iter().filter(|_| is_active) {
            match attached.restore_filters(*device_hooks, &loaded.programs, device, pins.as_ref()) {
                Err(Error::Attach { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
                restored => places.extend(restored?),
            }
        }
        self.restored_filters += places.len() as u64;
        Ok(places)
    }

    /// How often filters were attached again, because another program had removed them.
    #[must_use]
    pub const fn restored_filters(&self) -> u64 {
        self.restored_filters
    }

    /// The filters of other programs that run before ours at clsact and may end the chain, for people.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn foreign_filters(&self) -> Result<Vec<String>, Error> {
        let mut foreign_filters = Vec::new();
        if self.options.hook == Hook::Clsact {
            for device in &self.devices.devices {
                let filters = clsact::before_ours(device.ifindex, sys::Side::Egress)
                    .map_err(|source| Error::Attach { to: format!("clsact of {}", device.name), source })?;
                foreign_filters.extend(filters.into_iter().map(|filter| format!("{filter} on {}", device.name)));
            }
        }
        Ok(foreign_filters)
    }

    /// The devices whose packets count.
    pub const fn devices(&self) -> &Devices {
        &self.devices
    }

    fn set_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let room = control::MAX_NODE_ADDRESSES as usize;
        if addresses.len() > room {
            tracing::warn!(
                room,
                addresses = addresses.len(),
                "this node has more addresses than fit: traffic from the others inside an overlay counts twice"
            );
        }
        let addresses: &BTreeSet<IpAddr> = &addresses.iter().copied().take(room).collect();
        let map = &self.maps.node_addresses;
        let failed = |source| map.failed(source);
        for gone in self.addresses.difference(addresses) {
            map.delete(&prefix_key::address(*gone)).map_err(failed)?;
        }
        for new in addresses.difference(&self.addresses) {
            map.update(&prefix_key::address(*new), &1).map_err(failed)?;
        }
        self.addresses.clone_from(addresses);
        Ok(())
    }

    fn set_tunnel_ends(&mut self, devices: &Devices) -> Result<(), Error> {
        let ends = devices.overlays().filter_map(|device| Some((device.ifindex, device.tunnel_end?)));
        let ends: BTreeMap<u32, IpAddr> = ends.take(control::MAX_TUNNEL_ENDS as usize).collect();
        let map = &self.maps.tunnel_ends;
        let failed = |source| map.failed(source);
        for gone in self.tunnel_ends.keys().filter(|ifindex| !ends.contains_key(ifindex)) {
            map.delete(gone).map_err(failed)?;
        }
        for (ifindex, end) in ends.iter().filter(|(ifindex, end)| self.tunnel_ends.get(ifindex) != Some(end)) {
            map.update(ifindex, &prefix_key::address(*end)).map_err(failed)?;
        }
        self.tunnel_ends = ends;
        Ok(())
    }

    /// Makes the kernel classify by this table, which differs from the last one only in the prefixes `changed`. Zones
    /// without a slot below the side of the matrix count as unknown.
    ///
    /// # Errors
    /// The kernel refuses; the old table then stays in force.
    pub fn apply_zones(
        &mut self,
        table: &Table,
        changed: impl IntoIterator<Item = IpNetwork>,
        slots: &Slots,
    ) -> Result<(), Error> {
        // A slot gets its name before it is used, because readers of the matrix need the name.
        names::write(&self.maps.zone_names, slots)?;
        self.zones.apply(&self.maps.zones, table, changed, slots, self.options.matrix_slots)
    }

    /// Sets the zone of this node: packets that it forwards for other nodes leave from there. `table` and `slots` are
    /// those in force.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_node(&mut self, slot: Slot, table: &Table, slots: &Slots) -> Result<(), Error> {
        if self.zones.set_node(slot)? {
            self.apply_zones(table, [], slots)?;
        }
        Ok(())
    }

    /// The zones that had a slot when the programs were loaded, assigned by an earlier agent.
    pub fn named_zones(&self) -> &[Arc<Zone>] {
        &self.named_zones
    }

    /// The id of these counters: counters that begin anew get another one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn boot_id(&self) -> Result<uuid::Uuid, Error> {
        names::boot_id(&self.maps.pinned_state)
    }

    /// Registers a port as a service's, for packets that do not show which end is the service.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn know_service(&mut self, port: u16) -> Result<(), Error> {
        let map = &self.maps.service_ports;
        for protocol in [6, 17, 132] {
            let (chunk, at) = service::place(protocol, port);
            let mut ports = map.lookup(&chunk)?;
            ports[at] = 1;
            map.update(&chunk, &ports).map_err(|source| map.failed(source))?;
        }
        Ok(())
    }

    /// The hook that counts packets.
    pub const fn hook(&self) -> Hook {
        self.options.hook
    }

    /// The side of the matrix.
    pub const fn matrix_slots(&self) -> u32 {
        self.options.matrix_slots
    }

    /// The number of prefixes that fit into the kernel's table.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn prefix_limit(&self) -> Result<u64, Error> {
        Ok(self.maps.zones[0].info()?.max_entries().into())
    }

    /// The slots of both flow maps together.
    pub const fn flow_limit(&self) -> u64 {
        self.flows.slots() as u64
    }

    /// The cells of ZONE_MATRIX that are not zero, summed over the CPUs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn matrix(&self) -> Result<Vec<Cell>, Error> {
        read::matrix(&self.maps.zone_matrix, self.options.matrix_slots)
    }

    /// The kernel's id of the map ZONE_MATRIX, as bpftool shows it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn matrix_id(&self) -> Result<u32, Error> {
        Ok(self.maps.zone_matrix.info()?.id())
    }

    /// One counter of STATS, summed over the CPUs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stat(&self, stat: Stat) -> Result<Counter, Error> {
        Ok(self.stats()?.get(stat))
    }

    /// All counters of STATS, read at once.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stats(&self) -> Result<Stats, Error> {
        read::stats(&self.maps.stats)
    }

    /// A handle that waits for announced packets. Must be called inside a runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn announcements(&self) -> Result<Readable, Error> {
        self.events.readable().map_err(|source| Error::Map { map: "EVENTS".into(), source })
    }

    /// Calls `visit` with every packet announced since the last call.
    pub fn events(&mut self, visit: impl FnMut(Event)) {
        self.events.read(visit);
    }

    /// Calls `visit` with every flow entry.
    pub fn flows(&self, visit: impl FnMut(Entry)) {
        self.flows.read(visit);
    }

    /// The sum over all flow entries, removed ones included.
    pub fn attributed(&self) -> Counter {
        self.flows.sum()
    }

    /// Starts removing an idle entry that was just read. `None`: a packet used it in the meantime.
    pub fn retire(&self, entry: &Entry) -> Option<Retiring> {
        self.flows.retire(entry)
    }

    /// The entries that are out of use, with their final counters. An entry that a packet used again is not among
    /// them.
    pub fn retired(&self, retiring: Vec<Retiring>) -> Vec<Entry> {
        self.flows.retired(retiring)
    }

    /// Empties the slots of entries that are out of use and whose counters were taken over.
    pub fn empty(&self, slots: impl IntoIterator<Item = SlotId>) {
        self.flows.empty(slots);
    }

    /// Puts entries back into use that an earlier agent had started to remove.
    pub fn bring_back(&self, table: &Table, slots: &Slots) {
        let slot = |address| {
            let placement = table.lookup(address).map(|(_, placement)| placement);
            placement.map_or(UNKNOWN, |placement| slots.entry(placement, self.options.matrix_slots).slot)
        };
        // The epoch belongs to no table, so the next packet looks the zones up.
        self.flows.bring_back(|entry| Verdict {
            epoch: 1,
            source: slot(entry.source),
            destination: slot(entry.destination),
        });
    }

    /// The number of runs of the programs that began inside another run on the same CPU. Counted only with
    /// [`Options::count_reentries`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reentries(&self) -> Result<u64, Error> {
        read::reentries(&self.maps.reentries)
    }

    /// The attached programs for IPv4 and IPv6; at traffic control both are the same.
    pub fn entries(&self) -> [BorrowedFd<'_>; 2] {
        match &self.loaded.programs.netfilter {
            Some(netfilter) => [netfilter.entries[0].as_fd(), netfilter.entries[1].as_fd()],
            None => self.programs(),
        }
    }

    /// The counting programs for IPv4 and IPv6, for test runs; at traffic control both are the same.
    pub fn programs(&self) -> [BorrowedFd<'_>; 2] {
        let programs = &self.loaded.programs;
        match &programs.netfilter {
            Some(netfilter) => [netfilter.cores[0].as_fd(), netfilter.cores[1].as_fd()],
            None => [self.at_egress().attached[0].as_fd(), self.at_egress().attached[0].as_fd()],
        }
    }

    /// The programs that unusual packets are left to, if there are any.
    pub fn cores(&self) -> Option<[BorrowedFd<'_>; 2]> {
        let programs = &self.loaded.programs;
        let cores = match &programs.netfilter {
            Some(netfilter) => netfilter.unusual.as_ref(),
            None => self.at_egress().cores.as_deref(),
        };
        cores.map(|cores| cores.each_ref().map(AsFd::as_fd))
    }

    #[expect(clippy::expect_used, reason = "programs are loaded for netfilter, or for the egress")]
    fn at_egress(&self) -> &object::Egress {
        self.loaded.programs.egress.as_ref().expect("programs at the egress")
    }

    /// The program for arrivals: for test runs.
    #[expect(clippy::expect_used, reason = "every hook has programs at the ingress")]
    pub fn arrivals(&self) -> BorrowedFd<'_> {
        self.loaded.programs.ingress.as_ref().expect("programs at the ingress")[0].as_fd()
    }
}
