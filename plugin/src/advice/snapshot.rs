//! The input of the rules.

use super::traffic::Traffic;
use crate::{catalogue::Catalogue, cost::PriceTable};

/// The input of the rules.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The traffic.
    pub traffic: &'a Traffic,
    /// The services, workloads and versions.
    pub catalogue: &'a Catalogue,
    /// The prices.
    pub prices: &'a PriceTable,
}
