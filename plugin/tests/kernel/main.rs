//! The kernel programs in the kernel: on built packets, and on real traffic in network namespaces.
//! Needs root.

mod demo;
mod packets;
mod traffic;
