//! Looks at what agents and controllers serve for as long as it lives: no total goes backwards.

use crate::nodes::{
    cluster::{Cluster, NODES, OUTSIDE},
    pages,
};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often it looks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often it looks which controllers there are.
const LIST: Duration = Duration::from_secs(2);
const FAMILIES: [&str; 4] = [
    "meridian_zone_bytes_total",
    "meridian_cluster_zone_bytes_total",
    "meridian_namespace_bytes_total",
    "meridian_workload_bytes_total",
];

#[derive(Default)]
pub struct Totals {
    /// The last values of a page's series.
    known: Mutex<BTreeMap<String, BTreeMap<String, f64>>>,
    /// The longest time in which no replica served the cluster's totals, since the last query.
    gap: Mutex<Duration>,
    ends: AtomicBool,
}

impl Totals {
    /// Looks while the work is done.
    pub fn watch<T>(cluster: &Cluster, work: impl FnOnce(&Self) -> T) -> T {
        let totals = Self::default();
        thread::scope(|scope| {
            let looking = scope.spawn(|| totals.look(cluster));
            let end = End(&totals);
            let result = work(&totals);
            drop(end);
            looking.join().unwrap();
            result
        })
    }

    /// A node's counters begin anew: it was switched off.
    pub fn forget(&self, node: &str) {
        self.known.lock().unwrap().remove(node);
    }

    /// The longest time without totals since this was asked before.
    pub fn gap(&self) -> Duration {
        std::mem::take(&mut *self.gap.lock().unwrap())
    }

    fn look(&self, cluster: &Cluster) {
        let (mut listed, mut controllers, mut served) = (None, Vec::new(), Instant::now());
        while !self.ends.load(Ordering::Relaxed) {
            if listed.is_none_or(|listed: Instant| listed.elapsed() > LIST) {
                controllers = addresses(cluster);
                listed = Some(Instant::now());
            }
            for (node, address) in NODES {
                self.take(node, &page(cluster, &format!("{address}:9980")));
            }
            for address in &controllers {
                if self.take("the cluster", &page(cluster, &format!("{address}:9981"))) {
                    served = Instant::now();
                }
            }
            let mut gap = self.gap.lock().unwrap();
            *gap = gap.max(served.elapsed());
            drop(gap);
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Whether the page has totals.
    fn take(&self, whose: &str, page: &str) -> bool {
        let series = pages::read(page).into_iter().filter(|series| FAMILIES.contains(&series.name.as_str()));
        let now: BTreeMap<String, f64> =
            series.map(|series| (format!("{} {:?}", series.name, series.labels), series.value)).collect();
        if now.is_empty() {
            return false;
        }
        let mut all = self.known.lock().unwrap();
        let known = all.entry(whose.to_owned()).or_default();
        for (series, before) in &*known {
            let value = now.get(series).copied().unwrap_or_default();
            assert!(value >= *before, "{whose}: {series} goes backwards: {before} to {value}");
        }
        *known = now;
        true
    }
}

/// Ends the watch, also when the work fails.
struct End<'t>(&'t Totals);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ends.store(true, Ordering::Relaxed);
    }
}

/// The controllers' addresses. The API server may be busy.
fn addresses(cluster: &Cluster) -> Vec<String> {
    let path = "--output=jsonpath={.items[*].status.podIP}";
    let selector = "--selector=app.kubernetes.io/component=controller";
    let listed = cluster.command(&["kubectl", "--namespace=meridian", "get", "pods", selector, path]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).split_whitespace().map(str::to_owned).collect()
}

/// A page, or nothing if it is not served.
fn page(cluster: &Cluster, address: &str) -> String {
    let url = format!("http://{address}/metrics");
    let answer = cluster.in_network(OUTSIDE, &["curl", "--silent", "--fail", "--max-time", "2", &url]);
    String::from_utf8_lossy(&answer.stdout).into_owned()
}
