//! The bytes by pod on the leader's page, with everything on the internet as one end.

use crate::{
    cluster::{Cluster, OUTSIDE},
    nodes::pages::{self, Series},
    wire::Sums,
};

/// IP bytes by pods of all nodes. An end on the internet is `OUTSIDE`; a sender to it that is no pod is its zone.
pub fn by_pods(cluster: &Cluster) -> Sums {
    let mut sums = Sums::new();
    for Series { name, labels, value } in pages::totals(cluster) {
        if name == "meridian_pod_bytes_total" {
            let end = |end: &str| format!("{}/{}", labels[&format!("{end}_namespace")], labels[&format!("{end}_pod")]);
            let mut ends = (end("source"), end("destination"));
            if labels["locality"] == "internet" {
                ends.1 = OUTSIDE.to_owned();
                if ends.0 == "/" {
                    ends.0 = labels["source_zone"].clone();
                }
            }
            *sums.entry(ends).or_default() += value as u64;
        }
    }
    sums
}
