//! The maps, and the only ways in which the programs write to them.
//!
//! Every addition is atomic. At netfilter a softirq can interrupt a run on the same CPU between the
//! load and the store of a plain addition, so per-CPU memory is no protection.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::generated::{bpf_probe_read_kernel, bpf_tail_call},
    macros::map,
    maps::{
        Array, HashMap, LruHashMap, PerCpuArray, ProgramArray,
        lpm_trie::{Key, LpmTrie},
    },
};
use core::{
    arch::asm,
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_xadd},
    mem::MaybeUninit,
    ptr,
};
use meridian_abi::{
    Counter, IpVersion,
    control::{self, Control, MAX_NODE_ADDRESSES, MAX_TUNNEL_ENDS, PinnedState},
    device,
    flow::{V4, V6, Verdict},
    matrix::{self, Direction},
    service,
    settings::{self, Settings},
    stats::{self, Stat},
    zone::{self, Entry, PrefixKind, Slot},
};
use meridian_ebpf::{hash, headers::Family};

/// One setting: `setting!(flow_slots)`.
macro_rules! setting {
    ($($field:tt)+) => {
        $crate::maps::value::<{ core::mem::offset_of!(meridian_abi::settings::Settings, $($field)+) }>()
    };
}
pub(crate) use setting;

/// The setting at an offset of [`Settings`](meridian_abi::settings::Settings). See [`setting!`].
#[inline(always)]
pub fn value<const AT: usize>() -> u32 {
    let value: u32;
    // SAFETY: moves a constant, which the loader replaces, into a register.
    unsafe {
        asm!("{0} = {1}", out(wreg) value, const settings::VALUE + AT as i32, options(pure, nomem, nostack, preserves_flags));
    }
    value
}

/// The same, moved anew at each use: a register or a word on the stack that keeps it costs more.
#[inline(always)]
pub fn fresh<const AT: usize>() -> u32 {
    let value: u32;
    // SAFETY: as above.
    unsafe {
        asm!("{0} = {1}", out(wreg) value, const settings::VALUE + AT as i32, options(nomem, nostack, preserves_flags));
    }
    value
}

/// A number that only the compiler does not know, so that it unrolls no loop: the verifier sees a constant. It has 64 bits,
/// because the verifier forgets one of 32 bits that lies on the stack for a while.
#[inline(always)]
pub fn opaque<const N: i32>() -> u64 {
    let value: u64;
    // SAFETY: moves a constant into a register.
    unsafe { asm!("{0} = {1}", out(reg) value, const N, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// The same number, of which the verifier knows nothing any more if it does not know `unknown`.
#[inline(always)]
pub fn blurred(number: u64, unknown: u16) -> u64 {
    let mut blurred = number;
    // SAFETY: adds a register to another one, and takes it away again.
    unsafe {
        asm!("{0} += {1}", "{0} -= {1}", inout(reg) blurred, in(reg) u64::from(unknown), options(pure, nomem, nostack, preserves_flags));
    }
    blurred
}

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Userspace's notes about the counters.
#[map]
static PINNED_STATE: Array<PinnedState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The names of the zones in the order of their slots, each with its region: written by userspace,
/// for readers of the matrix. A value is [`meridian_abi::zone::Name`].
#[map]
static ZONE_NAMES: Array<zone::Name> = Array::with_max_entries(zone::MAX_ZONES as u32, 0);

/// The programs that netfilter's entries continue with, see [`control::straight`] and [`control::core`]: a netfilter
/// link can't change its program, an element can.
#[map]
pub static CORES: ProgramArray = ProgramArray::with_max_entries(control::CORES, 0);

/// The programs that those at the egress of traffic control leave unusual packets to: on devices with an Ethernet
/// header, and on those without.
#[map]
pub static EGRESS_CORES: ProgramArray = ProgramArray::with_max_entries(2, 0);

#[map]
static NODE_ADDRESSES: HashMap<zone::Address, u8> = HashMap::with_max_entries(MAX_NODE_ADDRESSES, 0);

/// Where the tunnels of overlays' devices end that have one other end, by ifindex.
#[map]
static TUNNEL_ENDS: HashMap<u32, zone::Address> = HashMap::with_max_entries(MAX_TUNNEL_ENDS, BPF_F_NO_PREALLOC);

/// Ports that services are configured to be on.
#[map]
static SERVICE_PORTS: Array<[u8; service::CHUNK as usize]> = Array::with_max_entries(service::CHUNKS, 0);

/// Devices through which packets leave the node: two bits for each ifindex. Not a hash, whose look-up
/// for every packet is a call that costs as much as all header reads.
#[map]
static DEVICES: Array<u64> = Array::with_max_entries(device::WORDS, 0);

#[map]
static ZONES_0: LpmTrie<zone::Address, Entry> = LpmTrie::with_max_entries(262_144, BPF_F_NO_PREALLOC);
#[map]
static ZONES_1: LpmTrie<zone::Address, Entry> = LpmTrie::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// The loader sets its size.
#[map]
static ZONE_MATRIX: PerCpuArray<Counter> = PerCpuArray::with_max_entries(matrix::cells(matrix::MIN_SLOTS), 0);

#[map]
static STATS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(stats::ROOM, 0);

/// Packets that netfilter has counted and that traffic control has not seen yet, by the address of their
/// `struct sk_buff`. Used only while the hook changes.
#[map]
static PASSING: LruHashMap<u64, u32> = LruHashMap::with_max_entries(settings::PASSING, 0);

/// Runs in progress on this CPU, and how many of them began inside another one. Only for tests.
#[map]
static REENTRIES: PerCpuArray<Reentries> = PerCpuArray::with_max_entries(1, 0);

/// The value of REENTRIES.
#[repr(C)]
struct Reentries {
    depth: u64,
    count: u64,
}

/// An address family as the maps have it.
pub trait Address: Family {
    /// The version that the matrix has a plane for.
    const VERSION: IpVersion;
    /// Bits of the address.
    const BITS: u32;

    /// The address as a key.
    fn address(self) -> zone::Address;

    /// The address as an event has it.
    fn words(self) -> [u32; 4];
}

impl Address for V4 {
    const VERSION: IpVersion = IpVersion::V4;
    const BITS: u32 = 32;

    #[inline(always)]
    fn address(self) -> zone::Address {
        zone::Address::v4(self)
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }
}

impl Address for V6 {
    const VERSION: IpVersion = IpVersion::V6;
    const BITS: u32 = 128;

    #[inline(always)]
    fn address(self) -> zone::Address {
        zone::Address::v6(self)
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }
}

/// Adds to a word of a map value.
#[inline(always)]
pub fn add(word: *mut u64, n: u64) {
    // The intrinsic, because core offers no `fetch_add` for a target without compare-and-swap.
    // Relaxed and without a use of the result it is the one instruction that every kernel has.
    // SAFETY: `word` points into a map value, which is aligned to 8 bytes and outlives this run.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, n) };
}

#[inline(always)]
fn add_counter(counter: *mut Counter, size: Counter) {
    // SAFETY: `counter` is a non-null map value; only field addresses are taken.
    let (bytes, packets) = unsafe { (&raw mut (*counter).bytes, &raw mut (*counter).packets) };
    add(bytes, size.bytes);
    add(packets, size.packets);
}

/// Counts in STATS.
#[inline(always)]
pub fn add_stat(stat: Stat, size: Counter) {
    if let Some(counter) = STATS.get_ptr_mut(stat as u32) {
        add_counter(counter, size);
    }
}

/// Counts in ZONE_MATRIX.
#[inline(always)]
pub fn add_to_matrix<A: Address>(verdict: Verdict, direction: Direction, size: Counter) {
    let slots = setting!(matrix_slots);
    let index = matrix::index(slots, direction, A::VERSION, verdict.source, verdict.destination);
    if let Some(cell) = ZONE_MATRIX.get_ptr_mut(index) {
        add_counter(cell, size);
    }
}

/// Userspace's current value. The loader makes the address of the map that of its only value, which no program looks up.
#[inline(always)]
pub fn control() -> *const Control {
    let mut address = (&raw const CONTROL).cast();
    // SAFETY: leaves the register as it is. The compiler must not read the map's definition at this address.
    unsafe { asm!("/* {0} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags)) };
    address
}

/// The version of the zone table.
#[inline(always)]
pub fn epoch() -> u32 {
    let control = control();
    // SAFETY: a map value; userspace stores the aligned word whole.
    unsafe { ptr::read_volatile(&raw const (*control).epoch) }
}

/// The zone of an address in the table of `epoch`.
#[inline(always)]
pub fn lookup<A: Address>(address: A, epoch: u32) -> Entry {
    lookup_bits(address.address(), zone::VERSION_BITS + A::BITS, epoch)
}

/// The same, of an address of either family.
#[inline(always)]
pub fn lookup_key(address: zone::Address, epoch: u32) -> Entry {
    // Of IPv4 the rest is zero, and no prefix of it is so long.
    lookup_bits(address, zone::VERSION_BITS + V6::BITS, epoch)
}

#[inline(always)]
fn lookup_bits(address: zone::Address, bits: u32, epoch: u32) -> Entry {
    let key = Key::new(bits, address);
    let entry = if epoch & 1 == 0 { ZONES_0.get(&key) } else { ZONES_1.get(&key) };
    match entry {
        // A slot outside the matrix would be a cell of another row.
        Some(entry) if u32::from(entry.slot) < setting!(matrix_slots) => *entry,
        _ => Entry { slot: zone::UNKNOWN, kind: PrefixKind::Default as u8, reserved: 0 },
    }
}

/// Whether there are overlays whose outer packets have a known UDP port.
#[inline(always)]
pub fn has_overlay_ports() -> bool {
    let [destinations, sources] = overlay_ports();
    destinations | sources != 0
}

/// The destination ports of overlays' outer packets, and the source ports: four each.
#[inline(always)]
pub fn overlay_ports() -> [u64; 2] {
    let control = control();
    // SAFETY: a map value; each of the two fields is one aligned word of 64 bits.
    unsafe {
        let destinations = (&raw const (*control).destination_ports).cast::<u64>();
        let sources = (&raw const (*control).source_ports).cast::<u64>();
        [ptr::read_volatile(destinations), ptr::read_volatile(sources)]
    }
}

/// The zone of this node.
#[inline(always)]
pub fn node() -> Slot {
    let control = control();
    // SAFETY: a map value; userspace stores the aligned half word whole.
    let slot = unsafe { ptr::read_volatile(&raw const (*control).node) };
    if u32::from(slot) < setting!(matrix_slots) { slot } else { zone::UNKNOWN }
}

/// The zone in which the tunnel of an overlay's device ends, if it has one end; a slot.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tunnel_end(ifindex: u32, epoch: u32) -> u32 {
    // SAFETY: the value is read at once; one that is just replaced is that of a device that is no more.
    match unsafe { TUNNEL_ENDS.get(&ifindex) } {
        Some(end) => lookup_key(*end, epoch).slot.into(),
        None => zone::UNKNOWN.into(),
    }
}

/// Whether the address is one of the node's.
#[inline(always)]
pub fn is_node<A: Address>(address: A) -> bool {
    // SAFETY: the value is not read.
    unsafe { NODE_ADDRESSES.get(&address.address()) }.is_some()
}

/// Whether a service is configured to be on the port.
#[inline(always)]
pub fn is_service(protocol: u8, port: u16) -> bool {
    let (chunk, at) = service::place(protocol, port);
    SERVICE_PORTS.get(chunk).is_some_and(|ports| ports[at] != 0)
}

/// The secret key of the hashes; words that a hash does not use cost nothing.
#[inline(always)]
pub fn hash_keys() -> hash::Keys {
    const AT: usize = core::mem::offset_of!(Settings, hash_keys);
    [
        value::<AT>(),
        value::<{ AT + 4 }>(),
        value::<{ AT + 8 }>(),
        value::<{ AT + 12 }>(),
        value::<{ AT + 16 }>(),
        value::<{ AT + 20 }>(),
        value::<{ AT + 24 }>(),
        value::<{ AT + 28 }>(),
        value::<{ AT + 32 }>(),
        value::<{ AT + 36 }>(),
    ]
}

/// Continues with another program. Returns only if there is none.
#[inline(always)]
pub fn continue_with(programs: &'static ProgramArray, slot: u32, context: *const c_void) {
    // SAFETY: the context of this program, and a map of programs of its type.
    unsafe { bpf_tail_call(context.cast_mut(), ptr::from_ref(programs).cast_mut().cast(), slot) };
}

/// Whether packets through this device leave the node.
#[inline(always)]
pub fn is_uplink(ifindex: u32) -> bool {
    role(ifindex) != 0
}

/// Whether the device is an overlay's.
#[inline(always)]
pub fn is_overlay(ifindex: u32) -> bool {
    role(ifindex) == device::OVERLAY
}

/// Whether VLANs over the device have devices of their own.
#[inline(always)]
pub fn is_trunk(ifindex: u32) -> bool {
    role(ifindex) == device::TRUNK
}

/// The device's role, or 0, mostly from the cache line that the program reads in any case. A trunk is an uplink here.
#[inline(always)]
pub fn quick_role(ifindex: u32) -> u64 {
    let control = control();
    // SAFETY: a map value; userspace stores aligned words whole. It names a device here after, and for no longer than,
    // the map DEVICES has it.
    unsafe {
        let uplinks = &raw const (*control).uplinks;
        for n in 0..Control::UPLINKS {
            if ifindex == ptr::read_volatile(&raw const (*uplinks)[n]) {
                return device::UPLINK;
            }
        }
        if ifindex == ptr::read_volatile(&raw const (*control).overlay) {
            device::OVERLAY
        } else if ptr::read_volatile(&raw const (*control).more_devices) == 0 {
            0
        } else {
            role(ifindex)
        }
    }
}

/// The device's role, or 0.
#[inline(always)]
fn role(ifindex: u32) -> u64 {
    let (word, shift) = device::place(ifindex);
    DEVICES.get(word).map_or(0, |roles| roles >> shift & device::MASK)
}

/// Notes a packet down: this hook has counted it.
#[inline(always)]
pub fn note(skb: u64, ip_bytes: u32) {
    // A full map evicts the oldest, which have passed long ago.
    let _ = PASSING.insert(&skb, &ip_bytes, 0);
}

/// Whether the hook before has counted the packet; crosses it out.
#[inline(always)]
pub fn was_noted(skb: u64, ip_bytes: u32) -> bool {
    // SAFETY: the value is read at once. Where it is stale, another packet lies at the address by now.
    let noted = unsafe { PASSING.get(&skb) }.is_some_and(|noted| *noted == ip_bytes);
    noted && PASSING.remove(&skb).is_ok()
}

/// See [`Packet::forget`](meridian_ebpf::packet::Packet::forget).
#[inline(always)]
pub fn forget<const N: usize>(words: [u32; N]) -> [u32; N] {
    // Not zeros: the compiler would write them byte by byte in a loop, which the verifier walks.
    let mut forgotten = MaybeUninit::<[u32; N]>::uninit();
    // SAFETY: both have room for as many bytes, and the helper writes all of them. What it has written is anything to the
    // verifier.
    unsafe {
        let len = size_of::<[u32; N]>() as u32;
        bpf_probe_read_kernel(forgotten.as_mut_ptr().cast(), len, words.as_ptr().cast());
        forgotten.assume_init()
    }
}

/// Begins a run: counts it if another one is in progress on this CPU.
#[inline(always)]
pub fn enter() {
    if setting!(count_reentries) != 0
        && let Some(reentries) = REENTRIES.get_ptr_mut(0)
    {
        // SAFETY: a non-null per-CPU map value. Nested runs leave `depth` as they found it, so a
        // plain read after the addition is this run's own level.
        unsafe {
            add(&raw mut (*reentries).depth, 1);
            if ptr::read_volatile(&raw const (*reentries).depth) > 1 {
                add(&raw mut (*reentries).count, 1);
            }
        }
    }
}

/// Ends a run.
#[inline(always)]
pub fn leave() {
    if setting!(count_reentries) != 0
        && let Some(reentries) = REENTRIES.get_ptr_mut(0)
    {
        // SAFETY: a non-null per-CPU map value.
        unsafe { add(&raw mut (*reentries).depth, u64::MAX) };
    }
}
