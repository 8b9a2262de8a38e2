//! The maps, and the only ways in which the programs write to them.
//!
//! Every addition is atomic. At netfilter a softirq can interrupt a run on the same CPU between the
//! load and the store of a plain addition, so per-CPU memory is no protection.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{
        Array, HashMap, PerCpuArray, RingBuf,
        lpm_trie::{Key, LpmTrie},
    },
};
use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr,
};
use meridian_abi::{
    Counter, IpVersion, device,
    event::{self, Event, Window},
    flow::{FlowKey, FlowValue, V4, V6, Verdict},
    matrix::{self, Direction},
    settings::Settings,
    stats::Stat,
    zone::{self, Control, Entry, Slot},
};
use meridian_ebpf::headers::{Family, Headers};

/// Written by the loader, then frozen.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    skb_len: 0,
    skb_data_len: 0,
    skb_head: 0,
    skb_data: 0,
    skb_end: 0,
    skb_network_header: 0,
    skb_iif: 0,
    shared_gso_size: 0,
    shared_gso_type: 0,
    state_out: 0,
    device_ifindex: 0,
    device_flags: 0,
    device_mtu: 0,
    word_type: 0,
    matrix_slots: 0,
    count_reentries: 0,
    link_header_len: 0,
};

/// One setting, as the loader wrote it. Volatile, or the compiler would fold the zeros above.
#[inline(always)]
pub fn setting(field: *const u32) -> u32 {
    // SAFETY: callers pass a field of SETTINGS, a static that is never written here.
    unsafe { ptr::read_volatile(field) }
}

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Devices through which packets leave the node: a bit for each ifindex. Not a hash, whose look-up
/// for every packet is a call that costs as much as all header reads.
#[map]
static UPLINKS: Array<u64> = Array::with_max_entries(device::WORDS, 0);

#[map]
static ZONES_0: LpmTrie<zone::Address, Entry> = LpmTrie::with_max_entries(262_144, BPF_F_NO_PREALLOC);
#[map]
static ZONES_1: LpmTrie<zone::Address, Entry> = LpmTrie::with_max_entries(262_144, BPF_F_NO_PREALLOC);

#[map]
static FLOWS_V4: HashMap<FlowKey<V4>, FlowValue> = HashMap::with_max_entries(65_536, 0);
#[map]
static FLOWS_V6: HashMap<FlowKey<V6>, FlowValue> = HashMap::with_max_entries(65_536, 0);

/// The loader sets its size.
#[map]
static ZONE_MATRIX: PerCpuArray<Counter> = PerCpuArray::with_max_entries(matrix::cells(matrix::MIN_SLOTS), 0);

#[map]
static STATS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Stat::ALL.len() as u32, 0);

/// What userspace is told at once.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(event::RING_BYTES, 0);

/// How many events each CPU has announced lately.
#[map]
static EVENT_WINDOWS: PerCpuArray<Window> = PerCpuArray::with_max_entries(1, 0);

/// Runs in progress on this CPU, and how many of them began inside another one. Only for tests.
#[map]
static REENTRIES: PerCpuArray<Reentries> = PerCpuArray::with_max_entries(1, 0);

/// The value of REENTRIES.
#[repr(C)]
struct Reentries {
    depth: u64,
    count: u64,
}

/// An address family with its flow map.
pub trait FlowTable: Family + 'static {
    /// The version that the matrix has a plane for.
    const VERSION: IpVersion;

    /// The flow map.
    fn flows() -> &'static HashMap<FlowKey<Self>, FlowValue>;

    /// The key that finds the address in the zone table.
    fn zone_key(self) -> Key<zone::Address>;

    /// The address as an event has it.
    fn words(self) -> [u32; 4];
}

impl FlowTable for V4 {
    const VERSION: IpVersion = IpVersion::V4;

    #[inline(always)]
    fn flows() -> &'static HashMap<FlowKey<Self>, FlowValue> {
        &FLOWS_V4
    }

    #[inline(always)]
    fn zone_key(self) -> Key<zone::Address> {
        Key::new(zone::VERSION_BITS + 32, zone::Address::v4(self))
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }
}

impl FlowTable for V6 {
    const VERSION: IpVersion = IpVersion::V6;

    #[inline(always)]
    fn flows() -> &'static HashMap<FlowKey<Self>, FlowValue> {
        &FLOWS_V6
    }

    #[inline(always)]
    fn zone_key(self) -> Key<zone::Address> {
        Key::new(zone::VERSION_BITS + 128, zone::Address::v6(self))
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }
}

#[inline(always)]
fn add(word: *mut u64, n: u64) {
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
pub fn add_to_matrix<A: FlowTable>(verdict: Verdict, size: Counter) {
    let slots = setting(&raw const SETTINGS.matrix_slots);
    let index = matrix::index(slots, Direction::Egress, A::VERSION, verdict.source, verdict.destination);
    if let Some(cell) = ZONE_MATRIX.get_ptr_mut(index) {
        add_counter(cell, size);
    }
}

/// The version of the zone table.
#[inline(always)]
pub fn epoch() -> u32 {
    // SAFETY: a map value; userspace stores the aligned word whole.
    CONTROL.get_ptr(0).map_or(0, |control| unsafe { ptr::read_volatile(&raw const (*control).epoch) })
}

/// Looks both ends up in the table of `epoch`.
#[inline(always)]
pub fn classify<A: FlowTable>(headers: &Headers<A>, epoch: u32) -> Verdict {
    Verdict { epoch, source: slot(headers.source, epoch), destination: slot(headers.destination, epoch) }
}

#[inline(always)]
fn slot<A: FlowTable>(address: A, epoch: u32) -> Slot {
    let key = address.zone_key();
    let entry = if epoch & 1 == 0 { ZONES_0.get(&key) } else { ZONES_1.get(&key) };
    match entry {
        // A slot outside the matrix would be a cell of another row.
        Some(entry) if u32::from(entry.slot) < setting(&raw const SETTINGS.matrix_slots) => entry.slot,
        _ => zone::UNKNOWN,
    }
}

/// The flow entry of `key`, made if there is room, and whether it was made now. Null: the map is
/// full.
///
/// A new entry begins with zeros and only if there is none, then is looked up: inserting the first
/// packet's count would overwrite what another CPU counted in between.
#[inline(always)]
pub fn flow<A: FlowTable>(key: &FlowKey<A>) -> (*mut FlowValue, bool) {
    let flows = A::flows();
    if let Some(flow) = flows.get_ptr_mut(key) {
        return (flow, false);
    }
    let zero = FlowValue { verdict: 0, bytes: 0, packets: 0, client_port: 0, reserved: [0; 6] };
    let made = flows.insert(key, &zero, BPF_NOEXIST.into()).is_ok();
    (flows.get_ptr_mut(key).unwrap_or(ptr::null_mut()), made)
}

/// Tells userspace of a packet, if there is room and its CPU has not told too much lately.
#[inline(always)]
pub fn announce(mut event: Event, size: Counter) {
    // SAFETY: the helper takes nothing.
    event.time_ns = unsafe { bpf_ktime_get_ns() };
    let Some(window) = EVENT_WINDOWS.get_ptr_mut(0) else { return };
    // Runs that interrupt each other here may announce a few more or fewer: it is a limit, no sum.
    // SAFETY: a non-null per-CPU map value.
    let window = unsafe { &mut *window };
    if event.time_ns.wrapping_sub(window.start_ns) >= event::WINDOW_NS {
        *window = Window { start_ns: event.time_ns, events: 0 };
    }
    window.events += 1;
    if window.events > event::BUDGET {
        add_stat(Stat::EventWithheld, size);
    } else if EVENTS.output::<Event>(event, 0).is_err() {
        add_stat(Stat::EventLost, size);
    }
}

/// Counts in a flow entry and returns its verdict, renewed if the table has changed since.
#[inline(always)]
pub fn count_flow<A: FlowTable>(
    flow: *mut FlowValue,
    headers: &Headers<A>,
    client_port: u16,
    size: Counter,
) -> Verdict {
    // Before the look-up: a table that changes in between leaves the old epoch in the entry, and
    // the next packet looks again.
    let epoch = epoch();
    // SAFETY: `flow` is a non-null map value; the verdict is read and written as one aligned word.
    let mut verdict = Verdict::unpack(unsafe { ptr::read_volatile(&raw const (*flow).verdict) });
    if verdict.epoch != epoch {
        verdict = classify(headers, epoch);
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*flow).verdict, verdict.pack()) };
    }
    // SAFETY: as above. CPUs may race for the last port; any of theirs is right.
    unsafe { (*flow).client_port = client_port };
    // SAFETY: only field addresses are taken.
    let (bytes, packets) = unsafe { (&raw mut (*flow).bytes, &raw mut (*flow).packets) };
    add(bytes, size.bytes);
    add(packets, size.packets);
    verdict
}

/// Whether packets through this device leave the node.
#[inline(always)]
pub fn is_uplink(ifindex: u32) -> bool {
    let (word, bit) = device::bit(ifindex);
    UPLINKS.get(word).is_some_and(|bits| bits & bit != 0)
}

/// Begins a run: counts it if another one is in progress on this CPU.
#[inline(always)]
pub fn enter() {
    if setting(&raw const SETTINGS.count_reentries) != 0
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
    if setting(&raw const SETTINGS.count_reentries) != 0
        && let Some(reentries) = REENTRIES.get_ptr_mut(0)
    {
        // SAFETY: a non-null per-CPU map value.
        unsafe { add(&raw mut (*reentries).depth, u64::MAX) };
    }
}
