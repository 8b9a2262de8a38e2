//! How the core reads a packet, whatever the hook.

use zerocopy::FromBytes;

/// A packet at a hook: its bytes from the IP header on, and what its buffer says of its size.
pub trait Packet {
    /// IP bytes in the buffer, more than the wire carries at once for a GSO super-packet.
    fn len(&self) -> u32;

    /// How the packet will be cut before the wire; `None` where it leaves as it is.
    fn gso(&self) -> Option<Gso>;

    /// `N` words from `offset` after the start of the IP header, their bytes as they are in the
    /// packet; `None` where they can't be read. `offset` need not be aligned.
    fn load<W: Word, const N: usize>(&self, offset: u32) -> Option<[W; N]>;
}

/// The segmentation that a buffer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// `gso_size`: payload bytes of a segment.
    pub size: u16,
    /// `gso_type`: the kernel's `SKB_GSO_*` flags.
    pub kind: u32,
}

/// What can be loaded at once.
pub trait Word: Copy + Default + FromBytes {}

impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}
