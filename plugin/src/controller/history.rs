//! The history of the cluster: every replica receives all reports, and keeps its own.

use super::Error;
use crate::{
    cluster::NodeProvider,
    historian::{NodeSeen, Recording, TICK},
    reports::ClusterTotals,
    zones::{Provider, StaticTable},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// A node that has not reported for so long is silent.
const SILENT: Duration = Duration::from_secs(30);

/// Records what nodes report.
pub(super) struct HistoryRecorder {
    pub(super) recording: Recording,
    pub(super) cluster_totals: Arc<ClusterTotals>,
    pub(super) nodes: watch::Receiver<Arc<[NodeProvider]>>,
    pub(super) fixed: watch::Receiver<Arc<StaticTable>>,
}

impl HistoryRecorder {
    /// Until `shutdown`; then the open hour is written.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = ticks.tick() => false,
                () = shutdown.cancelled() => true,
            };
            let work = spawn_blocking(move || {
                self.record(is_last);
                self
            });
            self = work.await.map_err(Error::Panicked)?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn record(&mut self, is_last: bool) {
        let nodes = Arc::clone(&self.nodes.borrow());
        let providers = providers(&nodes, &self.fixed.borrow().providers);
        let heard = self.cluster_totals.nodes(Instant::now()).into_iter().map(|node| (node.node, node.age));
        let mut heard: BTreeMap<String, Duration> = heard.collect();
        let mut seen: Vec<NodeSeen> = nodes
            .iter()
            .map(|node| NodeSeen {
                name: node.name.to_string(),
                provider_id: node.provider_id.to_string(),
                is_heard: heard.remove(&*node.name).is_some_and(|age| age < SILENT),
            })
            .collect();
        // Nodes that report and that the cluster does not have any more, or not yet.
        let others = heard.into_iter().filter(|(_, age)| *age < SILENT);
        seen.extend(others.map(|(name, _)| NodeSeen { name, provider_id: String::new(), is_heard: true }));
        let grown = self.cluster_totals.take_growth(is_last);
        self.recording.record(&grown, providers, &seen);
        if is_last {
            self.recording.save();
        }
    }
}

/// The providers of zones: those of the static table, then those of their nodes. A zone whose nodes do not agree
/// has none.
fn providers(nodes: &[NodeProvider], fixed: &BTreeMap<String, Provider>) -> BTreeMap<String, Provider> {
    let mut by_zone: BTreeMap<String, Option<Provider>> = BTreeMap::new();
    for NodeProvider { zone, provider, .. } in nodes {
        let Some(zone) = zone else { continue };
        by_zone
            .entry(zone.clone())
            .and_modify(|known| {
                if known != provider {
                    *known = None;
                }
            })
            .or_insert_with(|| provider.clone());
    }
    let mut providers: BTreeMap<String, Provider> =
        by_zone.into_iter().filter_map(|(zone, provider)| Some((zone, provider?))).collect();
    providers.extend(fixed.clone());
    providers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(zone: &str, provider: &str) -> NodeProvider {
        NodeProvider {
            name: "n".into(),
            zone: (!zone.is_empty()).then(|| zone.to_owned()),
            provider: Provider::new(provider),
            provider_id: Arc::default(),
        }
    }

    #[test]
    fn a_zone_has_the_provider_on_which_its_nodes_agree_or_that_of_the_static_table() {
        let nodes = [
            node("a", "aws"),
            node("a", "aws"),
            node("b", "aws"),
            node("b", "gcp"),
            node("b", "aws"),
            node("", "aws"),
            node("c", ""),
        ];
        let fixed = BTreeMap::from([("d".to_owned(), Provider::new("dc").unwrap())]);
        let found = providers(&nodes, &fixed);
        let named: Vec<_> = found.iter().map(|(zone, provider)| (zone.as_str(), provider.name())).collect();
        assert_eq!(named, [("a", "aws"), ("d", "dc")]);
    }
}
