//! Reads objects from the API server's JSON and reduces them to facts: one file for each kind. Parts that can't be
//! read are reported and left out; the rest counts.

pub(super) mod calico;
pub(super) mod cilium;
pub(super) mod endpoint_slice;
pub(super) mod namespace;
pub(super) mod node;
mod nullable;
pub(super) mod owner;
pub(super) mod pod;
mod read_object;
mod reading;
pub(super) mod service;

pub use read_object::{Agentless, LabelKeys, NoLabel, NodeLabel, ReadObject};

use super::facts::Kind;
use serde_json::from_slice;

/// Reads an object from the API server's JSON, and reduces it.
///
/// # Errors
/// The JSON is not an object of this kind.
pub fn read(kind: Kind, json: &[u8], labels: &LabelKeys) -> serde_json::Result<ReadObject> {
    Ok(match kind {
        Kind::Node => node::read(&from_slice(json)?, labels),
        Kind::Pod => pod::read(&from_slice(json)?, labels),
        Kind::ReplicaSet | Kind::Job => owner::read(&from_slice(json)?),
        Kind::Namespace => namespace::read(&from_slice(json)?, labels),
        Kind::Service => service::read(&from_slice(json)?),
        Kind::EndpointSlice => endpoint_slice::read(&from_slice(json)?),
        Kind::CiliumNode => cilium::node(&from_slice(json)?),
        Kind::CiliumEndpoint => cilium::endpoint(&from_slice(json)?),
        Kind::CiliumEndpointSlice => cilium::endpoint_slice(&from_slice(json)?),
        Kind::BlockAffinity | Kind::BlockAffinityV3 => calico::block_affinity(&from_slice(json)?),
    })
}
