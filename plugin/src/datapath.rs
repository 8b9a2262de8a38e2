//! The kernel side seen from userspace: loads the programs, attaches them, writes the zone table,
//! reads the counters. The only module that names aya and bpf(2).

mod btf;
mod clsact;
mod events;
mod hook;
mod object;
mod read;
pub mod sys;
pub mod uplinks;
mod zone_maps;

pub use hook::Hook;
pub use object::{Options, accept_all};
pub use read::Cell;

use crate::{
    flows::{Entry, Event},
    zones::{Slots, Table},
};
use clsact::Filter;
use events::Events;
use ipnetwork::IpNetwork;
use meridian_abi::{Counter, device, stats::Stat};
use object::{Loaded, Programs};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use zone_maps::ZoneMaps;

/// Below source NAT (100), so that the pod is still the source, and after it has been decided where
/// the packet goes.
const HIGHEST_PRIORITY: i32 = 99;
/// Priorities that are tried where others hold them.
const PRIORITIES_TRIED: i32 = 64;

/// Why the kernel side does not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's type information lacks something.
    #[error(transparent)]
    Btf(#[from] btf::Error),
    /// The kernel knows no netfilter programs.
    #[error(
        "Linux {release} has no netfilter eBPF programs ({source}): Linux 6.4 or newer with CONFIG_NETFILTER_BPF_LINK is needed"
    )]
    NoNetfilter {
        /// The kernel's release.
        release: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// This process may not do it.
    #[error("{what} is not permitted ({source}): run as root, or with the capabilities BPF, NET_ADMIN and PERFMON")]
    NotPermitted {
        /// What was tried.
        what: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The embedded object is not what this program expects.
    #[error("the embedded eBPF object is not usable: {what}")]
    Object {
        /// What is wrong with it.
        what: String,
    },
    /// The verifier refused a program.
    #[error("the kernel refused the program {program}: {source}; the end of the verifier's log: {}", log.replace('\n', " | "))]
    Load {
        /// The program.
        program: &'static str,
        /// What the kernel answered.
        source: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A map can't be made, written or read.
    #[error("the eBPF map {map}: {source}")]
    Map {
        /// The map.
        map: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A prefix can't be written.
    #[error("the eBPF map of zones, prefix {prefix}: {source}")]
    Prefix {
        /// The prefix.
        prefix: ipnetwork::IpNetwork,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The devices of this node can't be listed.
    #[error("listing the network devices: {source}")]
    Uplinks {
        /// What netlink answered.
        source: io::Error,
    },
    /// A device was named that is not there.
    #[error("there is no network device {name}: name the uplinks as `ip link` does")]
    NoSuchUplink {
        /// The name.
        name: String,
    },
    /// Nothing says through which device packets leave.
    #[error("no network device has a default route: name the uplinks with --uplink")]
    NoUplink,
    /// No program can be attached.
    #[error("attaching to {to}: {source}")]
    Attach {
        /// The hook, and where it is.
        to: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel knows no tcx.
    #[error("Linux {release} has no tcx ({source}): Linux 6.6 or newer is needed; --hook clsact works on older ones")]
    NoTcx {
        /// The kernel's release.
        release: String,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// The programs of one node with their maps. Dropped, everything leaves the kernel: the links
/// first, so that no network namespace is kept alive by one.
pub struct Datapath {
    attached: Attached,
    zones: ZoneMaps,
    loaded: Loaded,
    options: Options,
    events: Events,
    /// What the map UPLINKS holds, without its zeros.
    uplinks: BTreeMap<u32, u64>,
}

/// What leaves the kernel when it is dropped.
#[derive(Default)]
struct Attached {
    links: Vec<OwnedFd>,
    filters: Vec<Filter>,
}

impl Datapath {
    /// Loads programs and maps. Nothing is attached yet, and every zone is unknown.
    ///
    /// # Errors
    /// The kernel is too old, or does not let us.
    pub fn load(options: Options) -> Result<Self, Error> {
        let mut loaded = object::load(&options)?;
        let events = Events::new(loaded.take("EVENTS")?)?;
        let zones = ZoneMaps::new(loaded.map("CONTROL")?)?;
        Ok(Self { attached: Attached::default(), zones, loaded, options, events, uplinks: BTreeMap::new() })
    }

    /// Attaches in the calling thread's network namespace: at netfilter POSTROUTING for IPv4 and IPv6,
    /// each at the highest free priority below source NAT, or at the egress of each uplink, before
    /// all others. Returns where, for people.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn attach(&mut self) -> Result<Vec<String>, Error> {
        let mut places = Vec::new();
        match &self.loaded.programs {
            Programs::Netfilter { v4, v6 } => {
                for (program, family, name) in [(v4, libc::AF_INET, "IPv4"), (v6, libc::AF_INET6, "IPv6")] {
                    let to = format!("netfilter POSTROUTING for {name}");
                    let (link, priority) = postrouting(program.as_fd(), family)
                        .map_err(|source| Error::Attach { to: to.clone(), source })?;
                    self.attached.links.push(link);
                    places.push(format!("{to}, priority {priority}"));
                }
            }
            Programs::TrafficControl { egress } => {
                for ifindex in indices(&self.uplinks) {
                    let to = format!("{} egress of device {ifindex}", self.options.hook);
                    let failed = |source| Error::Attach { to: to.clone(), source };
                    if self.options.hook == Hook::Clsact {
                        self.attached.filters.push(Filter::new(egress.as_fd(), ifindex).map_err(failed)?);
                    } else {
                        self.attached.links.push(sys::attach_tcx_egress(egress.as_fd(), ifindex).map_err(failed)?);
                    }
                    places.push(to);
                }
            }
        }
        Ok(places)
    }

    /// Detaches the programs; the maps stay readable.
    pub fn detach(&mut self) {
        self.attached = Attached::default();
    }

    /// Counts packets that leave through this device.
    ///
    /// # Errors
    /// The kernel's answer, or an index above [`device::MAX_IFINDEX`].
    pub fn add_uplink(&mut self, ifindex: u32) -> Result<(), Error> {
        let (word, bit) = device::bit(ifindex);
        let bits = self.uplinks.get(&word).copied().unwrap_or_default() | bit;
        sys::update(self.loaded.map("UPLINKS")?, &word, &bits)
            .map_err(|source| Error::Map { map: format!("UPLINKS, ifindex {ifindex}"), source })?;
        self.uplinks.insert(word, bits);
        Ok(())
    }

    /// Makes the kernel classify by this table, which differs from the table before in the prefixes
    /// `changed` only. Zones without a slot below the side of the matrix count as unknown.
    ///
    /// # Errors
    /// The kernel's answer; the old table stays in force then.
    pub fn apply_zones(
        &mut self,
        table: &Table,
        changed: impl IntoIterator<Item = IpNetwork>,
        slots: &Slots,
    ) -> Result<(), Error> {
        let maps = [self.loaded.map("ZONES_0")?, self.loaded.map("ZONES_1")?];
        self.zones.apply(maps, table, changed, slots, self.options.matrix_slots)
    }

    /// Where packets are counted.
    pub const fn hook(&self) -> Hook {
        self.options.hook
    }

    /// The side of the matrix.
    pub const fn matrix_slots(&self) -> u32 {
        self.options.matrix_slots
    }

    /// Prefixes that the kernel's table holds.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn prefix_limit(&self) -> Result<u64, Error> {
        Ok(self.loaded.info("ZONES_0")?.max_entries().into())
    }

    /// Entries that the flow maps hold together.
    pub const fn flow_limit(&self) -> u64 {
        2 * self.options.flow_entries as u64
    }

    /// The cells of ZONE_MATRIX that are not zero, summed over the CPUs.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn matrix(&self) -> Result<Vec<Cell>, Error> {
        read::matrix(self.loaded.map("ZONE_MATRIX")?, self.options.matrix_slots)
    }

    /// The id by which the kernel and its tools name the map ZONE_MATRIX.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn matrix_id(&self) -> Result<u32, Error> {
        Ok(self.loaded.info("ZONE_MATRIX")?.id())
    }

    /// A counter of STATS, summed over the CPUs.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn stat(&self, stat: Stat) -> Result<Counter, Error> {
        read::stat(self.loaded.map("STATS")?, stat)
    }

    /// Shows every packet that was announced since the last time to `see`.
    pub fn events(&mut self, see: impl FnMut(Event)) {
        self.events.read(see);
    }

    /// Shows every flow entry to `see`.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn flows(&self, mut see: impl FnMut(Entry)) -> Result<(), Error> {
        read::flows_v4(self.loaded.map("FLOWS_V4")?, &mut see)?;
        read::flows_v6(self.loaded.map("FLOWS_V6")?, &mut see)
    }

    /// How many runs of the programs began inside another run on the same CPU. Counted only with
    /// [`Options::count_reentries`].
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn reentries(&self) -> Result<u64, Error> {
        read::reentries(self.loaded.map("REENTRIES")?)
    }

    /// The programs for IPv4 and IPv6, at traffic control one and the same: for test runs.
    pub fn programs(&self) -> [BorrowedFd<'_>; 2] {
        match &self.loaded.programs {
            Programs::Netfilter { v4, v6 } => [v4.as_fd(), v6.as_fd()],
            Programs::TrafficControl { egress } => [egress.as_fd(), egress.as_fd()],
        }
    }
}

/// The devices that a map UPLINKS names.
fn indices(uplinks: &BTreeMap<u32, u64>) -> impl Iterator<Item = u32> {
    let of_word = |(word, bits): (&u32, &u64)| {
        let (word, bits) = (*word, *bits);
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
    };
    uplinks.iter().flat_map(of_word)
}

fn postrouting(program: BorrowedFd<'_>, family: i32) -> io::Result<(OwnedFd, i32)> {
    let mut taken = io::Error::from_raw_os_error(libc::EBUSY);
    for priority in (HIGHEST_PRIORITY - PRIORITIES_TRIED + 1..=HIGHEST_PRIORITY).rev() {
        match sys::attach_postrouting(program, family, priority) {
            Ok(link) => return Ok((link, priority)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}
