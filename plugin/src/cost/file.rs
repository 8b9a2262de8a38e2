//! Price files: the one that is built in, and those of users, which come first.

use super::{
    invalid::{InvalidPrices, InvalidRule},
    money::{Discount, Price, Unit},
    rule::{Pattern, Rule, RulePrice, Scope},
};
use crate::{
    yaml,
    zones::{Class, InvalidProvider, Locality, Provider},
};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, HashSet};

type Refusal = yaml::Refusal<InvalidPrices>;

/// Rules of a file.
const MAX_RULES: usize = 10_000;
/// Names that one list of a rule leads to.
const MAX_NAMES: usize = 1000;
/// Characters of an id, a reason or a source.
const MAX_TEXT: usize = 300;

/// The rules and discounts of a file.
#[derive(Debug, Default)]
pub(super) struct PriceFile {
    pub(super) rules: Vec<Rule>,
    pub(super) discounts: Discounts,
}

/// The discount on list prices.
#[derive(Debug, Default)]
pub(super) struct Discounts {
    all: Discount,
    by_provider: BTreeMap<Provider, Discount>,
}

impl Discounts {
    pub(super) fn of(&self, provider: Option<&Provider>) -> Discount {
        provider.and_then(|provider| self.by_provider.get(provider)).copied().unwrap_or(self.all)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
    #[serde(default, deserialize_with = "yaml::list")]
    rules: Vec<Spanned<Entry>>,
    discount: Option<Spanned<DiscountEntry>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a discount is like 12.5%, or a map of providers to discounts")]
enum DiscountEntry {
    All(String),
    ByProvider(BTreeMap<String, String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    provider: Option<String>,
    between: Option<OneOrMore>,
    from: Option<OneOrMore>,
    to: Option<OneOrMore>,
    from_zones: Option<OneOrMore>,
    to_zones: Option<OneOrMore>,
    class: Option<Class>,
    sender: Option<String>,
    receiver: Option<String>,
    unit: Option<Unit>,
    unpriced: Option<String>,
    #[serde(default)]
    as_of: String,
    #[serde(default)]
    source: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a name or a list of names")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn list(of: Option<Self>) -> Vec<String> {
        match of {
            None => Vec::new(),
            Some(Self::One(one)) => vec![one],
            Some(Self::More(more)) => more,
        }
    }
}

impl PriceFile {
    /// The rules of a text.
    ///
    /// # Errors
    /// The line, and the reason for which it is refused.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let file: File = yaml::parse(text, "`rules` or `discount`").map_err(yaml::Refusal::widen)?;
        if file.rules.len() > MAX_RULES {
            return Err(Refusal::new(1, InvalidPrices::TooManyRules { count: file.rules.len(), limit: MAX_RULES }));
        }
        let discounts = file.discount.map(discounts).transpose()?.unwrap_or_default();
        let (mut rules, mut ids) = (Vec::new(), HashSet::new());
        for Spanned { value, referenced, .. } in file.rules {
            let line = referenced.line();
            let rule = rule(value, &file.groups).map_err(|reason| Refusal::new(line, reason))?;
            if !ids.insert(rule.id.clone()) {
                return Err(Refusal::new(line, InvalidPrices::SameId { id: rule.id }));
            }
            rules.push(rule);
        }
        Ok(Self { rules, discounts })
    }
}

fn discounts(entry: Spanned<DiscountEntry>) -> Result<Discounts, Refusal> {
    let line = entry.referenced.line();
    let parse = |text: &str| Discount::parse(text).map_err(|reason| Refusal::new(line, reason));
    let mut discounts = Discounts::default();
    match entry.value {
        DiscountEntry::All(text) => discounts.all = parse(&text)?,
        DiscountEntry::ByProvider(by_provider) => {
            for (name, text) in by_provider {
                let provider = name.parse().map_err(|reason: InvalidProvider| Refusal::new(line, reason))?;
                discounts.by_provider.insert(provider, parse(&text)?);
            }
        }
    }
    Ok(discounts)
}

fn rule(mut entry: Entry, groups: &BTreeMap<String, Vec<String>>) -> Result<Rule, InvalidPrices> {
    let id = std::mem::take(&mut entry.id);
    if id.is_empty() || id.len() > MAX_TEXT || id.chars().any(char::is_control) {
        return Err(InvalidPrices::NoId);
    }
    let (as_of, source) = (one_line(&entry.as_of), one_line(&entry.source));
    match scope_and_terms(entry, groups) {
        Ok((scope, terms)) => Ok(Rule { id, scope, terms, discount: Discount::default(), as_of, source }),
        Err(reason) => Err(InvalidPrices::Rule { id, reason }),
    }
}

fn scope_and_terms(entry: Entry, groups: &BTreeMap<String, Vec<String>>) -> Result<(Scope, RulePrice), InvalidRule> {
    let unit = entry.unit.unwrap_or(Unit::Gigabyte);
    let terms = match (entry.unpriced, entry.sender, entry.receiver) {
        (Some(reason), None, None) => RulePrice::Unpriced(one_line(&reason)),
        (Some(_), ..) => return Err(InvalidRule::PricedAndUnpriced),
        (None, None, None) => return Err(InvalidRule::NoTerms),
        (None, sender, receiver) => {
            let price = |text: Option<String>| text.map_or(Ok(Price::default()), |text| Price::parse(&text));
            RulePrice::Prices { sender: price(sender)?, receiver: price(receiver)?, unit }
        }
    };
    let names = |list| patterns(OneOrMore::list(list), groups);
    let scope = Scope {
        provider: entry.provider.filter(|name| name != "*").map(|name| name.parse()).transpose()?,
        between: OneOrMore::list(entry.between).iter().map(|name| locality(name)).collect::<Result<_, _>>()?,
        regions: [names(entry.from)?, names(entry.to)?],
        zones: [names(entry.from_zones)?, names(entry.to_zones)?],
        class: entry.class,
    };
    Ok((scope, terms))
}

/// The transfers that a name in `between` stands for.
fn locality(name: &str) -> Result<Locality, InvalidRule> {
    match name {
        "same-zone" => Ok(Locality::SameZone),
        "zones" => Ok(Locality::CrossZone),
        "regions" => Ok(Locality::CrossRegion),
        other => Err(InvalidRule::Between { text: one_line(other) }),
    }
}

fn patterns(names: Vec<String>, groups: &BTreeMap<String, Vec<String>>) -> Result<Vec<Pattern>, InvalidRule> {
    let mut patterns = Vec::new();
    for name in names {
        match name.strip_prefix('@') {
            None => patterns.push(Pattern(name)),
            Some(group) => {
                let members = groups.get(group).ok_or_else(|| InvalidRule::NoGroup { name: one_line(group) })?;
                patterns.extend(members.iter().cloned().map(Pattern));
            }
        }
        if patterns.len() > MAX_NAMES {
            return Err(InvalidRule::TooManyNames { limit: MAX_NAMES });
        }
    }
    for Pattern(name) in &patterns {
        let stars = name.matches('*').count();
        if name.is_empty() || stars > 1 || (stars == 1 && !name.ends_with('*')) {
            return Err(InvalidRule::Name { text: one_line(name) });
        }
    }
    Ok(patterns)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}
