//! Traffic as charges, in the columns of FOCUS 1.3 (the FinOps Open Cost and Usage Specification), as CSV.
//!
//! A transfer is two charges, as in a provider's bill: what was sent, of the sender's end, and what was received, of the
//! receiver's. So the charges with `x_Direction` `sent` have the bytes of a report, those with `received` the same bytes
//! again, and all of them its money. Unpriced bytes have no cost: null, never zero. Pure.

mod charge;
mod columns;

pub use columns::COLUMNS;

use crate::{
    cost::PriceTable,
    history::{Block, Transfer},
    zones::Locality,
};
use ahash::AHashMap;
use charge::{Charge, Pair};

/// The charges of blocks.
#[derive(Debug)]
pub struct Charges<'a> {
    prices: &'a PriceTable,
    list: PriceTable,
    localities: Vec<Locality>,
}

impl<'a> Charges<'a> {
    /// Charges for traffic of these localities at these prices.
    pub fn new(prices: &'a PriceTable, localities: Vec<Locality>) -> Self {
        Self { prices, list: PriceTable::default(), localities }
    }

    /// The line with the names of the columns.
    pub fn header() -> String {
        COLUMNS.join(",") + "\n"
    }

    /// Adds the lines of a block.
    pub fn write(&self, block: &Block, text: &mut String) {
        let mut pairs: AHashMap<[u32; 2], Option<Pair<'_>>> = AHashMap::new();
        for Transfer { key, counter } in &block.transfers {
            let pair = pairs.entry(key.sites).or_insert_with(|| {
                let [source, destination] = key.sites.map(|site| &block.sites[site as usize]);
                let locality = Locality::between(&source.place, &destination.place);
                let is_asked = self.localities.contains(&locality);
                is_asked.then(|| Pair::new([source, destination], locality, self.prices, &self.list))
            });
            if let Some(pair) = pair {
                for end in 0..2 {
                    columns::write(&Charge { block, key, counter: *counter, pair, end }, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
