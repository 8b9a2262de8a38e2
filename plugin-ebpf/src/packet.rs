//! How the core reads a packet, whatever the hook.

use core::num::NonZeroU16;
use meridian_abi::zone::Slot;
use zerocopy::FromBytes;

/// A packet at a hook: its bytes from the IP header on, and its buffer's facts about its size.
pub trait Packet {
    /// IP bytes in the buffer, more than the wire carries at once for a GSO super-packet.
    fn ip_bytes(&self) -> u32;

    /// How the packet will be cut before the wire; `None` where it leaves as it is.
    fn gso(&self) -> Option<Gso>;

    /// How many pieces the buffer is a chain of, each of which becomes a fragment; 0: it is none, and
    /// [`TOO_MANY`]: more than are followed.
    fn pieces(&self) -> u32;

    /// Gives the words back as they are, while the verifier forgets what it knew of them: paths that
    /// differ only in that are one to it from here on.
    fn forget<const N: usize>(&self, words: [u32; N]) -> [u32; N];

    /// Loads words from `offset` after the start of the IP header, their bytes as they are in the
    /// packet. `offset` need not be aligned. False: they can't be read; `words` are as they were.
    ///
    /// Not an `Option`: what a `None` leaves undefined the compiler may still copy, and the verifier
    /// refuses a read of it.
    fn load<W: Word, const N: usize>(&self, offset: u32, words: &mut [W; N]) -> bool;
}

/// See [`Packet::pieces`].
pub const TOO_MANY: u32 = u32::MAX;

/// Where a packet goes, as the hook tells it. Asked only for what is needed.
pub trait Route {
    /// The device through which it leaves.
    fn out(&self) -> u32;

    /// That device's MTU.
    fn out_mtu(&self) -> u32;

    /// Whether that device is a loopback.
    fn out_is_loopback(&self) -> bool;

    /// The device on which it arrived; 0 if it was made here.
    fn arrived_on(&self) -> u32;

    /// The zone in which the tunnel of an overlay's device ends, by this version of the table; unknown
    /// where that can't be seen.
    fn tunnel_end(&self, epoch: u32) -> Slot;
}

/// The segmentation that a buffer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// `gso_size`: payload bytes of a segment.
    pub size: NonZeroU16,
    /// `gso_type`: the kernel's `SKB_GSO_*` flags.
    pub kind: u32,
}

/// The types that can be loaded at once.
pub trait Word: Copy + Default + FromBytes {}

impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}
