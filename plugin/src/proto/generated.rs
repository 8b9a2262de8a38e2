//! Generated from `proto/` by build.rs.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated code; the .proto files carry the words"
)]

/// Field numbers: a module for each message of flows and of Hubble's Observer.
pub mod number {
    include!(concat!(env!("OUT_DIR"), "/numbers.rs"));
}

/// Every message and service: a `google.protobuf.FileDescriptorSet`.
pub static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Package `flow`.
pub mod flow {
    tonic::include_proto!("flow");
}

/// Package `observer`.
pub mod observer {
    tonic::include_proto!("observer");
}

/// Package `peer`.
pub mod peer {
    tonic::include_proto!("peer");
}

/// Package `relay`.
pub mod relay {
    tonic::include_proto!("relay");
}

/// Package `meridian.v1`.
pub mod v1 {
    tonic::include_proto!("meridian.v1");
}

/// The services of which there are thousands of streams: `meridian.v1.Feed` and `meridian.v1.Reports`.
pub mod feed {
    include!(concat!(env!("OUT_DIR"), "/feed/meridian.v1.rs"));
}
