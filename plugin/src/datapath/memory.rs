//! Maps in this process's memory (`BPF_F_MMAPABLE`): values are shared with the programs without system calls.

use super::{Error, maps::Map};
use meridian_abi::{
    control::{Control, PinnedState},
    flow::{FlowKey, FlowSlot, V4, V6},
    index::{CELLS, Line, Numbers, Pair},
};
#[cfg(test)]
use nix::sys::mman::mmap_anonymous;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::{
    cell::UnsafeCell,
    ffi::c_void,
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    ptr::NonNull,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64},
};

/// A value of an array map that others write at the same time. This process therefore uses it through atomics.
///
/// # Safety
/// The type has the size and layout of the map's value, every bit pattern is valid, and every part that others may
/// write at any time is an atomic or a cell.
pub(super) unsafe trait Shared {
    /// The map's value type.
    type Value;
}

/// The values of an array map.
pub(super) struct Memory<T> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    values: usize,
    kind: PhantomData<T>,
}

// SAFETY: shared memory that belongs to no thread; its contents are Sync or used as their types require.
unsafe impl<T: Shared> Send for Memory<T> {}

impl<T: Shared> Memory<T> {
    /// Maps the memory of a map with this many values.
    pub(super) fn map(map: &Map<u32, T::Value>, values: usize) -> Result<Self, Error> {
        const { assert!(size_of::<T>() == size_of::<T::Value>() && align_of::<T>() <= 8) };
        // The kernel maps whole pages only.
        let bytes = NonZeroUsize::MIN.max(NonZeroUsize::new(values * size_of::<T>()).unwrap_or(NonZeroUsize::MIN));
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map, 0) }
            .map_err(|errno| map.failed(io::Error::from(errno)))?;
        Ok(Self { start, bytes, values, kind: PhantomData })
    }

    /// Memory that nobody shares, all zeros.
    #[cfg(test)]
    pub(super) fn of_test(values: usize) -> Self {
        let bytes = NonZeroUsize::new(values * size_of::<T>()).unwrap();
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, bytes, access, MapFlags::MAP_PRIVATE) }.unwrap();
        Self { start, bytes, values, kind: PhantomData }
    }

    /// All values.
    pub(super) const fn values(&self) -> &[T] {
        // SAFETY: the mapping has this many values and lives as long as self; T allows others to write.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.values) }
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

/// [`Control`] in shared memory.
#[repr(C)]
pub(super) struct SharedControl {
    pub(super) epoch: AtomicU32,
    pub(super) node: AtomicU16,
    pub(super) externals: AtomicU16,
    pub(super) destination_ports: [AtomicU16; Control::PORTS],
    pub(super) source_ports: [AtomicU16; Control::PORTS],
    pub(super) protocols: AtomicU32,
    pub(super) overlay: AtomicU32,
    pub(super) uplinks: [AtomicU32; Control::UPLINKS],
    pub(super) more_devices: AtomicU32,
    reserved: [AtomicU32; 3],
}

// SAFETY: the fields of Control, each an atomic.
unsafe impl Shared for SharedControl {
    type Value = Control;
}

/// [`Counter`](meridian_abi::Counter) in shared memory.
#[repr(C)]
pub(super) struct SharedCounter {
    pub(super) bytes: AtomicU64,
    pub(super) packets: AtomicU64,
}

/// [`PinnedState`] in shared memory.
#[repr(C)]
pub(super) struct SharedPinnedState {
    pub(super) retired: SharedCounter,
    pub(super) retired_next: SharedCounter,
    pub(super) retiring: AtomicU64,
    pub(super) seed: AtomicU64,
    pub(super) epoch: AtomicU32,
    reserved: AtomicU32,
    pub(super) boot_id: [AtomicU64; 2],
}

// SAFETY: the fields of PinnedState, each an atomic.
unsafe impl Shared for SharedPinnedState {
    type Value = PinnedState;
}

/// [`Line`] in shared memory.
#[repr(transparent)]
pub(super) struct SharedLine(pub(super) [AtomicU32; CELLS as usize]);

// SAFETY: the numbers of Line, each an atomic.
unsafe impl Shared for SharedLine {
    type Value = Line;
}

/// [`Pair`] in shared memory.
#[repr(C, align(8))]
pub(super) struct SharedPair(pub(super) [AtomicU32; 2]);

// SAFETY: the cells of Pair, each an atomic.
unsafe impl Shared for SharedPair {
    type Value = Pair;
}

/// [`Numbers`] in shared memory.
#[repr(C)]
pub(super) struct SharedNumbers {
    pub(super) taken: AtomicU64,
    pub(super) next: AtomicU64,
    reserved: [AtomicU64; 6],
    pub(super) given: AtomicU64,
    reserved_given: [AtomicU64; 7],
}

// SAFETY: the fields of Numbers, each an atomic.
unsafe impl Shared for SharedNumbers {
    type Value = Numbers;
}

/// [`FlowSlot`] in shared memory.
#[repr(C)]
pub(super) struct SharedSlot<A> {
    pub(super) verdict: AtomicU64,
    pub(super) counter: SharedCounter,
    /// Written by the one owner of the slot at the time: see [`meridian_abi::flow`].
    pub(super) key: UnsafeCell<FlowKey<A>>,
    pub(super) client_port: AtomicU16,
    pub(super) generation: AtomicU16,
}

// SAFETY: the fields of FlowSlot, each an atomic or a cell.
unsafe impl Shared for SharedSlot<V4> {
    type Value = FlowSlot<V4>;
}
// SAFETY: as above.
unsafe impl Shared for SharedSlot<V6> {
    type Value = FlowSlot<V6>;
}
