//! The pairs of pods behind a line of another view.

use super::{
    readings::{PodRoute, ZoneRoute, is_crossing},
    table::{Line, View},
};

/// A limit on the pairs of pods that are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PairFilter {
    Zones(ZoneRoute),
    /// Across zones and regions, as the line of the workload counts.
    Workload {
        name: String,
        kind: String,
    },
}

impl PairFilter {
    /// The limit to the pairs of a line, in views whose lines have pairs.
    pub(super) fn of(view: View, line: &Line) -> Option<Self> {
        let text = |at: usize| line.cells.get(at).map(|cell| cell.text.clone()).unwrap_or_default();
        match view {
            View::Zones => Some(Self::Zones(ZoneRoute { source: text(0), destination: text(1), locality: text(2) })),
            View::Workloads => Some(Self::Workload { name: text(0), kind: text(1) }),
            View::Pairs | View::Findings => None,
        }
    }

    pub(super) fn holds(&self, pair: &PodRoute) -> bool {
        match self {
            Self::Zones(zones) => {
                pair.source.zone == zones.source
                    && pair.destination.zone == zones.destination
                    && pair.locality == zones.locality
            }
            Self::Workload { name, kind } => {
                let ends = [&pair.source, &pair.destination];
                is_crossing(&pair.locality) && ends.iter().any(|end| end.kind == *kind && end.workload() == *name)
            }
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Zones(zones) => format!("{} → {}", zones.source, zones.destination),
            Self::Workload { name, .. } => name.clone(),
        }
    }
}
