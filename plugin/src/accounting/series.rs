//! The names of the ends of a series: the same in all outputs.
//!
//! `None` stands for the traffic without a series of its own, together.

use super::{Directed, LocatedPod, Workload};
use crate::zones::Place;
use std::sync::Arc;

/// The name for traffic without a series of its own. A real pod or workload of this name has a namespace.
pub const OTHER: &str = "other";
/// The same as a namespace: ends without a namespace have an empty one, and no namespace can be named like this.
pub const OTHER_NAMESPACE: &str = "(other)";

/// Prometheus's labels of `namespaces`.
pub const NAMESPACE_LABELS: [&str; 2] = ["source_namespace", "destination_namespace"];
/// Prometheus's labels of `workloads`.
pub const WORKLOAD_LABELS: [&str; 6] = [
    "source_namespace",
    "source_kind",
    "source_workload",
    "destination_namespace",
    "destination_kind",
    "destination_workload",
];
/// Prometheus's labels of `pods`.
pub const POD_LABELS: [&str; 6] =
    ["source_namespace", "source_pod", "source_zone", "destination_namespace", "destination_pod", "destination_zone"];

/// The source's and the destination's namespace.
pub fn namespaces(key: Option<&Directed<Arc<str>>>) -> [String; 2] {
    key.map_or([OTHER_NAMESPACE; 2], |key| [&*key.source, &*key.destination]).map(str::to_owned)
}

/// The namespace, kind and name of the source's workload, and of the destination's.
pub fn workloads(key: Option<&Directed<Option<Workload>>>) -> [String; 6] {
    let end = |side: fn(&Directed<Option<Workload>>) -> &Option<Workload>| match key.map(side) {
        Some(Some(workload)) => workload.0.workload_id(),
        Some(None) => ("", "", ""),
        None => ("", "", OTHER),
    };
    let (source, destination) = (end(|key| &key.source), end(|key| &key.destination));
    [source.0, source.1, source.2, destination.0, destination.1, destination.2].map(str::to_owned)
}

/// The namespace, name and zone of the source's pod, and of the destination's.
pub fn pods(key: Option<&Directed<LocatedPod>>) -> [String; 6] {
    let end = |side: fn(&Directed<LocatedPod>) -> &LocatedPod| match key.map(side) {
        Some((Some(pod), place)) => (pod.0.namespace.to_string(), pod.0.pod.to_string(), place.to_string()),
        Some((None, place)) => (String::new(), String::new(), place.to_string()),
        None => (String::new(), OTHER.to_owned(), Place::Unknown.to_string()),
    };
    let (source, destination) = (end(|key| &key.source), end(|key| &key.destination));
    [source.0, source.1, source.2, destination.0, destination.1, destination.2]
}
