//! The values that the loader writes into the programs' instructions before the kernel verifies them.
//!
//! Field offsets come from the running kernel's BTF. A program has each setting as an immediate, so that it costs no load
//! and the verifier removes the branches that it rules out.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The immediate of an instruction that moves a setting into a register, before the loader has filled it in: this plus
/// the setting's offset in [`Settings`].
pub const VALUE: i32 = 0x6d03_0000;

/// The offset of an instruction that loads a field of a kernel structure, before the loader has filled it in: this plus
/// [`FIELD_STEP`] times the offset in [`Settings`] of the field's own offset.
pub const FIELD: i16 = 0x7000;

/// Keeps placeholders of fields so far apart that the compiler joins no two loads.
pub const FIELD_STEP: i16 = 4;

/// Words of the secret key of the flow entries' hashes.
pub const HASH_KEYS: usize = 10;

/// The immediate of a call to `bpf_rdonly_cast` before the loader has named the kernel function.
pub const CALL_RDONLY_CAST: u32 = 0x6d01;
/// The immediate of a call to `bpf_dynptr_from_skb` before the loader has named the kernel function.
pub const CALL_DYNPTR_FROM_SKB: u32 = 0x6d02;

/// Settings of the programs. Offsets are in bytes; only netfilter's programs need them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// `sk_buff.len`.
    pub skb_len: u32,
    /// `sk_buff.data_len`.
    pub skb_data_len: u32,
    /// `sk_buff.head`.
    pub skb_head: u32,
    /// `sk_buff.data`.
    pub skb_data: u32,
    /// `sk_buff.end`.
    pub skb_end: u32,
    /// `sk_buff.network_header`.
    pub skb_network_header: u32,
    /// `sk_buff.skb_iif`.
    pub skb_iif: u32,
    /// `skb_shared_info.gso_size`.
    pub shared_gso_size: u32,
    /// `skb_shared_info.gso_type`.
    pub shared_gso_type: u32,
    /// `skb_shared_info.frag_list`.
    pub shared_frag_list: u32,
    /// `sk_buff.next`.
    pub skb_next: u32,
    /// `nf_hook_state.out`.
    pub state_out: u32,
    /// `net_device.ifindex`.
    pub device_ifindex: u32,
    /// `net_device.flags`.
    pub device_flags: u32,
    /// `net_device.mtu`.
    pub device_mtu: u32,
    /// The BTF id of a structure that begins with 64 bits of plain data: packet bytes are read through it.
    pub word_type: u32,
    /// The side of ZONE_MATRIX.
    pub matrix_slots: u32,
    /// 1: count in REENTRIES how often a run of the program interrupts another one on its CPU.
    pub count_reentries: u32,
    /// Slots of each flow map, a power of two.
    pub flow_slots: u32,
    /// Bytes that an overlay puts before each packet, if they count; otherwise 0.
    pub overlay_header_len: u32,
    /// 1: a packet passes the hook before IPsec encrypts it, and once more afterwards.
    pub sees_ipsec_twice: u32,
    /// [`COUNT`], or the role of the programs while counting moves from one hook to another.
    pub handover: u32,
    /// The secret key of the flow entries' hashes.
    pub hash_keys: [u32; HASH_KEYS],
}

/// [`Settings::handover`]: all packets are counted.
pub const COUNT: u32 = 0;
/// [`Settings::handover`]: netfilter counts and notes each packet; traffic control, which the packet reaches next,
/// crosses the note out and does not count. A packet that reaches only traffic control is not counted.
pub const NOTE: u32 = 1;
/// [`Settings::handover`]: traffic control counts packets without a note.
pub const COUNT_THE_REST: u32 = 2;

/// The limit of packets between the two hooks that the map PASSING has.
pub const PASSING: u32 = 16_384;
