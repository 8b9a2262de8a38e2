//! The limits of an identity. The creator of a pod chooses its labels, its owner and the Services that select it,
//! and every agent of the cluster holds them.
//!
//! The API server limits names and label values, and neither the number of labels nor an owner's kind, name
//! and uid.

use super::{Endpoint, Labels};
use std::sync::Arc;

/// The longest name of an object, in bytes: a DNS name.
pub const NAME_BYTES: usize = 253;
/// The longest kind of an object, in bytes: a DNS label.
pub const KIND_BYTES: usize = 63;
/// Labels of an endpoint at most. Recommended labels are seven.
pub const LABELS: usize = 64;
/// The bytes of an endpoint's labels together at most: keys and values.
pub const LABEL_BYTES: usize = 4 << 10;
/// Services of an endpoint at most.
pub const SERVICES: usize = 32;

/// The first labels that are within the limits, and how many are not.
pub fn bounded_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> (Labels, usize) {
    let (mut kept, mut bytes, mut cut) = (Labels::new(), 0, 0);
    for (key, value) in labels {
        let with_this = bytes + key.len() + value.len();
        if kept.len() < LABELS && with_this <= LABEL_BYTES {
            bytes = with_this;
            kept.insert(key.clone(), value.clone());
        } else {
            cut += 1;
        }
    }
    (kept, cut)
}

/// The first of the services that are within the limits.
fn bounded_services(services: &[String]) -> impl Iterator<Item = &String> {
    services.iter().filter(|name| name.len() <= NAME_BYTES).take(SERVICES)
}

impl Endpoint {
    /// The endpoint within the limits, and whether something of it is left out. A name that is too long is
    /// left out whole: a part of it could be the name of another object.
    pub fn bounded(mut self) -> (Self, bool) {
        let mut is_cut = false;
        for name in [&mut self.namespace, &mut self.pod, &mut self.node] {
            if name.len() > NAME_BYTES {
                (*name, is_cut) = (Arc::default(), true);
            }
        }
        let is_long = |kind: &str, name: &str| kind.len() > KIND_BYTES || name.len() > NAME_BYTES;
        if self.workload.as_ref().is_some_and(|workload| is_long(&workload.kind, &workload.name)) {
            (self.workload, is_cut) = (None, true);
        }
        let (labels, cut) = bounded_labels(&*self.labels);
        if cut > 0 {
            (self.labels, is_cut) = (Arc::new(labels), true);
        }
        if bounded_services(&self.services).count() < self.services.len() {
            (self.services, is_cut) = (bounded_services(&self.services).cloned().collect(), true);
        }
        (self, is_cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Workload;

    /// The weight of an endpoint at most, in bytes: namespace, pod, workload and node, its labels and services.
    const ENDPOINT_BYTES: usize = 4 * NAME_BYTES + KIND_BYTES + LABEL_BYTES + SERVICES * NAME_BYTES;

    #[test]
    fn an_endpoint_weighs_no_more_than_its_limit_whatever_a_tenant_writes() {
        let long = "a".repeat(1_400_000);
        let hostile = Endpoint {
            namespace: "shop".into(),
            pod: "p".repeat(NAME_BYTES).into(),
            workload: Some(Arc::new(Workload { kind: "Deployment".into(), name: long.clone() })),
            labels: Arc::new((0..12_000).map(|n| (format!("app.kubernetes.io/{n:05}"), "v".repeat(63))).collect()),
            services: (0..10_000).map(|n| format!("{n:05}{}", "s".repeat(58))).collect(),
            node: long.into(),
            since: None,
        };
        let (bounded, is_cut) = hostile.bounded();
        let labels: usize = bounded.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        let services: usize = bounded.services.iter().map(String::len).sum();
        let names = bounded.namespace.len() + bounded.pod.len() + bounded.node.len();
        assert!(is_cut && bounded.workload.is_none() && bounded.node.is_empty());
        assert!(names + labels + services <= ENDPOINT_BYTES, "{names} + {labels} + {services}");
        assert_eq!((bounded.labels.len(), bounded.services.len()), (LABEL_BYTES / (23 + 63), SERVICES));
        let again = bounded.clone().bounded();
        assert_eq!(again, (bounded, false), "what is within the limits stays");
    }
}
