//! Reads the flow entries in shared memory, and removes idle ones: visit [`meridian_abi::flow`] for the states of a
//! slot.

use super::{
    Error,
    grace::wait_for_programs,
    maps::Maps,
    memory::{Memory, Shared, SharedCounter, SharedPinnedState, SharedSlot},
    numbers::{NumberSet, Numbers},
};
use crate::flows::{Entry, SlotId};
use meridian_abi::{
    Counter, IpVersion,
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
    v4: FlowMap<V4>,
    v6: FlowMap<V6>,
    pinned_state: Memory<SharedPinnedState>,
}

/// The flow entries of an IP version, by number, and what finds them.
struct FlowMap<A> {
    slots: Memory<SharedSlot<A>>,
    numbers: Numbers,
}

impl<A> FlowMap<A>
where
    SharedSlot<A>: Shared,
{
    /// The slots that entries have had.
    fn used(&self) -> &[SharedSlot<A>] {
        let slots = self.slots.values();
        slots.get(..self.numbers.next()).unwrap_or(slots)
    }

    /// The empty slots whose numbers are not in the ring: programs are about to use them, or an agent was killed
    /// before it gave them back.
    fn missing(&self) -> Vec<usize> {
        // Before the slots: what a program takes afterwards is not missing.
        let free = self.numbers.free();
        let slots = self.used().iter().enumerate();
        slots.filter(|(number, slot)| is_empty(slot) && !free.has(*number)).map(|(number, _)| number).collect()
    }

    /// Those that are still empty. No program that began before runs any more.
    fn still_empty(&self, mut numbers: Vec<usize>) -> Vec<usize> {
        numbers.retain(|number| self.slots.values().get(*number).is_some_and(is_empty));
        numbers
    }
}

fn is_empty<A>(slot: &SharedSlot<A>) -> bool {
    slot.verdict.load(Ordering::SeqCst) == flow::EMPTY
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
        let slots = slots as usize;
        let [v4, v6] = [IpVersion::V4, IpVersion::V6].map(|version| Numbers::map(maps, version, slots));
        let maps = Self {
            v4: FlowMap { slots: Memory::map(&maps.flows_v4, slots)?, numbers: v4? },
            v6: FlowMap { slots: Memory::map(&maps.flows_v6, slots)?, numbers: v6? },
            pinned_state: Memory::map(&maps.pinned_state, 1)?,
        };
        maps.end_interrupted();
        Ok(maps)
    }

    /// The slots of both maps together.
    pub(super) const fn slots(&self) -> usize {
        self.v4.slots.values().len() + self.v6.slots.values().len()
    }

    /// Calls `visit` with every entry in use.
    pub(super) fn read(&self, mut visit: impl FnMut(Entry)) {
        let v6 = self.v4.slots.values().len();
        read(self.v4.used(), 0, &mut visit);
        read(self.v6.used(), v6, &mut visit);
    }

    /// Starts removing an entry that was just read. `None`: a packet used it in the meantime.
    pub(super) fn retire(&self, entry: &Entry) -> Option<Retiring> {
        let (slot, seen) = (entry.slot, entry.verdict.pack());
        let verdict = match self.find(slot) {
            Ok(slot) => &slot.verdict,
            Err(slot) => &slot.verdict,
        };
        verdict.compare_exchange(seen, flow::RETIRED, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        step();
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

    /// Empties the slots of entries that [`retired`](Self::retired) returned, and gives their numbers back.
    pub(super) fn empty(&self, slots: impl IntoIterator<Item = SlotId>) {
        let mut numbers = [Vec::new(), Vec::new()];
        let v6 = self.v4.slots.values().len();
        for slot in slots {
            match self.find(slot) {
                Ok(found) => {
                    self.empty_slot(found, slot.0 as u64);
                    numbers[0].push(slot.0);
                }
                Err(found) => {
                    self.empty_slot(found, (slot.0 - v6) as u64 | PinnedState::V6_SLOT);
                    numbers[1].push(slot.0 - v6);
                }
            }
        }
        self.give_back(numbers);
    }

    /// Gives the numbers of empty slots of IPv4 and IPv6 back.
    fn give_back(&self, [v4, v6]: [Vec<usize>; 2]) {
        if v4.is_empty() && v6.is_empty() {
            return;
        }
        let both = [(&self.v4.numbers, v4), (&self.v6.numbers, v6)];
        for (numbers, empty) in both.iter().filter(|(_, empty)| !empty.is_empty()) {
            numbers.clear(&NumberSet::new(self.v4.slots.values().len(), empty.iter().copied()), step);
        }
        // A program that read a cell earlier may be about to read the slot.
        wait_for_programs();
        for (numbers, empty) in both {
            empty.into_iter().for_each(|number| numbers.give(number, step));
        }
    }

    /// The sum over all entries, removed ones included.
    pub(super) fn sum(&self) -> Counter {
        let mut sum = self.retired_sum();
        let mut add = |counter: &SharedCounter| sum += load(counter);
        self.v4.used().iter().for_each(|slot| add(&slot.counter));
        self.v6.used().iter().for_each(|slot| add(&slot.counter));
        sum
    }

    /// Puts entries back into use that an earlier agent had started to remove. They have the zones of `classify` until
    /// the next packet.
    pub(super) fn bring_back(&self, mut classify: impl FnMut(&Entry) -> Verdict) {
        let v6 = self.v4.slots.values().len();
        if is_any_retired(self.v4.used()) || is_any_retired(self.v6.used()) {
            // A program may still be about to count the first packet.
            wait_for_programs();
        }
        let numbers = [bring_back(self.v4.used(), 0, &mut classify), bring_back(self.v6.used(), v6, &mut classify)];
        self.give_back(numbers);
    }

    fn retired_sum(&self) -> Counter {
        self.pinned_state.values().first().map_or_else(Counter::default, |pinned_state| load(&pinned_state.retired))
    }

    fn find(&self, slot: SlotId) -> Result<&SharedSlot<V4>, &SharedSlot<V6>> {
        let v4 = self.v4.slots.values();
        v4.get(slot.0).ok_or_else(|| &self.v6.slots.values()[slot.0 - v4.len()])
    }

    fn empty_slot<A: Address>(&self, slot: &SharedSlot<A>, number: u64) {
        let Some(pinned_state) = self.pinned_state.values().first() else { return };
        let mut sum = load(&pinned_state.retired);
        sum += load(&slot.counter);
        // If this process is killed from here on, the next one completes the removal from the pinned state.
        store(&pinned_state.retired_next, sum);
        pinned_state.retiring.store(number + 1, Ordering::SeqCst);
        step();
        end(pinned_state, slot);
    }

    /// Completes what a killed agent had started: the removal of an entry, and giving numbers back.
    fn end_interrupted(&self) {
        let Some(pinned_state) = self.pinned_state.values().first() else { return };
        if let Some(number) = pinned_state.retiring.load(Ordering::SeqCst).checked_sub(1) {
            if number & PinnedState::V6_SLOT == 0 {
                self.v4.slots.values().get(number as usize).into_iter().for_each(|slot| end(pinned_state, slot));
            } else {
                let number = (number - PinnedState::V6_SLOT) as usize;
                self.v6.slots.values().get(number).into_iter().for_each(|slot| end(pinned_state, slot));
            }
        }
        let (v4, v6) = (self.v4.missing(), self.v6.missing());
        if !v4.is_empty() || !v6.is_empty() {
            // A program that took its number earlier has written to its slot by then.
            wait_for_programs();
            self.give_back([self.v4.still_empty(v4), self.v6.still_empty(v6)]);
        }
    }
}

/// Between two steps of a removal. A test ends here, as a process does that is killed.
fn step() {
    #[cfg(test)]
    tests::step();
}

fn is_any_retired<A>(slots: &[SharedSlot<A>]) -> bool {
    slots.iter().any(|slot| slot.verdict.load(Ordering::Acquire) == flow::RETIRED)
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
    step();
    store(&slot.counter, Counter::default());
    step();
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
    step();
    slot.verdict.store(flow::EMPTY, Ordering::SeqCst);
    step();
}

fn read<A: Address>(slots: &[SharedSlot<A>], first: usize, visit: &mut impl FnMut(Entry)) {
    for (number, slot) in slots.iter().enumerate() {
        let word = slot.verdict.load(Ordering::Acquire);
        if flow::is_verdict(word) {
            visit(entry(slot, SlotId(first + number), word));
        }
    }
}

/// Returns the numbers of the entries that are empty instead.
fn bring_back<A: Address>(
    slots: &[SharedSlot<A>],
    first: usize,
    classify: &mut impl FnMut(&Entry) -> Verdict,
) -> Vec<usize> {
    let mut empty = Vec::new();
    for (number, slot) in slots.iter().enumerate() {
        if slot.verdict.load(Ordering::Acquire) == flow::RETIRED {
            let entry = entry(slot, SlotId(first + number), flow::RETIRED);
            // Its counters are kept, or it never had any.
            let word = if entry.counter.packets == 0 {
                empty.push(number);
                flow::EMPTY
            } else {
                classify(&entry).pack()
            };
            slot.verdict.store(word, Ordering::SeqCst);
            step();
        }
    }
    empty
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
    use crate::datapath::memory::{SharedLine, SharedNumbers, SharedPair};
    use meridian_abi::index;
    use std::{
        cell::Cell,
        panic::{self, AssertUnwindSafe},
    };

    thread_local! {
        /// The steps until this thread ends as if it were killed.
        static STEPS: Cell<Option<u32>> = const { Cell::new(None) };
    }

    pub(super) fn step() {
        if let Some(left) = STEPS.get() {
            STEPS.set(left.checked_sub(1));
            if left == 0 {
                // Without the message of a panic.
                panic::resume_unwind(Box::new("killed"));
            }
        }
    }

    #[test]
    fn memory_is_laid_out_as_the_kernel_has_it() {
        fn same<T: Shared>() -> bool {
            size_of::<T>() == size_of::<T::Value>()
        }
        assert!(same::<SharedSlot<V4>>() && same::<SharedSlot<V6>>() && same::<SharedPinnedState>());
        assert!(same::<SharedLine>() && same::<SharedPair>() && same::<SharedNumbers>());
        assert_eq!(std::mem::offset_of!(SharedNumbers, given), std::mem::offset_of!(index::Numbers, given));
        assert_eq!(std::mem::offset_of!(SharedSlot<V6>, key), std::mem::offset_of!(flow::FlowSlot<V6>, key));
        assert_eq!(
            std::mem::offset_of!(SharedSlot<V4>, generation),
            std::mem::offset_of!(flow::FlowSlot<V4>, generation)
        );
        assert_eq!(std::mem::offset_of!(SharedPinnedState, boot_id), std::mem::offset_of!(PinnedState, boot_id));
    }

    const ENTRIES: usize = 4;
    const VERDICT: Verdict = Verdict { epoch: 3, source: 2, destination: 2 };

    fn maps() -> FlowMaps {
        FlowMaps {
            v4: FlowMap { slots: Memory::of_test(ENTRIES), numbers: Numbers::of_test(ENTRIES) },
            v6: FlowMap { slots: Memory::of_test(ENTRIES), numbers: Numbers::of_test(ENTRIES) },
            pinned_state: Memory::of_test(1),
        }
    }

    /// Makes an entry and counts in it, as programs do. `false`: there is no number for it.
    fn make<A>(map: &FlowMap<A>, packets: u64) -> bool
    where
        SharedSlot<A>: Shared,
    {
        let Some(number) = map.numbers.take() else { return false };
        let slot = &map.slots.values()[number];
        assert!(is_empty(slot), "the number of an entry in use was free");
        slot.generation.fetch_add(1, Ordering::SeqCst);
        slot.verdict.store(VERDICT.pack(), Ordering::SeqCst);
        let cell = map.numbers.cells().find(|cell| cell.load(Ordering::SeqCst) == index::EMPTY).unwrap();
        cell.store(index::tag(number as u64) | number as u32, Ordering::SeqCst);
        store(&slot.counter, Counter { bytes: packets * 100, packets });
        true
    }

    fn in_use<A>(map: &FlowMap<A>) -> Vec<usize>
    where
        SharedSlot<A>: Shared,
    {
        let slots = map.used().iter().enumerate();
        slots
            .filter(|(_, slot)| flow::is_verdict(slot.verdict.load(Ordering::SeqCst)))
            .map(|(number, _)| number)
            .collect()
    }

    /// Every number is that of an entry, with its cell, or a free one, without.
    fn is_whole<A>(map: &FlowMap<A>)
    where
        SharedSlot<A>: Shared,
    {
        let (used, free) = (in_use(map), map.numbers.free());
        let cells = map.numbers.cells().map(|cell| cell.load(Ordering::SeqCst)).filter(|cell| *cell != index::EMPTY);
        let mut named: Vec<usize> = cells.map(|cell| index::number(cell) as usize).collect();
        named.sort_unstable();
        assert_eq!(named, used, "the index names the entries in use, each once");
        for number in 0..map.numbers.next() {
            assert_ne!(used.contains(&number), free.has(number), "number {number}");
        }
    }

    /// Removes all entries.
    fn remove_all(maps: &FlowMaps) {
        let mut entries = Vec::new();
        maps.read(|entry| entries.push(entry));
        let retired = maps.retired(entries.iter().filter_map(|entry| maps.retire(entry)).collect());
        maps.empty(retired.into_iter().map(|entry| entry.slot));
    }

    #[test]
    fn a_process_that_is_killed_between_any_two_steps_loses_no_count_and_no_number() {
        let mut killed = 0;
        for steps in 0.. {
            let maps = maps();
            // Two entries with counts, one without, and a number that has gone round before.
            assert!(make(&maps.v4, 1));
            remove_all(&maps);
            assert!([5, 0].into_iter().all(|packets| make(&maps.v4, packets)) && make(&maps.v6, 7));
            let whole = maps.sum();
            STEPS.set(Some(steps));
            let ended = panic::catch_unwind(AssertUnwindSafe(|| remove_all(&maps))).is_ok();
            STEPS.set(None);
            // The next process, which is killed as soon, and the one after it.
            for kill in [Some(steps % 3), None] {
                STEPS.set(kill);
                let _ = panic::catch_unwind(AssertUnwindSafe(|| {
                    maps.end_interrupted();
                    maps.bring_back(|_| VERDICT);
                }));
                STEPS.set(None);
            }
            assert_eq!(maps.sum(), whole, "killed after {steps} steps");
            is_whole(&maps.v4);
            is_whole(&maps.v6);
            // All slots can be used once more.
            remove_all(&maps);
            assert!((0..ENTRIES).all(|_| make(&maps.v4, 1)) && !make(&maps.v4, 1), "killed after {steps} steps");
            assert_eq!(in_use(&maps.v4), [0, 1, 2, 3]);
            if ended {
                break;
            }
            killed += 1;
        }
        assert!(killed > 25, "{killed} steps");
    }
}
