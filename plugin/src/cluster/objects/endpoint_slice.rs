//! EndpointSlice: the addresses of a service, and how many are ready and hinted for each zone.

use super::{
    super::facts::{Fact, Slice},
    read_object::ReadObject,
    reading::Reading,
};
use crate::catalogue::{Endpoints, MAX_NAME, MAX_ZONES};
use kube::core::DynamicObject;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(in super::super) fn read(object: &DynamicObject) -> ReadObject {
    let mut reading = Reading::default();
    let service = object.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
    let (mut addresses, mut ready) = (BTreeSet::new(), Endpoints::default());
    let address_type = reading.text(&object.data, "/addressType");
    // DNS names are not resolved.
    if address_type != Some("FQDN") {
        for endpoint in reading.list(&object.data, "/endpoints") {
            let is_pod = reading.text(endpoint, "/targetRef/kind") == Some("Pod");
            let pod: Option<Arc<str>> = reading.text(endpoint, "/targetRef/name").filter(|_| is_pod).map(Into::into);
            for text in reading.texts(endpoint, "/addresses") {
                let address = reading.address(text, "endpoints[].addresses");
                addresses.extend(address.map(|address| (address, pod.clone())));
            }
            // A missing condition counts as ready.
            if endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)) {
                count(&mut reading, endpoint, &mut ready);
            }
        }
    }
    let service = service.map_or("", String::as_str).into();
    let fact = Fact::Slice(Arc::new(Slice {
        service,
        addresses: addresses.into_iter().collect(),
        is_ipv6: address_type == Some("IPv6"),
        ready: Arc::new(ready),
    }));
    ReadObject::new(&object.metadata, fact, reading.problems())
}

/// Counts a ready endpoint in its zone, and in the zones that it is hinted for.
fn count(reading: &mut Reading, endpoint: &Value, ready: &mut Endpoints) {
    let zone = reading.text(endpoint, "/zone").unwrap_or_default();
    add(reading, &mut ready.ready, zone);
    let hints = reading.list(endpoint, "/hints/forZones");
    if hints.is_empty() {
        ready.unhinted = ready.unhinted.saturating_add(1);
    }
    for hint in hints.iter().take(MAX_ZONES) {
        if let Some(zone) = reading.text(hint, "/name") {
            add(reading, &mut ready.hinted, zone);
        }
    }
}

fn add(reading: &mut Reading, to: &mut BTreeMap<String, u32>, zone: &str) {
    if zone.len() > MAX_NAME || (to.len() >= MAX_ZONES && !to.contains_key(zone)) {
        reading.problem(format_args!("endpoints[].zone: more than {MAX_ZONES} of them, or too long"));
        return;
    }
    let count = to.entry(zone.to_owned()).or_default();
    *count = count.saturating_add(1);
}
