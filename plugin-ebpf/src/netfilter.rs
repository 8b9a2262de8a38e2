//! The entries at netfilter's POSTROUTING, one for each address family (Linux 6.4 and newer). What is
//! attached only continues to the core, which can be changed while packets pass.
//!
//! The kernel gives pointers to its own structures. Their fields are read at the offsets that the
//! loader took from the kernel's BTF, and packet bytes through `bpf_rdonly_cast`, which makes the
//! verifier emit plain loads.

use crate::{
    count::sent,
    entries::FlowTable,
    fast,
    maps::{self, setting},
};
use aya_ebpf::{bindings::bpf_dynptr, helpers::generated::bpf_dynptr_read};
use core::{
    mem::{MaybeUninit, transmute},
    num::NonZeroU16,
    ptr,
};
use meridian_abi::{
    IpVersion, control,
    flow::{V4, V6},
    settings::{self, CALL_DYNPTR_FROM_SKB, CALL_RDONLY_CAST},
    zone::Slot,
};
use meridian_ebpf::{
    packet::{Gso, Packet, Route, TOO_MANY, Word},
    straight::{self, Linear},
};

/// A field of a kernel structure: `field!(skb, skb_len)`.
macro_rules! field {
    ($structure:expr, $field:ident) => {
        kernel_field::<_, { core::mem::offset_of!(settings::Settings, $field) }>($structure)
    };
}

/// The netfilter verdict that lets a packet pass.
const NF_ACCEPT: i32 = 1;
/// `net_device.flags`: a loopback device.
const IFF_LOOPBACK: u32 = 1 << 3;

/// Pieces of a packet that are followed: the 64 KiB of an IP packet in fragments of 576 bytes.
const MAX_PIECES: u32 = 120;

/// `struct bpf_nf_ctx`.
#[repr(C)]
pub struct Context {
    state: *const u8,
    skb: *const u8,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn postrouting_v4(context: *const Context) -> i32 {
    maps::continue_with(&maps::CORES, control::straight(IpVersion::V4), context.cast());
    NF_ACCEPT
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn postrouting_v6(context: *const Context) -> i32 {
    maps::continue_with(&maps::CORES, control::straight(IpVersion::V6), context.cast());
    NF_ACCEPT
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn straight_v4(context: *const Context) -> i32 {
    straight::<V4>(context)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn straight_v6(context: *const Context) -> i32 {
    straight::<V6>(context)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn core_v4(context: *const Context) -> i32 {
    core::<V4>(context)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn core_v6(context: *const Context) -> i32 {
    core::<V6>(context)
}

/// Counts packets of known flows, and leaves all others to the core.
#[inline(always)]
fn straight<A: FlowTable + straight::Family>(context: *const Context) -> i32 {
    maps::enter();
    // SAFETY: the kernel passes a valid context.
    let (state, skb) = unsafe { ((*context).state, (*context).skb) };
    let packet = Skb::new(skb);
    let route = State { skb, device: field!(state, state_out) };
    let is_counted = fast::sent::<A>(&Whole { packet: &packet, route: &route }, &route);
    maps::leave();
    if !is_counted {
        maps::continue_with(&maps::CORES, control::core(A::VERSION), context.cast());
    }
    NF_ACCEPT
}

#[inline(always)]
fn core<A: FlowTable>(context: *const Context) -> i32 {
    maps::enter();
    // SAFETY: the kernel passes a valid context.
    let (state, skb) = unsafe { ((*context).state, (*context).skb) };
    let packet = Skb::new(skb);
    let route = State { skb, device: field!(state, state_out) };
    if setting!(handover) == settings::NOTE && maps::is_uplink(route.out()) {
        maps::note(skb as u64, packet.ip_bytes());
    }
    sent::<A>(&packet, &route);
    maps::leave();
    NF_ACCEPT
}

/// Where the packet goes: `struct nf_hook_state` and what it points to.
struct State {
    skb: *const u8,
    device: *const u8,
}

impl Route for State {
    #[inline(always)]
    fn out(&self) -> u32 {
        field!(self.device, device_ifindex)
    }

    #[inline(always)]
    fn out_mtu(&self) -> u32 {
        field!(self.device, device_mtu)
    }

    #[inline(always)]
    fn out_is_loopback(&self) -> bool {
        {
            let flags: u32 = field!(self.device, device_flags);
            flags & IFF_LOOPBACK != 0
        }
    }

    #[inline(always)]
    fn arrived_on(&self) -> u32 {
        field!(self.skb, skb_iif)
    }

    #[inline(always)]
    fn tunnel_end(&self, epoch: u32) -> Slot {
        maps::tunnel_end(self.out(), epoch) as Slot
    }
}

/// The field whose offset is at `AT` in the settings. See [`field!`].
#[inline(always)]
fn kernel_field<T: Copy, const AT: usize>(structure: *const u8) -> T {
    // SAFETY: the loader replaces the offset by that of a field of this type in the running kernel; the verifier checks
    // it, and a load through a bad pointer reads zero.
    unsafe { ptr::read(structure.add(settings::FIELD as usize + settings::FIELD_STEP as usize * AT).cast()) }
}

/// `bpf_rdonly_cast`: gives a kernel address a type, so that it may be read.
#[inline(always)]
fn cast(address: usize) -> *const u8 {
    // SAFETY: the loader turns a call to this number into a call to the kernel function.
    let cast: extern "C" fn(usize, u32) -> *const u8 = unsafe { transmute(CALL_RDONLY_CAST as usize) };
    cast(address, maps::fresh::<{ core::mem::offset_of!(settings::Settings, word_type) }>())
}

/// A packet in a `struct sk_buff`.
struct Skb {
    skb: *const u8,
    /// Address of the IP header.
    network: usize,
    /// Offset of the IP header from `skb->data`.
    network_offset: u32,
    /// The shared info, which follows the linear part of the buffer.
    shared: usize,
    /// Bytes from the IP header on.
    len: u32,
    /// How many of them are in the linear part.
    linear: u32,
}

impl Skb {
    #[inline(always)]
    fn new(skb: *const u8) -> Self {
        let head: usize = field!(skb, skb_head);
        let data: usize = field!(skb, skb_data);
        let network_header: u16 = field!(skb, skb_network_header);
        let len: u32 = field!(skb, skb_len);
        let data_len: u32 = field!(skb, skb_data_len);
        let end: u32 = field!(skb, skb_end);
        let network = head + usize::from(network_header);
        let network_offset = network.wrapping_sub(data) as u32;
        let len = len.wrapping_sub(network_offset);
        Self { skb, network, network_offset, shared: head + end as usize, len, linear: len.wrapping_sub(data_len) }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn ip_bytes(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn gso(&self) -> Option<Gso> {
        let size: u16 = peek(self.shared + setting!(shared_gso_size) as usize);
        let size = NonZeroU16::new(size)?;
        Some(Gso { size, kind: peek(self.shared + setting!(shared_gso_type) as usize) })
    }

    #[inline(always)]
    fn pieces(&self) -> u32 {
        pieces_from(peek(self.shared + setting!(shared_frag_list) as usize))
    }

    #[inline(always)]
    fn forget<const N: usize>(&self, words: [u32; N]) -> [u32; N] {
        maps::forget(words)
    }

    #[inline(always)]
    fn load<W: Word, const N: usize>(&self, offset: u32, words: &mut [W; N]) -> bool {
        let width = size_of::<W>();
        // Beyond the linear part lies unrelated kernel memory, which a plain load would read.
        if u64::from(offset) + (N * width) as u64 <= u64::from(self.linear) {
            let start = self.network + offset as usize;
            *words = core::array::from_fn(|i| peek(start + i * width));
            return true;
        }
        // A copy of its own, so that only this one lies on the stack.
        let mut copy = [W::default(); N];
        let len = (N * width) as u32;
        if load_slow(self.skb, self.network_offset.wrapping_add(offset), copy.as_mut_ptr().cast(), len) != 0 {
            return false;
        }
        *words = copy;
        true
    }
}

/// A packet whose headers lie in the linear part of its buffer, and where it goes.
struct Whole<'p> {
    packet: &'p Skb,
    route: &'p State,
}

impl Linear for Whole<'_> {
    #[inline(always)]
    fn has(&self, bytes: u32) -> bool {
        bytes <= self.packet.linear
    }

    #[inline(always)]
    fn word<W: Word>(&self, offset: u32) -> W {
        peek(self.packet.network + offset as usize)
    }

    #[inline(always)]
    fn ip_bytes(&self) -> u32 {
        self.packet.len
    }

    #[inline(always)]
    fn gso(&self) -> Option<Gso> {
        self.packet.gso()
    }

    #[inline(always)]
    fn is_whole(&self) -> bool {
        let Skb { len, linear, shared, .. } = *self.packet;
        let is_chain = || peek::<usize>(shared + setting!(shared_frag_list) as usize) != 0;
        len <= self.route.out_mtu() && (linear == len || !is_chain())
    }
}

/// A word of kernel memory; zero if there is none.
#[inline(always)]
fn peek<W: Copy>(address: usize) -> W {
    // SAFETY: the verifier turns a load through a cast pointer into one that can't fault, and the
    // processors that run eBPF load unaligned words.
    unsafe { ptr::read(cast(address).cast()) }
}

/// The pieces of a chain of buffers, which begins with a buffer before the first one in the list.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pieces_from(first: usize) -> u32 {
    let mut piece = first;
    let mut pieces = 0;
    while piece != 0 {
        pieces += 1;
        if pieces >= MAX_PIECES {
            return TOO_MANY;
        }
        piece = peek(piece + setting!(skb_next) as usize);
    }
    // The first one is the buffer itself.
    if pieces == 0 { 0 } else { pieces + 1 }
}

/// Copies bytes that are not in the linear part of a buffer. 0 if all went well.
#[inline(never)]
fn load_slow(skb: *const u8, offset: u32, out: *mut u8, len: u32) -> i64 {
    let mut dynptr = MaybeUninit::<bpf_dynptr>::uninit();
    // SAFETY: the loader turns a call to this number into a call to the kernel function.
    let dynptr_from_skb: extern "C" fn(*const u8, u64, *mut bpf_dynptr) -> i32 =
        unsafe { transmute(CALL_DYNPTR_FROM_SKB as usize) };
    if dynptr_from_skb(skb, 0, dynptr.as_mut_ptr()) != 0 {
        return -1;
    }
    // SAFETY: `out` has room for `len` bytes, and the dynptr was just made.
    unsafe { bpf_dynptr_read(out.cast(), len.into(), dynptr.as_ptr().cast_mut(), offset.into(), 0) as i64 }
}
