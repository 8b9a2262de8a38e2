//! Reads the flow entries in shared memory, and removes idle ones: visit [`meridian_abi::flow`] for the states of a
//! slot.

use super::{
    Error,
    grace::wait_for_programs,
    maps::Maps,
    memory::{Memory, SharedCounter, SharedPinnedState, SharedSlot},
};
use crate::flows::{Entry, SlotId};
use meridian_abi::{
    Counter,
    control::PinnedState,
    flow::{self, FlowKey, PacketPath, ServiceSide, SideAndPath, V4, V6, Verdict},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::Ordering,
};

/// An entry that is being removed. Its counters are read a last time when no program uses it any more.
#[derive(Clone, Copy, Debug)]
pub struct Retiring {
    slot: SlotId,
    verdict: u64,
}

/// The flow maps.
pub(super) struct FlowMaps {
    v4: Memory<SharedSlot<V4>>,
    v6: Memory<SharedSlot<V6>>,
    pinned_state: Memory<SharedPinnedState>,
}

/// An address as it is in a key.
trait Address: Copy + 'static {
    fn domain(self) -> IpAddr;
    fn zero() -> Self;
}

impl Address for V4 {
    fn domain(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.0.to_ne_bytes()))
    }

    fn zero() -> Self {
        Self(0)
    }
}

impl Address for V6 {
    fn domain(self) -> IpAddr {
        let octets: [u8; 16] = zerocopy::transmute!(self.0);
        IpAddr::V6(Ipv6Addr::from(octets))
    }

    fn zero() -> Self {
        Self([0; 4])
    }
}

impl FlowMaps {
    /// The flow maps, with this many slots each.
    pub(super) fn new(maps: &Maps, slots: u32) -> Result<Self, Error> {
        let maps = Self {
            v4: Memory::map(&maps.flows_v4, slots as usize)?,
            v6: Memory::map(&maps.flows_v6, slots as usize)?,
            pinned_state: Memory::map(&maps.pinned_state, 1)?,
        };
        maps.end_interrupted();
        Ok(maps)
    }

    /// The slots of both maps together.
    pub(super) const fn slots(&self) -> usize {
        self.v4.values().len() + self.v6.values().len()
    }

    /// Calls `visit` with every entry in use.
    pub(super) fn read(&self, mut visit: impl FnMut(Entry)) {
        let v6 = self.v4.values().len();
        read(self.v4.values(), 0, &mut visit);
        read(self.v6.values(), v6, &mut visit);
    }

    /// Starts removing an entry that was just read. `None`: a packet used it in the meantime.
    pub(super) fn retire(&self, entry: &Entry) -> Option<Retiring> {
        let (slot, seen) = (entry.slot, entry.verdict.pack());
        let verdict = match self.find(slot) {
            Ok(slot) => &slot.verdict,
            Err(slot) => &slot.verdict,
        };
        verdict.compare_exchange(seen, flow::RETIRED, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        Some(Retiring { slot, verdict: seen })
    }

    /// The entries that are out of use, with their final counters; a packet has put the others back into use. Must be
    /// called some time after the entries were retired.
    pub(super) fn retired(&self, retiring: Vec<Retiring>) -> Vec<Entry> {
        if retiring.is_empty() {
            return Vec::new();
        }
        // A program that read the verdict earlier may still be about to add to the counters.
        wait_for_programs();
        let last = |retiring: Retiring| match self.find(retiring.slot) {
            Ok(slot) => last(slot, retiring),
            Err(slot) => last(slot, retiring),
        };
        retiring.into_iter().filter_map(last).collect()
    }

    /// Empties the slots of entries that [`retired`](Self::retired) returned.
    pub(super) fn empty(&self, slots: impl IntoIterator<Item = SlotId>) {
        let v6 = self.v4.values().len();
        slots.into_iter().for_each(|slot| match self.find(slot) {
            Ok(found) => self.empty_slot(found, slot.0 as u64),
            Err(found) => self.empty_slot(found, (slot.0 - v6) as u64 | PinnedState::V6_SLOT),
        });
    }

    /// The sum over all entries, removed ones included.
    pub(super) fn sum(&self) -> Counter {
        let mut sum = self.retired_sum();
        let mut add = |counter: &SharedCounter| sum += load(counter);
        self.v4.values().iter().for_each(|slot| add(&slot.counter));
        self.v6.values().iter().for_each(|slot| add(&slot.counter));
        sum
    }

    /// Puts entries back into use that an earlier agent had started to remove. They have the zones of `classify` until
    /// the next packet.
    pub(super) fn bring_back(&self, mut classify: impl FnMut(&Entry) -> Verdict) {
        let v6 = self.v4.values().len();
        bring_back(self.v4.values(), 0, &mut classify);
        bring_back(self.v6.values(), v6, &mut classify);
    }

    fn retired_sum(&self) -> Counter {
        self.pinned_state.values().first().map_or_else(Counter::default, |pinned_state| load(&pinned_state.retired))
    }

    fn find(&self, slot: SlotId) -> Result<&SharedSlot<V4>, &SharedSlot<V6>> {
        let v4 = self.v4.values();
        v4.get(slot.0).ok_or_else(|| &self.v6.values()[slot.0 - v4.len()])
    }

    fn empty_slot<A: Address>(&self, slot: &SharedSlot<A>, number: u64) {
        let Some(pinned_state) = self.pinned_state.values().first() else { return };
        let mut sum = load(&pinned_state.retired);
        sum += load(&slot.counter);
        // If this process is killed from here on, the next one completes the removal from the pinned state.
        store(&pinned_state.retired_next, sum);
        pinned_state.retiring.store(number + 1, Ordering::SeqCst);
        end(pinned_state, slot);
    }

    /// Completes the removal that a killed agent had started.
    fn end_interrupted(&self) {
        let Some(pinned_state) = self.pinned_state.values().first() else { return };
        let Some(number) = pinned_state.retiring.load(Ordering::SeqCst).checked_sub(1) else { return };
        if number & PinnedState::V6_SLOT == 0 {
            self.v4.values().get(number as usize).into_iter().for_each(|slot| end(pinned_state, slot));
        } else {
            let number = (number - PinnedState::V6_SLOT) as usize;
            self.v6.values().get(number).into_iter().for_each(|slot| end(pinned_state, slot));
        }
    }
}

fn load(counter: &SharedCounter) -> Counter {
    Counter { bytes: counter.bytes.load(Ordering::Relaxed), packets: counter.packets.load(Ordering::Relaxed) }
}

fn store(counter: &SharedCounter, value: Counter) {
    counter.bytes.store(value.bytes, Ordering::SeqCst);
    counter.packets.store(value.packets, Ordering::SeqCst);
}

/// Applies the pinned state of a removal and empties the slot. Doing it twice has the same result.
fn end<A: Address>(pinned_state: &SharedPinnedState, slot: &SharedSlot<A>) {
    store(&pinned_state.retired, load(&pinned_state.retired_next));
    store(&slot.counter, Counter::default());
    let key = FlowKey {
        source: A::zero(),
        destination: A::zero(),
        service_port: 0,
        protocol: 0,
        side_and_path: SideAndPath::new(ServiceSide::None, PacketPath::Sent),
    };
    // SAFETY: the word is RETIRED, so no program reads or writes the key.
    unsafe { slot.key.get().write_volatile(key) };
    pinned_state.retiring.store(0, Ordering::SeqCst);
    slot.verdict.store(flow::EMPTY, Ordering::SeqCst);
}

fn read<A: Address>(slots: &[SharedSlot<A>], first: usize, visit: &mut impl FnMut(Entry)) {
    for (number, slot) in slots.iter().enumerate() {
        let word = slot.verdict.load(Ordering::Acquire);
        if flow::is_verdict(word) {
            visit(entry(slot, SlotId(first + number), word));
        }
    }
}

fn bring_back<A: Address>(slots: &[SharedSlot<A>], first: usize, classify: &mut impl FnMut(&Entry) -> Verdict) {
    for (number, slot) in slots.iter().enumerate() {
        if slot.verdict.load(Ordering::Acquire) == flow::RETIRED {
            let entry = entry(slot, SlotId(first + number), flow::RETIRED);
            // An entry without counts can only be emptied.
            let word = if entry.counter.packets == 0 { flow::EMPTY } else { classify(&entry).pack() };
            slot.verdict.store(word, Ordering::SeqCst);
        }
    }
}

fn last<A: Address>(slot: &SharedSlot<A>, retiring: Retiring) -> Option<Entry> {
    let is_out_of_use = slot.verdict.load(Ordering::SeqCst) == flow::RETIRED;
    is_out_of_use.then(|| entry(slot, retiring.slot, retiring.verdict))
}

/// The entry in a used slot; `word` has its zones.
fn entry<A: Address>(slot: &SharedSlot<A>, id: SlotId, word: u64) -> Entry {
    // SAFETY: with a verdict or RETIRED only this thread changes the key.
    let key = unsafe { slot.key.get().read_volatile() };
    Entry {
        slot: id,
        generation: slot.generation.load(Ordering::Relaxed),
        source: key.source.domain(),
        destination: key.destination.domain(),
        protocol: key.protocol,
        service_port: key.service_port,
        client_port: slot.client_port.load(Ordering::Relaxed),
        side: key.side_and_path.side(),
        path: key.side_and_path.path(),
        verdict: Verdict::unpack(word),
        counter: load(&slot.counter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::memory::Shared;

    #[test]
    fn memory_is_laid_out_as_the_kernel_has_it() {
        fn same<T: Shared>() -> bool {
            size_of::<T>() == size_of::<T::Value>()
        }
        assert!(same::<SharedSlot<V4>>() && same::<SharedSlot<V6>>() && same::<SharedPinnedState>());
        assert_eq!(std::mem::offset_of!(SharedSlot<V6>, key), std::mem::offset_of!(flow::FlowSlot<V6>, key));
        assert_eq!(
            std::mem::offset_of!(SharedSlot<V4>, generation),
            std::mem::offset_of!(flow::FlowSlot<V4>, generation)
        );
        assert_eq!(std::mem::offset_of!(SharedPinnedState, boot_id), std::mem::offset_of!(PinnedState, boot_id));
    }
}
