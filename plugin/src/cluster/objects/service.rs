//! Service: whether it has a cluster address.

use super::{
    super::facts::{Fact, Service},
    read_object::ReadObject,
};
use kube::core::{NotUsed, Object};
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
}

pub(in super::super) fn read(object: &Object<ServiceSpec, NotUsed>) -> ReadObject {
    let is_headless = object.spec.cluster_ip.is_empty() || object.spec.cluster_ip == "None";
    ReadObject::new(&object.metadata, Fact::Service(Service { is_headless }), Vec::new())
}
