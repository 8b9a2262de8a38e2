//! Namespace, of which only the chosen labels are needed: teams label their namespaces rather than each pod.

use super::{
    super::facts::Fact,
    read_object::{LabelKeys, ReadObject},
    reading::Reading,
};
use crate::identity::{LABEL_BYTES, LABELS, bounded_labels};
use kube::core::{DynamicObject, PartialObjectMeta};
use std::sync::Arc;

pub(in super::super) fn read(object: &PartialObjectMeta<DynamicObject>, labels: &LabelKeys) -> ReadObject {
    let meta = &object.metadata;
    let mut reading = Reading::default();
    let chosen = meta.labels.iter().flatten().filter(|(key, _)| labels.namespace.contains(key));
    let (kept, cut) = bounded_labels(chosen);
    if cut > 0 {
        reading.problem(format_args!(
            "metadata.labels: {cut} of them are too many (at most {LABELS}, {LABEL_BYTES} bytes)"
        ));
    }
    ReadObject::new(meta, Fact::Namespace(Arc::new(kept)), reading.problems())
}
