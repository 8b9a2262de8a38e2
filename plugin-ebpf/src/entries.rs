//! The flow maps: entries are looked up, made and counted in.

use crate::{
    maps::{Address, add, epoch, hash_keys, opaque},
    room::{self, INDEX_V4, INDEX_V6},
    shares,
};
use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use core::{
    intrinsics::{AtomicOrdering, atomic_xchg},
    ptr,
};
use meridian_abi::{
    Counter,
    flow::{self, FlowKey, FlowSlot, SideAndPath, V4, V6, Verdict},
    index::{self, Pair},
};
use meridian_ebpf::hash::Hash;

/// The loader sets the sizes.
#[map]
static FLOWS_V4: Array<FlowSlot<V4>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static FLOWS_V6: Array<FlowSlot<V6>> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// An address family with its flow map.
pub trait FlowTable: Address + PartialEq + 'static {
    /// The flow map.
    fn flows() -> &'static Array<FlowSlot<Self>>;

    /// The index of the flow map.
    fn index() -> &'static Array<Pair>;

    /// The hash of a key.
    fn hash(key: &FlowKey<Self>) -> u64;

    /// Whether a slot has this key, compared in words of 64 bits.
    ///
    /// # Safety
    /// The slot is a map value.
    unsafe fn is_key(slot: *const FlowSlot<Self>, key: &FlowKey<Self>) -> bool;

    /// The number of the entry of `key`, or `u32::MAX`.
    fn search(key: &FlowKey<Self>) -> u32;

    /// The place of a cell for a new entry, which no other program takes, or `u32::MAX`.
    fn reserved_cell(hash: u64) -> u32;

    /// A number that no entry has, or `u32::MAX`.
    fn taken_number() -> u32;
}

impl FlowTable for V4 {
    #[inline(always)]
    fn flows() -> &'static Array<FlowSlot<Self>> {
        &FLOWS_V4
    }

    #[inline(always)]
    fn index() -> &'static Array<Pair> {
        &INDEX_V4
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

    #[inline(always)]
    fn search(key: &FlowKey<Self>) -> u32 {
        search_v4(pair(key.source.0, key.destination.0), key_rest(key))
    }

    #[inline(always)]
    fn reserved_cell(hash: u64) -> u32 {
        room::reserve_v4(hash)
    }

    #[inline(always)]
    fn taken_number() -> u32 {
        room::number_v4()
    }
}

impl FlowTable for V6 {
    #[inline(always)]
    fn flows() -> &'static Array<FlowSlot<Self>> {
        &FLOWS_V6
    }

    #[inline(always)]
    fn index() -> &'static Array<Pair> {
        &INDEX_V6
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

    #[inline(always)]
    fn search(key: &FlowKey<Self>) -> u32 {
        let (V6([a, b, c, d]), V6([e, f, g, h])) = (key.source, key.destination);
        search_v6(pair(a, b), pair(c, d), pair(e, f), pair(g, h), key_rest(key))
    }

    #[inline(always)]
    fn reserved_cell(hash: u64) -> u32 {
        room::reserve_v6(hash)
    }

    #[inline(always)]
    fn taken_number() -> u32 {
        room::number_v6()
    }
}

/// Two words as they lie in memory.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The words of a [`pair`].
#[inline(always)]
const fn words(pair: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = pair.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// The key with these addresses and this rest.
#[inline(always)]
const fn key<A>(source: A, destination: A, rest: u32) -> FlowKey<A> {
    let [a, b, protocol, side_and_path] = rest.to_ne_bytes();
    let service_port = u16::from_ne_bytes([a, b]);
    FlowKey { source, destination, service_port, protocol, side_and_path: SideAndPath::from_byte(side_and_path) }
}

/// Everything in a key but the addresses, as it lies in memory.
#[inline(always)]
const fn key_rest<A>(key: &FlowKey<A>) -> u32 {
    let [a, b] = key.service_port.to_ne_bytes();
    u32::from_ne_bytes([a, b, key.protocol, key.side_and_path.byte()])
}

/// The entry of `key` and its verdict's word, if the first cells that it may be in have it. Null: it may be elsewhere.
#[inline(always)]
pub fn near_entry<A: FlowTable>(key: &FlowKey<A>) -> (*mut FlowSlot<A>, u64) {
    let (slot, word, _) = look(key, A::hash(key), 0);
    (slot, word)
}

/// The entry of `key` and its verdict's word, wherever it is. Null: there is none.
#[inline(always)]
pub fn far_entry<A: FlowTable>(key: &FlowKey<A>) -> (*mut FlowSlot<A>, u64) {
    let Some(slot) = A::flows().get_ptr_mut(A::search(key)) else { return (ptr::null_mut(), flow::EMPTY) };
    // SAFETY: a non-null map value. The entry may have been retired since the search, and the number may be that of
    // another one only after this program has ended.
    let word = unsafe { ptr::read_volatile(&raw const (*slot).verdict) };
    if flow::is_verdict(word) { (slot, word) } else { (ptr::null_mut(), flow::EMPTY) }
}

/// The number of the entry of `key`, or `u32::MAX`.
#[inline(always)]
fn search<A: FlowTable>(key: &FlowKey<A>) -> u32 {
    let hash = A::hash(key);
    for probe in 0..opaque::<{ index::PROBES as i32 }>() {
        let (slot, _, number) = look(key, hash, probe as u32);
        if !slot.is_null() {
            return number;
        }
    }
    u32::MAX
}

/// [`search`] as a function of its own, which the verifier walks once for each program: the loader makes it global. It
/// takes the key in registers: nothing of it is on the callers' stack, of which a program and its functions have 512 bytes
/// together before Linux 6.13.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_v4(addresses: u64, rest: u32) -> u32 {
    let [source, destination] = words(addresses);
    search(&key(V4(source), V4(destination), rest))
}

/// The same.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_v6(ab: u64, cd: u64, ef: u64, gh: u64, rest: u32) -> u32 {
    let ([a, b], [c, d], [e, f], [g, h]) = (words(ab), words(cd), words(ef), words(gh));
    search(&key(V6([a, b, c, d]), V6([e, f, g, h]), rest))
}

/// The entry of `key`, its verdict's word and its number, if one of two cells has it.
#[inline(always)]
fn look<A: FlowTable>(key: &FlowKey<A>, hash: u64, probe: u32) -> (*mut FlowSlot<A>, u64, u32) {
    if let Some(cells) = A::index().get_ptr(index::pair(hash, probe)) {
        for at in 0..2 {
            // SAFETY: a cell of a map value, which others write as one word.
            let cell = unsafe { ptr::read_volatile(cells.cast::<u32>().add(at)) };
            if index::tag_of(cell) == index::tag(hash)
                && let Some(slot) = A::flows().get_ptr_mut(index::number(cell))
            {
                // SAFETY: a non-null map value. Where the word is a verdict the key does not change.
                let (word, is_of_key) =
                    unsafe { (ptr::read_volatile(&raw const (*slot).verdict), A::is_key(slot, key)) };
                if is_of_key && flow::is_verdict(word) {
                    return (slot, word, index::number(cell));
                }
            }
        }
    }
    (ptr::null_mut(), flow::EMPTY, 0)
}

/// A new entry for `key`, with this verdict. Null: there is no room.
#[inline(always)]
fn make<A: FlowTable>(key: &FlowKey<A>, hash: u64, verdict: Verdict) -> *mut FlowSlot<A> {
    let place = A::reserved_cell(hash);
    let Some(cells) = A::index().get_ptr_mut(index::pair_of(place)) else { return ptr::null_mut() };
    // SAFETY: one of the two cells of a map value.
    let cell = unsafe { cells.cast::<u32>().add(index::cell_of(place)) };
    let number = A::taken_number();
    let Some(slot) = A::flows().get_ptr_mut(number) else {
        // SAFETY: a cell of a map value, which no other program writes to.
        unsafe { ptr::write_volatile(cell, index::EMPTY) };
        return ptr::null_mut();
    };
    // SAFETY: non-null map values. Nobody else has the number, and the index names it afterwards only; the exchange is a
    // full barrier.
    unsafe {
        (*slot).key = *key;
        (*slot).generation = (*slot).generation.wrapping_add(1);
        atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(&raw mut (*slot).verdict, verdict.pack());
        ptr::write_volatile(cell, index::tag(hash) | number);
    }
    slot
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
    // One look-up in a loop: the verifiers before Linux 6.4 do not merge the states of a second one.
    for _ in 0..opaque::<2>() {
        (slot, word) = far_entry(key);
        if !slot.is_null() || !is_open {
            break;
        }
        turn(key);
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
        let slot = make(key, A::hash(key), verdict);
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
