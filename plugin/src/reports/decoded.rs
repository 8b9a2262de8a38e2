//! A report, decoded. Names that repeat, in one report or in those of many nodes, are stored once.

use crate::{
    accounting::{ByLocality, Directed, EndpointKey, Pod, TransferKey},
    identity::{Endpoint, Interner, Pool},
    proto::v1::{self, ReportRequest},
    wire::{self, DecodedNames, Malformed, NameStore},
    zones::{Pair, Zone},
};
use ahash::AHashSet;
use meridian_abi::{Counter, stats::Stat};
use std::sync::Arc;

/// The limit of pairs of pods of one node.
pub(super) const PAIRS: usize = 65_536;

/// Names of pods, and of everything else that pods share.
#[derive(Debug, Default)]
pub(super) struct SharedNames {
    pods: AHashSet<Pod>,
    pool: Pool,
    zones: Interner<Zone>,
}

impl SharedNames {
    /// Forgets pods that no report has any more. Must be called regularly; the other names do it themselves.
    pub(super) fn expire(&mut self) {
        self.pods.retain(|pod| Arc::strong_count(&pod.0) > 1);
    }

    /// The number of pods.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }
}

impl NameStore for SharedNames {
    fn endpoint(&mut self, endpoint: Endpoint) -> Arc<Endpoint> {
        // Nodes and external prefixes are no pods.
        if endpoint.pod.is_empty() {
            return Arc::new(self.pool.endpoint(endpoint));
        }
        let pod = Pod(Arc::new(endpoint));
        match self.pods.get(&pod) {
            // A pod's workload may have become known since.
            Some(known) if known.0.workload == pod.0.workload && known.0.node == pod.0.node => Arc::clone(&known.0),
            _ => {
                let pooled = Arc::new(self.pool.endpoint(Arc::unwrap_or_clone(pod.0)));
                self.pods.replace(Pod(Arc::clone(&pooled)));
                pooled
            }
        }
    }

    fn zone(&mut self, zone: Zone) -> Arc<Zone> {
        self.zones.keep(Arc::new(zone))
    }
}

/// A decoded report.
pub(super) struct Read {
    pub(super) boot_id: [u8; 16],
    pub(super) matrix: Vec<(Pair, Counter)>,
    pub(super) stats: Vec<(Stat, Counter)>,
    pub(super) pods: Vec<(TransferKey, Counter)>,
    pub(super) ended: Vec<TransferKey>,
    pub(super) attributed: ByLocality,
    pub(super) sent_by_known: ByLocality,
}

impl Read {
    /// Decodes a report.
    ///
    /// # Errors
    /// The report is not as an agent sends it.
    pub(super) fn new(report: &ReportRequest, names: &mut SharedNames) -> Result<Self, Malformed> {
        wire::node_name(&report.node)?;
        let boot_id = report.boot_id.as_slice().try_into().map_err(|_| Malformed("the boot id is not 16 bytes"))?;
        if report.pods.len() > PAIRS || report.ended.len() > PAIRS {
            return Err(Malformed("it has too many pairs of pods"));
        }
        let matrix = wire::matrix(&report.zones, names)?;
        let none = v1::Names::default();
        let known = DecodedNames::new(report.names.as_ref().unwrap_or(&none), names);
        let key = |line: &v1::Line| {
            let named = |end: &v1::End| (known.endpoint(end).map(EndpointKey), known.place(end));
            let (Some(source), Some(destination)) = (&line.source, &line.destination) else {
                return Err(Malformed("a pair has two ends"));
            };
            let ends = Directed { source: named(source), destination: named(destination) };
            Ok(TransferKey { ends, service: wire::service_of(line.service.as_ref()) })
        };
        let pod = |line: &v1::Line| {
            let [counter] = line.counters[..] else { return Err(Malformed("a pair has one counter")) };
            Ok((key(line)?, counter.into()))
        };
        Ok(Self {
            boot_id,
            matrix,
            stats: wire::stats(&report.reasons),
            pods: report.pods.iter().map(pod).collect::<Result<_, _>>()?,
            ended: report.ended.iter().map(key).collect::<Result<_, _>>()?,
            attributed: report.attributed.as_slice().into(),
            sent_by_known: report.sent_by_known.as_slice().into(),
        })
    }
}
