//! What Meridian says: the agents' pages for Prometheus, and the controller's.

use crate::{
    cluster::{Cluster, NODES, OUTSIDE},
    wire::Pair,
};
use std::collections::{BTreeMap, BTreeSet};

/// A series of a page.
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// IP bytes by zones, of all nodes.
pub fn by_zones(cluster: &Cluster) -> BTreeMap<Pair, u64> {
    let series = NODES.iter().flat_map(|(_, address)| page(cluster, OUTSIDE, &format!("{address}:9980")));
    let mut sums = BTreeMap::new();
    for Series { name, mut labels, value } in series {
        if name == "meridian_zone_bytes_total" && labels["direction"] == "egress" {
            let mut end = |label: &str| labels.remove(label).unwrap();
            *sums.entry((end("source_zone"), end("destination_zone"))).or_default() += value as u64;
        }
    }
    sums
}

/// IP bytes by pods, of all nodes, as the controller that sums up has them. Whatever is on the internet is `OUTSIDE`,
/// and a sender to it that is no pod is its zone.
pub fn by_pods(cluster: &Cluster) -> BTreeMap<Pair, u64> {
    let (node, address) = leader(cluster);
    let mut sums = BTreeMap::new();
    for Series { name, labels, value } in page(cluster, &node, &format!("{address}:9981")) {
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

/// The hook of each node.
pub fn hooks(cluster: &Cluster) -> BTreeSet<String> {
    let series = NODES.iter().flat_map(|(_, address)| page(cluster, OUTSIDE, &format!("{address}:9980")));
    series.filter(|series| series.name == "meridian_hook_info").map(|mut s| s.labels.remove("hook").unwrap()).collect()
}

/// The node and the address of the controller that has the Lease.
fn leader(cluster: &Cluster) -> (String, String) {
    let lease =
        ["--namespace", "meridian", "get", "lease", "meridian-controller", "--output=jsonpath={.spec.holderIdentity}"];
    let leader = cluster.kubectl(&lease);
    let leader = leader.split('_').next().unwrap();
    let field = |path: &str| {
        cluster.kubectl(&["--namespace", "meridian", "get", "pod", leader, &format!("--output=jsonpath={{{path}}}")])
    };
    (field(".spec.nodeName"), field(".status.podIP"))
}

fn page(cluster: &Cluster, from: &str, address: &str) -> Vec<Series> {
    let text =
        cluster.ask(from, &["curl", "--silent", "--fail", "--max-time", "20", &format!("http://{address}/metrics")]);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect()
}

/// A line of the page that has labels.
fn series(line: &str) -> Option<Series> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once("} ")?;
    let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
    let labels = labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
    let value = value.split(' ').next()?.parse().ok()?;
    Some(Series { name: name.to_owned(), labels: labels.collect(), value })
}
