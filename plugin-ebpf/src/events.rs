//! Packets that are announced to userspace at once.

use crate::{maps::add_stat, shares};
use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use meridian_abi::{
    Counter,
    event::{self, Event, Window},
    share::RESERVED_EVENTS,
    stats::Stat,
};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(event::RING_BYTES, 0);

/// How many events each CPU has announced lately.
#[map]
static EVENT_WINDOWS: PerCpuArray<Window> = PerCpuArray::with_max_entries(1, 0);

/// Announces a packet, if there is room, and if neither its CPU nor its source has announced too many lately.
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
    let limit = if shares::may_announce(event.source) { event::BUDGET } else { event::BUDGET - RESERVED_EVENTS };
    if window.events >= limit {
        return add_stat(Stat::EventWithheld, size);
    }
    window.events += 1;
    if EVENTS.output::<Event>(event, 0).is_err() {
        add_stat(Stat::EventLost, size);
    }
}
