//! The flow maps: entries are looked up, made and counted in.

use crate::{
    maps::{Address, add, epoch, hash_keys, opaque, setting},
    shares,
};
use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xchg},
    ptr,
};
use meridian_abi::{
    Counter,
    flow::{self, FlowKey, FlowSlot, PROBES, V4, V6, Verdict},
};
use meridian_ebpf::hash::{self, Hash};

/// The loader sets the sizes.
#[map]
static FLOWS_V4: Array<FlowSlot<V4>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static FLOWS_V6: Array<FlowSlot<V6>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// An address family with its flow map.
pub trait FlowTable: Address + PartialEq + 'static {
    /// The flow map.
    fn flows() -> &'static Array<FlowSlot<Self>>;

    /// The hash of a key.
    fn hash(key: &FlowKey<Self>) -> u64;

    /// Whether a slot has this key, compared in words of 64 bits.
    ///
    /// # Safety
    /// The slot is a map value.
    unsafe fn is_key(slot: *const FlowSlot<Self>, key: &FlowKey<Self>) -> bool;
}

impl FlowTable for V4 {
    #[inline(always)]
    fn flows() -> &'static Array<FlowSlot<Self>> {
        &FLOWS_V4
    }

    #[inline(always)]
    fn hash(key: &FlowKey<Self>) -> u64 {
        key.hash(&hash_keys())
    }

    #[inline(always)]
    unsafe fn is_key(slot: *const FlowSlot<Self>, key: &FlowKey<Self>) -> bool {
        // SAFETY: the key of a map value, at a multiple of 8 bytes: two addresses, then the rest.
        let (addresses, rest) = unsafe {
            let stored = (&raw const (*slot).key).cast::<u64>();
            (ptr::read(stored), ptr::read(stored.add(1).cast::<u32>()))
        };
        addresses == pair(key.source.0, key.destination.0) && rest == key_rest(key)
    }
}

impl FlowTable for V6 {
    #[inline(always)]
    fn flows() -> &'static Array<FlowSlot<Self>> {
        &FLOWS_V6
    }

    #[inline(always)]
    fn hash(key: &FlowKey<Self>) -> u64 {
        key.hash(&hash_keys())
    }

    #[inline(always)]
    unsafe fn is_key(slot: *const FlowSlot<Self>, key: &FlowKey<Self>) -> bool {
        let V6([a, b, c, d]) = key.source;
        let V6([e, f, g, h]) = key.destination;
        // SAFETY: the key of a map value, at a multiple of 8 bytes: four halves of addresses, then the rest.
        let (halves, rest) = unsafe {
            let stored = (&raw const (*slot).key).cast::<u64>();
            ([0, 1, 2, 3].map(|at| ptr::read(stored.add(at))), ptr::read(stored.add(4).cast::<u32>()))
        };
        halves[1] == pair(c, d)
            && halves[3] == pair(g, h)
            && rest == key_rest(key)
            && halves[0] == pair(a, b)
            && halves[2] == pair(e, f)
    }
}

/// Two words as they lie in memory.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// Everything in a key but the addresses, as it lies in memory.
#[inline(always)]
const fn key_rest<A>(key: &FlowKey<A>) -> u32 {
    let [a, b] = key.service_port.to_ne_bytes();
    u32::from_ne_bytes([a, b, key.protocol, key.side_and_path.byte()])
}

/// Whether there is an entry for `key`; 0: no. A function of its own, so that its variables are not on the callers' stack.
#[inline(never)]
pub fn has_entry<A: FlowTable>(key: &FlowKey<A>) -> u32 {
    u32::from(!find(key, A::hash(key)).0.is_null())
}

/// The entry of `key` and its verdict, if it is in the first run of its slots. Null: it may be elsewhere.
#[inline(always)]
pub fn near_entry<A: FlowTable>(key: &FlowKey<A>) -> (*mut FlowSlot<A>, Verdict) {
    let (hash, mask) = (A::hash(key), setting!(flow_slots).wrapping_sub(1));
    for probe in 0..hash::RUN {
        let Some(slot) = A::flows().get_ptr_mut(hash::slot(hash, probe, mask)) else { break };
        // SAFETY: as in `find`.
        let (word, is_of_key) = unsafe { (ptr::read_volatile(&raw const (*slot).verdict), A::is_key(slot, key)) };
        if is_of_key && flow::is_verdict(word) {
            return (slot, Verdict::unpack(word));
        }
    }
    (ptr::null_mut(), Verdict::unpack(flow::EMPTY))
}

/// The slot of `key`, and its word. Null: there is none.
#[inline(always)]
fn find<A: FlowTable>(key: &FlowKey<A>, hash: u64) -> (*mut FlowSlot<A>, u64) {
    let mask = setting!(flow_slots).wrapping_sub(1);
    // Unrolled it would be a third of the program.
    for probe in 0..opaque::<{ PROBES as i32 }>() {
        let Some(slot) = A::flows().get_ptr_mut(hash::slot(hash, probe as u32, mask)) else { break };
        // SAFETY: a non-null map value. Where the word is a verdict the key does not change.
        unsafe {
            let word = ptr::read_volatile(&raw const (*slot).verdict);
            if flow::is_verdict(word) && (*slot).key == *key {
                return (slot, word);
            }
        }
    }
    (ptr::null_mut(), flow::EMPTY)
}

/// A new entry for `key`, with this verdict. Null: there is no room.
#[inline(always)]
fn make<A: FlowTable>(key: &FlowKey<A>, hash: u64, verdict: Verdict) -> *mut FlowSlot<A> {
    let mask = setting!(flow_slots).wrapping_sub(1);
    for probe in 0..opaque::<{ PROBES as i32 }>() {
        let Some(slot) = A::flows().get_ptr_mut(hash::slot(hash, probe as u32, mask)) else { break };
        // SAFETY: a non-null map value. Who has swapped EMPTY for CLAIMED has the slot for itself
        // until it writes the word again; both exchanges are full barriers.
        unsafe {
            let word = &raw mut (*slot).verdict;
            let (_, taken) = atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                word,
                flow::EMPTY,
                flow::CLAIMED,
            );
            if taken {
                (*slot).key = *key;
                (*slot).generation = (*slot).generation.wrapping_add(1);
                atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(word, verdict.pack());
                return slot;
            }
        }
    }
    ptr::null_mut()
}

/// Where a packet's flow entry came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Known,
    /// It was made for this packet.
    Made,
    /// There is none: its slots are taken.
    NoRoom,
    /// There is none: the source has used up its share of the map.
    OverShare,
}

/// The flow entry of `key`, made if there is room, or null; its verdict; and where it came from.
///
/// Where `is_open`, the entry may have another key as well, which `turn` makes of it; an entry that exists for one of
/// the two decides. Applied twice, `turn` gives back the key as it was. `classify` finds the zones if the entry is new or
/// the table has changed.
#[inline(always)]
pub fn entry<A: FlowTable>(
    key: &mut FlowKey<A>,
    is_open: bool,
    mut turn: impl FnMut(&mut FlowKey<A>),
    classify: impl Fn(&FlowKey<A>, u32) -> Verdict,
) -> (*mut FlowSlot<A>, Verdict, Origin) {
    // Before the look-up: a table that changes in between leaves the old epoch in the entry, and
    // the next packet looks again.
    let epoch = epoch();
    let (mut slot, mut word) = (ptr::null_mut(), flow::EMPTY);
    let mut hash = A::hash(key);
    // One look-up in a loop: the verifiers before Linux 6.4 do not merge the states of a second one.
    for _ in 0..opaque::<2>() {
        (slot, word) = find(key, hash);
        if !slot.is_null() || !is_open {
            break;
        }
        turn(key);
        hash = A::hash(key);
    }
    let verdict = Verdict::unpack(word);
    if !slot.is_null() && verdict.epoch == epoch {
        return (slot, verdict, Origin::Known);
    }
    let verdict = classify(key, epoch);
    if slot.is_null() {
        if !shares::may_make_entry(key.source) {
            return (slot, verdict, Origin::OverShare);
        }
        let slot = make(key, hash, verdict);
        if slot.is_null() {
            return (slot, verdict, Origin::NoRoom);
        }
        shares::made_entry(key.source);
        return (slot, verdict, Origin::Made);
    }
    // Userspace may have retired the entry since the word was read, and this brings it back:
    // userspace looks once more before it takes the entry away.
    // SAFETY: a non-null map value; the verdict is written as one aligned word.
    unsafe { ptr::write_volatile(&raw mut (*slot).verdict, verdict.pack()) };
    (slot, verdict, Origin::Known)
}

/// Counts in a flow entry.
#[inline(always)]
pub fn add_to_entry<A>(slot: *mut FlowSlot<A>, client_port: u16, size: Counter) {
    // SAFETY: `slot` is a non-null map value; only field addresses are taken. CPUs may race for the
    // last port; any of theirs is right.
    let (bytes, packets) = unsafe {
        (*slot).client_port = client_port;
        (&raw mut (*slot).bytes, &raw mut (*slot).packets)
    };
    add(bytes, size.bytes);
    add(packets, size.packets);
}
