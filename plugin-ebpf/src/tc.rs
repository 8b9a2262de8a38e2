//! The entry at traffic control's egress: tcx (Linux 6.6) and clsact (Linux 4.5), on a device that
//! the loader attaches it to.
//!
//! The packet begins with its link header here, whose length the loader says: it depends on the
//! device's type. Fragments are cut already. Helpers read the packet, so what is not linear is no
//! different.

use crate::{
    count::{Outside, count},
    maps::{self, FlowTable, SETTINGS, setting},
};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use core::num::NonZeroU16;
use meridian_abi::{
    Counter,
    flow::{V4, V6},
    stats::Stat,
};
use meridian_ebpf::{
    packet::{Gso, Packet, Route, Word},
    wire::GSO_PLAIN,
};

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` at clsact: the next program or filter decides.
const NEXT: i32 = -1;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_egress(skb: *const __sk_buff) -> i32 {
    maps::enter();
    let packet = Skb { skb, link_len: setting(&raw const SETTINGS.link_header_len) };
    // SAFETY: the kernel passes a valid context.
    match u16::from_be(unsafe { (*skb).protocol } as u16) {
        ETH_P_IP => observe::<V4>(&packet),
        ETH_P_IPV6 => observe::<V6>(&packet),
        // ARP and the like.
        _ => maps::add_stat(Stat::LinkScoped, Counter { bytes: packet.ip_bytes().into(), packets: 1 }),
    }
    maps::leave();
    NEXT
}

#[inline(always)]
fn observe<A: FlowTable>(packet: &Skb) {
    if let Err(Outside(reason, size)) = count::<A>(packet, packet) {
        maps::add_stat(reason, size);
    }
}

/// A packet in a `struct __sk_buff`.
struct Skb {
    skb: *const __sk_buff,
    link_len: u32,
}

impl Packet for Skb {
    #[inline(always)]
    fn ip_bytes(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb).len }.wrapping_sub(self.link_len)
    }

    #[inline(always)]
    fn gso(&self) -> Option<Gso> {
        // SAFETY: the kernel passes a valid context.
        let size = unsafe { (*self.skb).gso_size };
        // The flags are not shown here: the protocol must tell.
        NonZeroU16::new(size as u16).map(|size| Gso { size, kind: GSO_PLAIN })
    }

    #[inline(always)]
    fn load<W: Word, const N: usize>(&self, offset: u32, words: &mut [W; N]) -> bool {
        let mut copy = [W::default(); N];
        let len = (N * size_of::<W>()) as u32;
        // SAFETY: `copy` has room for `len` bytes.
        let failed = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), self.link_len.wrapping_add(offset), copy.as_mut_ptr().cast(), len)
        };
        if failed != 0 {
            return false;
        }
        *words = copy;
        true
    }
}

impl Route for Skb {
    #[inline(always)]
    fn out(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn out_mtu(&self) -> u32 {
        // What is longer was cut before it came here.
        u32::MAX
    }

    #[inline(always)]
    fn out_is_loopback(&self) -> bool {
        false
    }

    #[inline(always)]
    fn arrived_on(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb).ingress_ifindex }
    }
}
