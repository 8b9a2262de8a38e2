//! One charge: what one end of a transfer pays in one block.

use crate::{
    cost::{Money, PriceTable, Quote, RulePrice, Unit},
    history::{Block, TransferKey, Workload},
    zones::{Locality, Location},
};
use meridian_abi::Counter;

/// A pair of sites with its prices.
pub(super) struct Pair<'a> {
    pub(super) sites: [&'a Location; 2],
    pub(super) locality: Locality,
    /// At the prices in force.
    pub(super) quote: Quote<'a>,
    /// At the list prices, without discounts and own rules.
    list: Quote<'a>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(
        sites: [&'a Location; 2],
        locality: Locality,
        prices: &'a PriceTable,
        list: &'a PriceTable,
    ) -> Self {
        let [source, destination] = sites;
        let (quote, list) = (prices.quote(source, destination), list.quote(source, destination));
        Self { sites, locality, quote, list }
    }
}

/// A charge of the sender (`end` 0) or the receiver (`end` 1).
pub(super) struct Charge<'a> {
    pub(super) block: &'a Block,
    pub(super) key: &'a TransferKey,
    pub(super) counter: Counter,
    pub(super) pair: &'a Pair<'a>,
    pub(super) end: usize,
}

impl<'a> Charge<'a> {
    /// Whether it is of what was sent.
    pub(super) const fn direction(&self) -> &'static str {
        if self.end == 0 { "sent" } else { "received" }
    }

    /// The site of the charged end, and the other one.
    pub(super) const fn sites(&self) -> [&'a Location; 2] {
        [self.pair.sites[self.end], self.pair.sites[1 - self.end]]
    }

    /// The workload of the charged end, and the other one.
    pub(super) fn workloads(&self) -> [&'a Workload; 2] {
        let of = |end: usize| &self.block.workloads[self.key.workloads[end] as usize];
        [of(self.end), of(1 - self.end)]
    }

    pub(super) fn service(&self) -> &'a str {
        &self.block.services[self.key.service as usize]
    }

    /// The cost at the prices in force, or nothing.
    pub(super) fn cost(&self) -> Option<Money> {
        self.of(&self.pair.quote)
    }

    /// The cost at list prices, or nothing.
    pub(super) fn list_cost(&self) -> Option<Money> {
        self.of(&self.pair.list)
    }

    fn of(&self, quote: &Quote<'_>) -> Option<Money> {
        let charge = quote.cost(self.counter.bytes)?;
        Some(if self.end == 0 { charge.sender } else { charge.receiver })
    }

    /// The unit that prices are for, if there is a price.
    pub(super) fn unit(&self) -> Option<Unit> {
        unit(&self.pair.quote)
    }

    /// The price of a unit, of this end.
    pub(super) fn unit_price(&self) -> Option<Money> {
        self.price_in(&self.pair.quote)
    }

    /// The list price of a unit of the list, of this end. Nothing if the list has other units than the price in force.
    pub(super) fn list_price(&self) -> Option<Money> {
        (unit(&self.pair.list) == self.unit()).then(|| self.price_in(&self.pair.list)).flatten()
    }

    fn price_in(&self, quote: &Quote<'_>) -> Option<Money> {
        let bytes = match unit(quote)? {
            Unit::Gigabyte => 1_000_000_000,
            Unit::Gibibyte => 1 << 30,
        };
        let charge = quote.cost(bytes)?;
        Some(if self.end == 0 { charge.sender } else { charge.receiver })
    }
}

fn unit(quote: &Quote<'_>) -> Option<Unit> {
    match quote.rule?.terms {
        RulePrice::Prices { unit, .. } => Some(unit),
        RulePrice::Unpriced(_) => None,
    }
}
