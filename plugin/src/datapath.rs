//! The kernel side seen from userspace: loads the programs, attaches them, writes the zone table,
//! reads the counters. The only module that names aya and bpf(2).

mod btf;
mod object;
mod read;
pub mod sys;
mod zone_maps;

pub use object::{Options, accept_all};
pub use read::Cell;

use crate::{
    flows::Entry,
    zones::{Slots, Table},
};
use meridian_abi::{Counter, device, stats::Stat};
use object::Loaded;
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
    /// No program can be attached.
    #[error("attaching to netfilter POSTROUTING for {family}: {source}")]
    Attach {
        /// IPv4 or IPv6.
        family: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// The programs of one node with their maps. Dropped, everything leaves the kernel: the links
/// first, so that no network namespace is kept alive by one.
pub struct Datapath {
    links: Vec<OwnedFd>,
    zones: ZoneMaps,
    loaded: Loaded,
    options: Options,
    /// What the map UPLINKS holds, without its zeros.
    uplinks: BTreeMap<u32, u64>,
}

impl Datapath {
    /// Loads programs and maps. Nothing is attached yet, and every zone is unknown.
    ///
    /// # Errors
    /// The kernel is too old, or does not let us.
    pub fn load(options: Options) -> Result<Self, Error> {
        let loaded = object::load(&options)?;
        let zones = ZoneMaps::new(loaded.map("CONTROL")?)?;
        Ok(Self { links: Vec::new(), zones, loaded, options, uplinks: BTreeMap::new() })
    }

    /// Attaches at netfilter POSTROUTING in the calling thread's network namespace, for IPv4 and
    /// IPv6, each at the highest free priority below source NAT. Returns the two priorities.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn attach(&mut self) -> Result<[i32; 2], Error> {
        let v4 = attach(self.loaded.postrouting_v4.as_fd(), libc::AF_INET)
            .map_err(|source| Error::Attach { family: "IPv4", source })?;
        let v6 = attach(self.loaded.postrouting_v6.as_fd(), libc::AF_INET6)
            .map_err(|source| Error::Attach { family: "IPv6", source })?;
        self.links = vec![v4.0, v6.0];
        Ok([v4.1, v6.1])
    }

    /// Detaches the programs; the maps stay readable.
    pub fn detach(&mut self) {
        self.links.clear();
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

    /// Makes the kernel classify by this table. Zones without a slot below the side of the matrix
    /// count as unknown.
    ///
    /// # Errors
    /// The kernel's answer; the old table stays in force then.
    pub fn apply_zones(&mut self, table: &Table, slots: &Slots) -> Result<(), Error> {
        let maps = [self.loaded.map("ZONES_0")?, self.loaded.map("ZONES_1")?];
        self.zones.apply(maps, table, slots, self.options.matrix_slots)
    }

    /// The cells of ZONE_MATRIX that are not zero, summed over the CPUs.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn matrix(&self) -> Result<Vec<Cell>, Error> {
        read::matrix(self.loaded.map("ZONE_MATRIX")?, self.options.matrix_slots)
    }

    /// A counter of STATS, summed over the CPUs.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn stat(&self, stat: Stat) -> Result<Counter, Error> {
        read::stat(self.loaded.map("STATS")?, stat)
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

    /// The programs, for IPv4 and IPv6: for test runs.
    pub fn programs(&self) -> [BorrowedFd<'_>; 2] {
        [self.loaded.postrouting_v4.as_fd(), self.loaded.postrouting_v6.as_fd()]
    }
}

fn attach(program: BorrowedFd<'_>, family: i32) -> io::Result<(OwnedFd, i32)> {
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
