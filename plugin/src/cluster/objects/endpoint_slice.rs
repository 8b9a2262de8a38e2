//! EndpointSlice: the addresses of a service.

use super::{
    super::facts::{Fact, Slice},
    reading::Reading,
    seen::Seen,
};
use kube::core::DynamicObject;
use std::collections::BTreeSet;

pub(in super::super) fn read(object: &DynamicObject) -> Seen {
    let mut reading = Reading::default();
    let service = object.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
    let mut addresses = BTreeSet::new();
    // Names are not resolved.
    if reading.text(&object.data, "/addressType") != Some("FQDN") {
        for endpoint in reading.list(&object.data, "/endpoints") {
            for text in reading.texts(endpoint, "/addresses") {
                addresses.extend(reading.address(text, "endpoints[].addresses"));
            }
        }
    }
    let service = service.map_or("", String::as_str).into();
    let fact = Fact::Slice(Slice { service, addresses: addresses.into_iter().collect() });
    Seen::new(&object.metadata, fact, reading.0)
}
