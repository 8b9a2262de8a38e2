//! Meridian's reports: the agents' pages for Prometheus, and the controller's.

use super::{
    cluster::{Cluster, NODES, OUTSIDE},
    wire::{By, Sums},
};
use std::collections::{BTreeMap, BTreeSet};

/// A series of a page.
#[derive(Debug)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// IP bytes by zones, of all nodes.
pub fn by_zones(cluster: &Cluster) -> Sums {
    let series = NODES.iter().flat_map(|(_, address)| agent(cluster, address));
    let mut sums = BTreeMap::new();
    for Series { name, mut labels, value } in series {
        if name == "meridian_zone_bytes_total" && labels["direction"] == "egress" {
            let mut end = |label: &str| labels.remove(label).unwrap();
            *sums.entry((end("source_zone"), end("destination_zone"))).or_default() += value as u64;
        }
    }
    sums
}

/// IP bytes of all nodes, as the controller that sums up has them, between pods of the tests' namespaces.
pub fn by_all(cluster: &Cluster) -> BTreeMap<By, Sums> {
    let mut all = BTreeMap::new();
    for series in totals(cluster) {
        let (by, part) = match series.name.as_str() {
            "meridian_pod_bytes_total" => (By::Pod, Some("pod")),
            "meridian_workload_bytes_total" => (By::Workload, Some("workload")),
            "meridian_namespace_bytes_total" => (By::Namespace, None),
            _ => continue,
        };
        let end = |end: &str| {
            let namespace = &series.labels[&format!("{end}_namespace")];
            let is_ours = ["shop", "billing"].contains(&namespace.as_str());
            is_ours.then(|| match part {
                Some(part) => format!("{namespace}/{}", series.labels[&format!("{end}_{part}")]),
                None => namespace.clone(),
            })
        };
        if let (Some(source), Some(destination)) = (end("source"), end("destination")) {
            let sums: &mut Sums = all.entry(by).or_default();
            *sums.entry((source, destination)).or_default() += series.value as u64;
        }
    }
    all
}

/// The hook of each node.
pub fn hooks(cluster: &Cluster) -> BTreeSet<String> {
    let series = NODES.iter().flat_map(|(_, address)| agent(cluster, address));
    series.filter(|series| series.name == "meridian_hook_info").map(|mut s| s.labels.remove("hook").unwrap()).collect()
}

/// The page of the controller that has the Lease.
pub fn totals(cluster: &Cluster) -> Vec<Series> {
    let (node, address) = holder(cluster).expect("a controller has the Lease");
    page(cluster, &node, &format!("{address}:9981"))
}

/// The node and the address of the controller that has the Lease.
pub fn holder(cluster: &Cluster) -> Option<(String, String)> {
    let lease =
        ["--namespace", "meridian", "get", "lease", "meridian-controller", "--output=jsonpath={.spec.holderIdentity}"];
    let holder = cluster.kubectl(&lease);
    let holder = holder.split('_').next().filter(|name| !name.is_empty())?;
    let path = "--output=jsonpath={.spec.nodeName} {.status.podIP}";
    let of_pod = cluster.kubectl(&["--namespace", "meridian", "get", "pod", "--ignore-not-found", holder, path]);
    let (node, address) = of_pod.split_once(' ')?;
    Some((node.to_owned(), address.to_owned()))
}

/// The page of the agent at an address.
pub fn agent(cluster: &Cluster, address: &str) -> Vec<Series> {
    page(cluster, OUTSIDE, &format!("{address}:9980"))
}

fn page(cluster: &Cluster, from: &str, address: &str) -> Vec<Series> {
    let address = format!("http://{address}/metrics");
    read(&cluster.ask(from, &["curl", "--silent", "--fail", "--max-time", "20", &address]))
}

/// The series of a page.
pub fn read(page: &str) -> Vec<Series> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect()
}

/// A line of the page, with labels or without.
fn series(line: &str) -> Option<Series> {
    let (name, labels, value) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, value) = rest.rsplit_once("} ")?;
            (name, labels, value)
        }
        None => {
            let (name, value) = line.split_once(' ')?;
            (name, "", value)
        }
    };
    let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
    let labels = labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
    let value = value.split(' ').next()?.parse().ok()?;
    Some(Series { name: name.to_owned(), labels: labels.collect(), value })
}
