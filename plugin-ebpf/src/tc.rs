//! The entries at traffic control: tcx (Linux 6.6) and clsact (Linux 4.5), on a device that the loader
//! attaches them to; for devices with an Ethernet header and for those without a link header.
//!
//! Fragments are cut already on the way out, and not yet put together on the way in. Headers are read
//! where they lie; by a helper where that is not in the linear part of the packet.

use crate::{
    count::{arrived, sent},
    fast,
    maps::{self, setting},
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_TUNINFO_IPV6, bpf_tunnel_key},
    helpers::generated::{bpf_skb_get_tunnel_key, bpf_skb_load_bytes},
};
use core::{mem::MaybeUninit, num::NonZeroU16, ptr};
use meridian_abi::{
    Counter,
    flow::{V4, V6},
    settings,
    stats::Stat,
    zone::{self, Slot},
};
use meridian_ebpf::{
    packet::{Gso, Packet, Route, Word},
    straight::Linear,
    wire::GSO_PLAIN,
};

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` at clsact: the next program or filter decides.
const NEXT: i32 = -1;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const ETHERNET_LEN: u32 = 14;
const VLAN_LEN: u32 = 4;

/// Offsets that are read where they lie: the verifier wants to know that they are small.
const MAX_DIRECT: u32 = 1 << 14;

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_straight(skb: *const __sk_buff) -> i32 {
    straight(skb, ETHERNET_LEN)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_straight_l3(skb: *const __sk_buff) -> i32 {
    straight(skb, 0)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_egress(skb: *const __sk_buff) -> i32 {
    leaves(skb, ETHERNET_LEN)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_egress_l3(skb: *const __sk_buff) -> i32 {
    leaves(skb, 0)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_ingress(skb: *const __sk_buff) -> i32 {
    enters(skb, ETHERNET_LEN)
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_ingress_l3(skb: *const __sk_buff) -> i32 {
    enters(skb, 0)
}

#[inline(always)]
fn leaves(skb: *const __sk_buff, link_len: u32) -> i32 {
    maps::enter();
    let (packet, protocol, is_tagged) = Skb::new(skb, link_len);
    match protocol {
        _ if is_the_other_hooks(&packet, protocol) => {}
        _ if is_tagged && maps::is_trunk(packet.out()) => {
            maps::add_stat(Stat::Vlan, Counter { bytes: packet.ip_bytes().into(), packets: 1 });
        }
        ETH_P_IP => sent::<V4>(&packet, &packet),
        ETH_P_IPV6 => sent::<V6>(&packet, &packet),
        // ARP and the like.
        _ => maps::add_stat(Stat::LinkScoped, Counter { bytes: packet.ip_bytes().into(), packets: 1 }),
    }
    maps::leave();
    NEXT
}

/// Counts a packet of a known flow, without a VLAN's tag, and leaves all others to the core.
#[inline(always)]
fn straight(skb: *const __sk_buff, link_len: u32) -> i32 {
    maps::enter();
    // SAFETY: the kernel passes a valid context.
    let (protocol, is_tagged) = unsafe { (u16::from_be((*skb).protocol as u16), (*skb).vlan_present != 0) };
    let packet = Skb { skb, link_len };
    let is_counted = !is_tagged
        && match protocol {
            ETH_P_IP => fast::sent::<V4>(&InPlace::new(&packet), &packet),
            ETH_P_IPV6 => fast::sent::<V6>(&InPlace::new(&packet), &packet),
            _ => false,
        };
    maps::leave();
    if !is_counted {
        maps::continue_with(&maps::EGRESS_CORES, u32::from(link_len == 0), skb.cast());
    }
    NEXT
}

/// Whether netfilter counts the packet, while the hook changes. A fragment it does not count: it has seen
/// the whole datagram, which was another packet.
#[inline(always)]
fn is_the_other_hooks(packet: &Skb, protocol: u16) -> bool {
    match setting!(handover) {
        settings::NOTE => maps::was_noted(packet.skb as u64, packet.ip_bytes()) || !is_fragment(packet, protocol),
        settings::COUNT_THE_REST => maps::was_noted(packet.skb as u64, packet.ip_bytes()),
        _ => false,
    }
}

/// Whether the packet is a part of a datagram. Of IPv6 only where the fragment header is the first one,
/// where the kernel puts it when there is no other.
#[inline(always)]
fn is_fragment(packet: &Skb, protocol: u16) -> bool {
    const FRAGMENT: u8 = 44;
    match protocol {
        ETH_P_IP => {
            let mut offset = [0u16; 1];
            // More fragments, or an offset.
            packet.load(6, &mut offset) && u16::from_be(offset[0]) & 0x3fff != 0
        }
        ETH_P_IPV6 => {
            let mut next = [0u8; 1];
            packet.load(6, &mut next) && next[0] == FRAGMENT
        }
        _ => false,
    }
}

#[inline(always)]
fn enters(skb: *const __sk_buff, link_len: u32) -> i32 {
    maps::enter();
    let (packet, protocol, is_tagged) = Skb::new(skb, link_len);
    match protocol {
        // It arrives once more, on the VLAN's device.
        _ if is_tagged && maps::is_trunk(packet.out()) => {}
        ETH_P_IP => arrived::<V4>(&packet, packet.out()),
        ETH_P_IPV6 => arrived::<V6>(&packet, packet.out()),
        _ => {}
    }
    maps::leave();
    NEXT
}

/// A packet in a `struct __sk_buff`.
struct Skb {
    skb: *const __sk_buff,
    link_len: u32,
}

impl Skb {
    /// With its protocol, and whether it has a VLAN tag. That may stand in the link header, or beside
    /// the packet; two may.
    #[inline(always)]
    fn new(skb: *const __sk_buff, link_len: u32) -> (Self, u16, bool) {
        // SAFETY, here and below: the kernel passes a valid context.
        let mut protocol = u16::from_be(unsafe { (*skb).protocol } as u16);
        let mut is_tagged = unsafe { (*skb).vlan_present } != 0;
        let mut packet = Self { skb, link_len };
        for _ in 0..2 {
            let mut inner = [0u16; 1];
            if link_len == 0 || !matches!(protocol, ETH_P_8021Q | ETH_P_8021AD) || !packet.load(2, &mut inner) {
                break;
            }
            packet.link_len += VLAN_LEN;
            is_tagged = true;
            protocol = u16::from_be(inner[0]);
        }
        (packet, protocol, is_tagged)
    }
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
    fn pieces(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn forget<const N: usize>(&self, words: [u32; N]) -> [u32; N] {
        maps::forget(words)
    }

    #[inline(always)]
    fn load<W: Word, const N: usize>(&self, offset: u32, words: &mut [W; N]) -> bool {
        let width = size_of::<W>();
        let at = self.link_len.wrapping_add(offset);
        if at < MAX_DIRECT {
            // SAFETY: the kernel passes a valid context; the words are read only below its end, and the
            // processors that run eBPF load unaligned ones.
            unsafe {
                let start = ((*self.skb).data as usize as *const u8).add(at as usize);
                if start.add(N * width) <= (*self.skb).data_end as usize as *const u8 {
                    *words = core::array::from_fn(|i| ptr::read(start.add(i * width).cast()));
                    return true;
                }
            }
        }
        // Not zeros: the compiler would write them byte by byte in a loop, which the verifier walks.
        let mut copy = MaybeUninit::<[W; N]>::uninit();
        let len = (N * width) as u32;
        // SAFETY: `copy` has room for `len` bytes, all of which the kernel writes if it returns zero.
        unsafe {
            if bpf_skb_load_bytes(self.skb.cast(), at, copy.as_mut_ptr().cast(), len) != 0 {
                return false;
            }
            *words = copy.assume_init();
        }
        true
    }
}

/// A packet whose headers are read where they lie.
struct InPlace<'p> {
    packet: &'p Skb,
    /// Of the IP header.
    start: *const u8,
    /// Of the linear part.
    end: *const u8,
}

impl<'p> InPlace<'p> {
    #[inline(always)]
    fn new(packet: &'p Skb) -> Self {
        // SAFETY: the kernel passes a valid context.
        unsafe {
            let start = ((*packet.skb).data as usize as *const u8).add(packet.link_len as usize);
            Self { packet, start, end: (*packet.skb).data_end as usize as *const u8 }
        }
    }
}

impl Linear for InPlace<'_> {
    #[inline(always)]
    fn has(&self, bytes: u32) -> bool {
        // SAFETY: no more than an address until it is compared.
        unsafe { self.start.add(bytes as usize) <= self.end }
    }

    #[inline(always)]
    fn word<W: Word>(&self, offset: u32) -> W {
        // SAFETY: the caller has asked `has`, and the processors that run eBPF load unaligned words.
        unsafe { ptr::read(self.start.add(offset as usize).cast()) }
    }

    #[inline(always)]
    fn ip_bytes(&self) -> u32 {
        self.packet.ip_bytes()
    }

    #[inline(always)]
    fn gso(&self) -> Option<Gso> {
        self.packet.gso()
    }

    #[inline(always)]
    fn is_whole(&self) -> bool {
        // A packet longer than the device's MTU was cut before it came here.
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
        // A longer packet was cut before it came here.
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

    #[inline(always)]
    fn tunnel_end(&self, epoch: u32) -> Slot {
        match tunnel_of(self.skb, epoch) {
            NO_TUNNEL => maps::tunnel_end(self.out(), epoch) as Slot,
            end => end as Slot,
        }
    }
}

/// No slot: the packet has no tunnel metadata.
const NO_TUNNEL: u32 = u32::MAX;

/// The zone in which the tunnel ends that was chosen for this packet alone, as eBPF programs and Open
/// vSwitch do.
#[inline(never)]
fn tunnel_of(skb: *const __sk_buff, epoch: u32) -> u32 {
    tunnel_address(skb).map_or(NO_TUNNEL, |end| maps::lookup_key(end, epoch).slot.into())
}

/// The other end of that tunnel. A function of its own, so that the look-up can have the place of its variables on the
/// stack.
#[inline(always)]
fn tunnel_address(skb: *const __sk_buff) -> Option<zone::Address> {
    let mut key = MaybeUninit::<bpf_tunnel_key>::uninit();
    // On the way out the kernel gives the other end as the local one (since Linux 5.19): it shows both as the
    // receiver has them.
    let mut read = |flags: u32| {
        let len = size_of::<bpf_tunnel_key>() as u32;
        // SAFETY: `key` has room for `len` bytes, all of which the kernel writes, and the kernel passes a valid context.
        unsafe { bpf_skb_get_tunnel_key(skb.cast_mut(), key.as_mut_ptr(), len, flags.into()) == 0 }
    };
    let is_v4 = read(0);
    if !is_v4 && !read(BPF_F_TUNINFO_IPV6) {
        return None;
    }
    // SAFETY: whole numbers, all of which were written.
    let end = unsafe { &(*key.as_ptr()).__bindgen_anon_3 };
    // SAFETY: as above.
    unsafe {
        Some(if is_v4 { zone::Address::v4(V4(end.local_ipv4.to_be())) } else { zone::Address::v6(V6(end.local_ipv6)) })
    }
}
