//! EndpointSlice: the addresses of a service.

use super::{
    super::facts::{Fact, Slice},
    read_object::ReadObject,
    reading::Reading,
};
use kube::core::DynamicObject;
use std::{collections::BTreeSet, sync::Arc};

pub(in super::super) fn read(object: &DynamicObject) -> ReadObject {
    let mut reading = Reading::default();
    let service = object.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
    let mut addresses = BTreeSet::new();
    // DNS names are not resolved.
    if reading.text(&object.data, "/addressType") != Some("FQDN") {
        for endpoint in reading.list(&object.data, "/endpoints") {
            let is_pod = reading.text(endpoint, "/targetRef/kind") == Some("Pod");
            let pod: Option<Arc<str>> = reading.text(endpoint, "/targetRef/name").filter(|_| is_pod).map(Into::into);
            for text in reading.texts(endpoint, "/addresses") {
                let address = reading.address(text, "endpoints[].addresses");
                addresses.extend(address.map(|address| (address, pod.clone())));
            }
        }
    }
    let service = service.map_or("", String::as_str).into();
    let fact = Fact::Slice(Slice { service, addresses: addresses.into_iter().collect() });
    ReadObject::new(&object.metadata, fact, reading.problems())
}
