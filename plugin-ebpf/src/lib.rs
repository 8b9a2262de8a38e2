//! The parts of the kernel programs that need no kernel: what a packet's headers say, what the
//! packet is on the wire, whether it stays on its link, where its flow entry is. They compile and are tested on the host.
//!
//! Packet bytes are in network byte order; addresses stay in it.
#![no_std]
#![forbid(unsafe_code)]

pub mod hash;
pub mod headers;
pub mod level;
pub mod packet;
pub mod ports;
pub mod straight;
pub mod wire;
