//! Prices of traffic between zones, and the cost of bytes: rules by provider, region, zone and class, with the day and
//! the source of each. Pure.
//!
//! Money is exact: the cost of any bytes is a whole number of [`Money`]'s unit, and only displayed numbers are rounded.
//! Bytes without a price are unpriced; their cost is never counted as zero.

mod file;
mod invalid;
mod json;
mod money;
mod rule;

pub use invalid::{InvalidPrices, InvalidRule};
pub use money::{AmountError, Discount, DiscountError, Money, Price, PriceError, Unit};
pub use rule::{Charge, Pattern, Quote, Rule, RulePrice, Scope};

use crate::{yaml, zones::Location};
use file::PriceFile;
use std::path::Path;

type Error = yaml::Error<InvalidPrices>;

/// The list prices.
const LIST: &str = include_str!("cost/prices.yaml");

/// Rules in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceTable {
    rules: Vec<Rule>,
    /// How many of them are the user's.
    own: usize,
}

impl Default for PriceTable {
    /// The list prices.
    fn default() -> Self {
        Self::with(PriceFile::default())
    }
}

impl PriceTable {
    /// The list prices, below those of a file.
    ///
    /// # Errors
    /// The file can't be read, or is not a price file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(path, &yaml::read(path)?)
    }

    /// The list prices, below those of a text; `path` is what errors name.
    ///
    /// # Errors
    /// The text is not a price file.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        PriceFile::parse(text).map(Self::with).map_err(|refusal| refusal.of_file(path))
    }

    /// The same with the rules of a text between the user's and the list; `path` is what errors name.
    ///
    /// # Errors
    /// The text is not a price file.
    pub fn with_more(mut self, path: &Path, text: &[u8]) -> Result<Self, Error> {
        let more = PriceFile::parse(text).map_err(|refusal| refusal.of_file(path))?.rules;
        self.rules.splice(self.own..self.own, more);
        Ok(self)
    }

    fn with(file: PriceFile) -> Self {
        let mut list = PriceFile::parse(LIST.as_bytes()).expect("the list prices are checked by a test").rules;
        for rule in &mut list {
            rule.discount = file.discounts.of(rule.scope.provider.as_ref());
            if let RulePrice::Prices { sender, receiver, .. } = &mut rule.terms {
                (*sender, *receiver) = (sender.less(rule.discount), receiver.less(rule.discount));
            }
        }
        let (own, mut rules) = (file.rules.len(), file.rules);
        rules.append(&mut list);
        Self { rules, own }
    }

    /// The rule for traffic from one end to the other.
    pub fn quote<'a>(&'a self, source: &'a Location, destination: &'a Location) -> Quote<'a> {
        self.numbered_quote(source, destination).1
    }

    /// The same, with the place of the rule in the table.
    pub fn numbered_quote<'a>(&'a self, source: &'a Location, destination: &'a Location) -> (Option<u32>, Quote<'a>) {
        let found = self.rules.iter().position(|rule| rule.fits(source, destination));
        let quote = Quote::new(found.map(|at| &self.rules[at]), source, destination);
        (found.map(|at| at as u32), quote)
    }

    /// The rule at a place of the table.
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(number as usize)
    }

    /// The rules in the order in which they are tried, and whether each is the user's.
    pub fn rules(&self) -> impl Iterator<Item = (&Rule, bool)> {
        self.rules.iter().enumerate().map(|(at, rule)| (rule, at < self.own))
    }
}

#[cfg(test)]
mod tests;
