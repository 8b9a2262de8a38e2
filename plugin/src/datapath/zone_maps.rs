//! Keeps the zone table in the kernel: two longest-prefix maps, of which the epoch's low bit names
//! the one that is read.
//!
//! A new table is written into the other map, then the epoch moves: a packet sees the old table or
//! the new one, never a part of each, and no prefix is ever absent.

use super::{Error, sys};
use crate::zones::Slots;
use crate::zones::Table;
use aya::maps::lpm_trie::Key;
use ipnetwork::IpNetwork;
use meridian_abi::{
    flow::{V4, V6},
    zone::{Address, Control, VERSION_BITS},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::{
    collections::BTreeSet,
    ffi::c_void,
    io,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};
use zerocopy::{Immutable, IntoBytes};

/// A key of the longest-prefix maps as bpf(2) takes it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PrefixKey {
    prefix_len: u32,
    address: Address,
}

const _: () = assert!(size_of::<PrefixKey>() == size_of::<Key<Address>>());

impl From<&IpNetwork> for PrefixKey {
    fn from(prefix: &IpNetwork) -> Self {
        let address = match prefix {
            IpNetwork::V4(v4) => Address::v4(V4(u32::from_ne_bytes(v4.network().octets()))),
            IpNetwork::V6(v6) => {
                let mut words = [0; 4];
                for (word, bytes) in words.iter_mut().zip(v6.network().octets().chunks_exact(4)) {
                    *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
                Address::v6(V6(words))
            }
        };
        Self { prefix_len: VERSION_BITS + u32::from(prefix.prefix()), address }
    }
}

/// The two maps, and the epoch.
pub(super) struct ZoneMaps {
    /// Prefixes of which the map that is not read may say something else than the table.
    behind: BTreeSet<IpNetwork>,
    control: ControlPage,
}

impl ZoneMaps {
    /// Over empty maps.
    pub(super) fn new(control: BorrowedFd<'_>) -> Result<Self, Error> {
        Ok(Self { behind: BTreeSet::new(), control: ControlPage::map(control)? })
    }

    /// Makes the kernel read `table`, which differs from the table before in the prefixes `changed`
    /// only. The zones of the table have their slots in `slots`.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses. The old table stays in force then.
    pub(super) fn apply(
        &mut self,
        maps: [BorrowedFd<'_>; 2],
        table: &Table,
        changed: impl IntoIterator<Item = IpNetwork>,
        slots: &Slots,
        capacity: u32,
    ) -> Result<(), Error> {
        let next = self.control.epoch().load(Ordering::Relaxed).wrapping_add(1).max(2);
        let map = maps[(next & 1) as usize];
        // A program that began before the last change may still be reading this map.
        wait_for_programs();
        let changed: BTreeSet<IpNetwork> = changed.into_iter().collect();
        // If this fails, the map holds a part of what is not in force: all of it is written again then.
        let before = std::mem::take(&mut self.behind);
        let all = before.union(&changed);
        let written = write(map, all.clone().copied(), table, slots, capacity);
        if written.is_ok() {
            self.control.epoch().store(next, Ordering::Release);
            // The map that was read until now lacks these.
            self.behind = changed;
        } else {
            self.behind = all.copied().collect();
        }
        written
    }
}

/// Makes a map that nobody reads say of the prefixes what the table says.
fn write(
    map: BorrowedFd<'_>,
    prefixes: impl Iterator<Item = IpNetwork> + Clone,
    table: &Table,
    slots: &Slots,
    capacity: u32,
) -> Result<(), Error> {
    // Room is made first.
    for prefix in prefixes.clone().filter(|prefix| table.get(prefix).is_none()) {
        match sys::delete(map, &PrefixKey::from(&prefix)) {
            // It came and went while the other map was written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(|source| Error::Prefix { prefix, source })?,
        }
    }
    for (prefix, placement) in prefixes.filter_map(|prefix| Some((prefix, table.get(&prefix)?))) {
        sys::update(map, &PrefixKey::from(&prefix), &slots.entry(placement, capacity))
            .map_err(|source| Error::Prefix { prefix, source })?;
    }
    Ok(())
}

/// Returns when every program that was running has ended.
fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // The command waits for an RCU grace period, and programs run inside RCU.
    // SAFETY: membarrier takes no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } == 0;
    if !done {
        // Not on kernels with nohz_full: a program runs for microseconds.
        thread::sleep(Duration::from_millis(50));
    }
}

/// The map CONTROL in this process's memory, so that the epoch is stored as one word.
struct ControlPage(NonNull<c_void>);

// SAFETY: the page is shared memory, used through atomics only.
unsafe impl Send for ControlPage {}
// SAFETY: as above.
unsafe impl Sync for ControlPage {}

impl ControlPage {
    const LEN: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

    fn map(control: BorrowedFd<'_>) -> Result<Self, Error> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        unsafe { mmap(None, Self::LEN, access, MapFlags::MAP_SHARED, control, 0) }
            .map(Self)
            .map_err(|errno| Error::Map { map: "CONTROL".into(), source: io::Error::from(errno) })
    }

    fn epoch(&self) -> &AtomicU32 {
        // SAFETY: the page begins with a Control, lives as long as self, and is only used here.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0.as_ptr().cast::<Control>()).epoch) }
    }
}

impl Drop for ControlPage {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made.
        let _ = unsafe { munmap(self.0, Self::LEN.get()) };
    }
}
