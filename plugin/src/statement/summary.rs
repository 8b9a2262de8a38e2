//! Sums blocks up by group, and prices them.

use super::{
    coverage::Coverage,
    group::{self, BlockGroups, Dimension, Groups, Key},
    query::Query,
    rows::{Row, Statement, Sum, add},
};
use crate::{
    cost::{Money, PriceTable, Quote},
    history::{Block, Transfer},
    zones::Locality,
};
use ahash::AHashMap;
use meridian_abi::Counter;
use std::collections::{BTreeMap, BTreeSet};

/// Sums blocks up for a statement.
#[derive(Debug)]
pub struct Summary<'a> {
    query: Query,
    prices: &'a PriceTable,
    groups: Groups,
    cells: Vec<Cell>,
    coverage: Coverage,
    unpriced: BTreeMap<String, u64>,
}

/// The sum of a group, with its rules by their place in the price table.
#[derive(Clone, Debug, Default)]
struct Cell {
    sent: Counter,
    received: Counter,
    cost: Money,
    unpriced_bytes: u64,
    rules: BTreeSet<u32>,
}

/// Facts about a pair of sites of one block.
struct Pair<'a> {
    is_asked: bool,
    quote: Quote<'a>,
    rule: Option<u32>,
}

impl<'a> Summary<'a> {
    /// Sums up for this query, with these prices.
    pub fn new(query: Query, prices: &'a PriceTable) -> Self {
        let groups = Groups::new(query.by.clone(), query.charge);
        let (cells, coverage, unpriced) = (Vec::new(), Coverage::default(), BTreeMap::new());
        Self { query, prices, groups, cells, coverage, unpriced }
    }

    /// Adds a block.
    pub fn add(&mut self, block: &Block) {
        self.coverage.add(block);
        let pairs = self.pairs(block);
        let mut of_block = BlockGroups::new(block);
        if self.query.by == Dimension::Node {
            for row in &block.nodes {
                let (pair, group) = (&pairs[&row.sites], of_block.node(&mut self.groups, row.node));
                let part = if row.is_receiver { Part::Receiver } else { Part::Sender };
                self.add_part(group, part, pair, row.counter);
            }
            return;
        }
        for Transfer { key, counter } in &block.transfers {
            let pair = &pairs[&key.sites];
            if pair.is_asked {
                let [sender, receiver] = of_block.transfer(&mut self.groups, key);
                self.add_part(sender, Part::Sender, pair, *counter);
                self.add_part(receiver, Part::Receiver, pair, *counter);
            }
        }
    }

    /// The range that was asked for: what no block is of was not seen.
    pub const fn ask(&mut self, from: u64, to: u64) {
        self.coverage.ask(from, to);
    }

    fn pairs<'b>(&self, block: &'b Block) -> AHashMap<[u32; 2], Pair<'b>>
    where
        'a: 'b,
    {
        let sites = block.transfers.iter().map(|row| row.key.sites).chain(block.nodes.iter().map(|row| row.sites));
        let mut pairs = AHashMap::new();
        for sites in sites {
            pairs.entry(sites).or_insert_with(|| {
                let [source, destination] = sites.map(|site| &block.sites[site as usize]);
                let (rule, quote) = self.prices.numbered_quote(source, destination);
                let locality = Locality::between(&source.place, &destination.place);
                Pair { is_asked: self.query.localities.contains(&locality), quote, rule }
            });
        }
        pairs
    }

    /// Adds one end's part of what went between two sites.
    fn add_part(&mut self, group: u32, part: Part, pair: &Pair<'_>, counter: Counter) {
        if !pair.is_asked {
            return;
        }
        let group = group as usize;
        if group >= self.cells.len() {
            self.cells.resize(group + 1, Cell::default());
        }
        let cell = &mut self.cells[group];
        let charge = pair.quote.cost(counter.bytes);
        match part {
            Part::Sender => {
                add(&mut cell.sent, counter);
                if charge.is_none()
                    && let Some(reason) = pair.quote.unpriced()
                {
                    let bytes = self.unpriced.entry(reason).or_default();
                    *bytes = bytes.saturating_add(counter.bytes);
                }
                cell.unpriced_bytes =
                    cell.unpriced_bytes.saturating_add(if charge.is_none() { counter.bytes } else { 0 });
                cell.cost += charge.map_or(Money::ZERO, |charge| charge.sender);
            }
            Part::Receiver => {
                add(&mut cell.received, counter);
                cell.cost += charge.map_or(Money::ZERO, |charge| charge.receiver);
            }
        }
        cell.rules.extend(pair.rule);
    }

    /// The statement.
    pub fn finish(self) -> Statement {
        let Self { query, prices, groups, cells, coverage, unpriced } = self;
        let used: BTreeSet<u32> = cells.iter().flat_map(|cell| cell.rules.iter().copied()).collect();
        let rules = used.into_iter().filter_map(|number| prices.rule(number)).cloned().collect();
        let id = |number: &u32| prices.rule(*number).map(|rule| rule.id.clone());
        let row = |(key, cell): (Key, Cell)| {
            let Cell { sent, received, cost, unpriced_bytes, rules } = cell;
            let rules = rules.iter().filter_map(id).collect();
            Row { key, sum: Sum { counter: sent, received, cost, unpriced_bytes, rules } }
        };
        let mut rows: Vec<Row> = groups.into_keys().into_iter().zip(cells).map(row).collect();
        rows.sort_by(|a, b| {
            let order =
                |row: &Row| (row.sum.cost, row.sum.unpriced_bytes, row.sum.counter.bytes, row.sum.received.bytes);
            order(b).cmp(&order(a)).then_with(|| a.key.cmp(&b.key))
        });
        let mut total = Sum::default();
        rows.iter().for_each(|row| total.add(&row.sum));
        if let Some(top) = query.top.filter(|top| *top < rows.len()) {
            let mut others = Sum::default();
            let count = rows.len() - top;
            rows.drain(top..).for_each(|row| others.add(&row.sum));
            rows.push(Row { key: group::others(count), sum: others });
        }
        let (from, to) = coverage.range();
        Statement {
            query,
            from,
            to,
            coverage,
            rows,
            total,
            rules,
            unpriced,
            comparison: None,
            budgets: Vec::new(),
            approximate: None,
        }
    }
}

/// One end of a transfer.
#[derive(Clone, Copy, Debug)]
enum Part {
    Sender,
    Receiver,
}
