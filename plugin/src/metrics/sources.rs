//! The page's view of the counters of a process.

use super::controller::{Controller, SILENT};
use crate::{
    counters::Sample,
    web::{AgentsHealth, Counts, Health, NodeHealth, Source},
};
use meridian_abi::{Counter, stats::Stat};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// The nodes that a process measures itself, for the page.
#[derive(Debug)]
pub struct MeasuredNodes {
    /// `agent` or `demo`.
    pub program: &'static str,
    /// The nodes.
    pub samples: crate::counters::Samples,
}

impl Source for MeasuredNodes {
    fn counts(&self) -> Counts {
        let samples = Arc::clone(&self.samples.borrow());
        let mut counts = Counts { nodes: samples.len(), ..Counts::default() };
        counts.time = samples.iter().map(|sample| sample.counted.time).min();
        samples.iter().for_each(|sample| counts.matrix.merge(&sample.counted.matrix));
        counts
    }

    fn health(&self) -> Health {
        let samples = Arc::clone(&self.samples.borrow());
        let stat = |stat: Stat| {
            let of_node =
                |sample: &Sample| sample.counted.stats.iter().filter(|(name, _)| *name == stat).map(|(_, n)| *n).sum();
            (stat, samples.iter().map(of_node).sum::<Counter>())
        };
        let node = |sample: &Sample| {
            let age = SystemTime::now().duration_since(sample.counted.time).unwrap_or_default();
            NodeHealth {
                name: sample.counted.whose.nodes().join(", "),
                age: Some(age),
                is_silent: age > SILENT,
                hook: Some((sample.hook, sample.hook_reason.to_string())),
            }
        };
        Health {
            program: self.program,
            nodes: samples.iter().map(node).collect(),
            stats: Stat::ALL.map(stat).into(),
            ..Health::default()
        }
    }
}

impl Source for Arc<Controller> {
    fn counts(&self) -> Counts {
        let totals = Arc::clone(&self.totals.borrow());
        let mut counts = Counts { time: totals.iter().map(|counted| counted.time).min(), ..Counts::default() };
        for counted in &*totals {
            counts.nodes += counted.whose.nodes().len();
            counts.matrix.merge(&counted.matrix);
        }
        counts
    }

    fn health(&self) -> Health {
        let (connected, behind) = self.agents.count(self.store.version());
        let node = |node: crate::reports::Reporting| NodeHealth {
            name: node.node,
            age: (node.age != Duration::MAX).then_some(node.age),
            is_silent: node.age > SILENT,
            hook: None,
        };
        let totals = Arc::clone(&self.totals.borrow());
        Health {
            program: "controller",
            is_leader: Some(self.role.borrow().is_leader()),
            agents: Some(AgentsHealth { connected, behind }),
            nodes: self.cluster_totals.nodes(Instant::now()).into_iter().map(node).collect(),
            stats: totals.iter().flat_map(|counted| counted.stats.clone()).collect(),
        }
    }
}
