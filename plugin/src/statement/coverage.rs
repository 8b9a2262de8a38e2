//! How much of the time of a statement was seen, and of which nodes.

use crate::{
    history::{Block, NodeCoverage, Span},
    zones::Locality,
};
use std::collections::BTreeMap;

/// How much of the time was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The spans with blocks, by their start, with the recorded seconds.
    spans: BTreeMap<Span, u32>,
    /// Seconds that each node's reports cover, and seconds in which it was known.
    nodes: BTreeMap<String, (u64, u64)>,
    asked: Option<(u64, u64)>,
    /// Bytes between places of which one is not known.
    pub unknown_bytes: u64,
    /// Bytes between zones of no single workload.
    pub unattributed_bytes: u64,
}

impl Coverage {
    pub(super) fn add(&mut self, block: &Block) {
        let seconds = block.coverage.recorded_seconds;
        *self.spans.entry(block.span).or_default() += seconds;
        let mut last = "";
        for NodeCoverage { name, reported_seconds, .. } in
            block.coverage.nodes.iter().filter(|node| !node.name.is_empty())
        {
            let (reported, known) = self.nodes.entry(name.clone()).or_default();
            *reported += u64::from(*reported_seconds);
            // Two machines that had one name follow each other, in the list and in time.
            *known += if name == last { 0 } else { u64::from(seconds) };
            last = name;
        }
        for transfer in &block.transfers {
            let [source, destination] = transfer.key.sites.map(|site| &block.sites[site as usize].place);
            let bytes = transfer.counter.bytes;
            match Locality::between(source, destination) {
                Locality::Unknown => self.unknown_bytes = self.unknown_bytes.saturating_add(bytes),
                Locality::Internet => {}
                _ if transfer.key.workloads.iter().any(|workload| block.workloads[*workload as usize].is_other()) => {
                    self.unattributed_bytes = self.unattributed_bytes.saturating_add(bytes);
                }
                _ => {}
            }
        }
    }

    /// The range that was asked for: what no block is of was not seen.
    pub const fn ask(&mut self, from: u64, to: u64) {
        self.asked = Some((from, to));
    }

    /// The first second, and the one after the last.
    pub fn range(&self) -> (u64, u64) {
        let first = self.spans.keys().map(|span| span.start).min().unwrap_or_default();
        let last = self.spans.keys().map(|span| span.end()).max().unwrap_or_default();
        self.asked.unwrap_or((first, last))
    }

    /// Seconds of the range.
    pub fn seconds(&self) -> u64 {
        let (from, to) = self.range();
        to.saturating_sub(from)
    }

    /// Recorded seconds.
    pub fn recorded_seconds(&self) -> u64 {
        self.spans.values().map(|seconds| u64::from(*seconds)).sum()
    }

    /// Nodes that were known.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Nodes that were silent for a tenth of the time or more, with the percentage of time in which they reported.
    pub fn silent(&self) -> impl Iterator<Item = (&str, u64)> {
        self.nodes.iter().filter_map(|(name, (reported, known))| {
            let percent = reported.saturating_mul(100).checked_div(*known).unwrap_or_default();
            (percent < 90).then_some((name.as_str(), percent))
        })
    }
}
