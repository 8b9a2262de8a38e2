//! What advice is made of.

use super::traffic::Traffic;
use crate::{catalogue::Catalogue, cost::PriceTable};

/// What advice is made of.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// What was sent.
    pub traffic: &'a Traffic,
    /// The services, workloads and versions.
    pub catalogue: &'a Catalogue,
    /// The prices.
    pub prices: &'a PriceTable,
}
