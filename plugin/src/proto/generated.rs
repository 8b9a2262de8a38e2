//! Generated from `proto/` by build.rs.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated code; the .proto files have the comments"
)]

use prost_reflect::DescriptorPool;
use std::sync::LazyLock;

/// Field numbers: a module for each message of flows and of Hubble's Observer.
pub mod number {
    include!(concat!(env!("OUT_DIR"), "/numbers.rs"));
}

/// Every message and service: a `google.protobuf.FileDescriptorSet`.
pub static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The descriptors of all messages and services, decoded once.
pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    // The descriptors come from the build; a test decodes them.
    DescriptorPool::decode(DESCRIPTORS).unwrap_or_default()
});

/// Package `flow`.
pub mod flow {
    include!(concat!(env!("OUT_DIR"), "/flow.rs"));
}

/// Package `observer`.
pub mod observer {
    include!(concat!(env!("OUT_DIR"), "/observer.rs"));
}

/// Package `peer`.
pub mod peer {
    include!(concat!(env!("OUT_DIR"), "/peer.rs"));
}

/// Package `relay`.
pub mod relay {
    include!(concat!(env!("OUT_DIR"), "/relay.rs"));
}

/// Package `meridian.v1`.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/meridian.v1.rs"));
}
