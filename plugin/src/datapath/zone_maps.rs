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
    zone::{Address, Control, Entry, VERSION_BITS},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::{
    collections::BTreeMap,
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

/// What the two maps hold, and the epoch.
pub(super) struct ZoneMaps {
    contents: [BTreeMap<IpNetwork, Entry>; 2],
    control: ControlPage,
}

impl ZoneMaps {
    /// Over empty maps.
    pub(super) fn new(control: BorrowedFd<'_>) -> Result<Self, Error> {
        Ok(Self { contents: Default::default(), control: ControlPage::map(control)? })
    }

    /// Makes the kernel read `table`. The zones of the table have their slots in `slots`.
    ///
    /// # Errors
    /// A map is full, or the kernel refuses. The old table stays in force then.
    pub(super) fn apply(
        &mut self,
        maps: [BorrowedFd<'_>; 2],
        table: &Table,
        slots: &Slots,
        capacity: u32,
    ) -> Result<(), Error> {
        let next = self.control.epoch().load(Ordering::Relaxed).wrapping_add(1).max(2);
        let index = (next & 1) as usize;
        // A program that began before the last change may still be reading this map.
        wait_for_programs();
        let wanted: BTreeMap<IpNetwork, Entry> =
            table.prefixes().map(|(prefix, placement)| (*prefix, slots.entry(placement, capacity))).collect();
        let content = &mut self.contents[index];
        // Nobody reads this map, so room is made first.
        let gone: Vec<IpNetwork> = content.keys().filter(|prefix| !wanted.contains_key(prefix)).copied().collect();
        for prefix in gone {
            let failed = |source| Error::Prefix { prefix, source };
            sys::delete(maps[index], &PrefixKey::from(&prefix)).map_err(failed)?;
            content.remove(&prefix);
        }
        for (prefix, entry) in wanted {
            if content.get(&prefix) != Some(&entry) {
                let failed = |source| Error::Prefix { prefix, source };
                sys::update(maps[index], &PrefixKey::from(&prefix), &entry).map_err(failed)?;
                content.insert(prefix, entry);
            }
        }
        self.control.epoch().store(next, Ordering::Release);
        Ok(())
    }
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
