//! The query of a statement.

use super::group::{ChargeTo, Dimension};
use crate::zones::Locality;

/// The query of a statement.
#[derive(Clone, Debug)]
pub struct Query {
    /// The key of the rows.
    pub by: Dimension,
    /// The localities that are summed.
    pub localities: Vec<Locality>,
    /// The end that is charged.
    pub charge: ChargeTo,
    /// The most expensive rows that are shown; the others are one row.
    pub top: Option<usize>,
    /// Whether the rules are shown with their prices and sources.
    pub explain: bool,
}

impl Query {
    /// The localities that a provider charges for, or may charge for: all but one zone and the internet.
    pub const LOCALITIES: [Locality; 3] = [Locality::CrossZone, Locality::CrossRegion, Locality::Unknown];
}

impl Default for Query {
    fn default() -> Self {
        Self {
            by: Dimension::ZonePair,
            localities: Self::LOCALITIES.into(),
            charge: ChargeTo::Ends,
            top: None,
            explain: false,
        }
    }
}
