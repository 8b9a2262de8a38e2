//! Price files: the one that is built in, and those of users, which come first.

use super::{
    money::{Discount, Price, Unit},
    rule::{Pattern, Rule, Scope, Terms},
};
use crate::{
    yaml::{self, Refusal},
    zones::{Class, Locality, Provider},
};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, HashSet};

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

/// What is taken off list prices.
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
    #[serde(default)]
    rules: Vec<Spanned<Entry>>,
    discount: Option<Spanned<DiscountEntry>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DiscountEntry {
    All(String),
    ByProvider(BTreeMap<String, String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    provider: Option<String>,
    between: Option<OneOrMore<Between>>,
    from: Option<OneOrMore<String>>,
    to: Option<OneOrMore<String>>,
    from_zones: Option<OneOrMore<String>>,
    to_zones: Option<OneOrMore<String>>,
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

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Between {
    SameZone,
    Zones,
    Regions,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn list(of: Option<Self>) -> Vec<T> {
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
    /// The line, and what is wrong there.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let file: File = yaml::parse(text, "`rules` or `discount`")?;
        if file.rules.len() > MAX_RULES {
            return Err((1, format!("{} rules are too many (at most {MAX_RULES})", file.rules.len())));
        }
        let discounts = file.discount.map(discounts).transpose()?.unwrap_or_default();
        let (mut rules, mut ids) = (Vec::new(), HashSet::new());
        for Spanned { value, referenced, .. } in file.rules {
            let line = referenced.line();
            let rule = rule(value, &file.groups).map_err(|reason| (line, reason))?;
            if !ids.insert(rule.id.clone()) {
                return Err((line, format!("two rules have the id {}", rule.id)));
            }
            rules.push(rule);
        }
        Ok(Self { rules, discounts })
    }
}

fn discounts(entry: Spanned<DiscountEntry>) -> Result<Discounts, Refusal> {
    let line = entry.referenced.line();
    let parse = |text: &str| Discount::parse(text).map_err(|error| (line, error.to_string()));
    let mut discounts = Discounts::default();
    match entry.value {
        DiscountEntry::All(text) => discounts.all = parse(&text)?,
        DiscountEntry::ByProvider(by_provider) => {
            for (name, text) in by_provider {
                let provider = provider(&name).map_err(|reason| (line, reason))?;
                discounts.by_provider.insert(provider, parse(&text)?);
            }
        }
    }
    Ok(discounts)
}

fn provider(name: &str) -> Result<Provider, String> {
    let quoted: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
    Provider::new(name)
        .ok_or_else(|| format!("`{quoted}` is not a provider's name like aws: lower-case letters, digits, hyphens"))
}

fn rule(entry: Entry, groups: &BTreeMap<String, Vec<String>>) -> Result<Rule, String> {
    let id = entry.id;
    if id.is_empty() || id.len() > MAX_TEXT || id.chars().any(char::is_control) {
        return Err("a rule needs an id of one line".to_owned());
    }
    let of_rule = |reason: String| format!("rule {id}: {reason}");
    let unit = entry.unit.unwrap_or(Unit::Gigabyte);
    let terms = match (entry.unpriced, entry.sender, entry.receiver) {
        (Some(reason), None, None) => Terms::Unpriced(one_line(&reason)),
        (Some(_), ..) => return Err(of_rule("it has a price and is `unpriced`".into())),
        (None, None, None) => return Err(of_rule("it needs `sender` and `receiver`, or `unpriced`".into())),
        (None, sender, receiver) => {
            let price = |text: Option<String>| text.map_or(Ok(Price::default()), |text| Price::parse(&text));
            let sender = price(sender).map_err(|error| of_rule(error.to_string()))?;
            let receiver = price(receiver).map_err(|error| of_rule(error.to_string()))?;
            Terms::Prices { sender, receiver, unit }
        }
    };
    let names = |list| patterns(OneOrMore::list(list), groups).map_err(of_rule);
    let scope = Scope {
        provider: entry.provider.filter(|name| name != "*").map(|name| provider(&name)).transpose().map_err(of_rule)?,
        between: OneOrMore::list(entry.between).into_iter().map(Between::locality).collect(),
        regions: [names(entry.from)?, names(entry.to)?],
        zones: [names(entry.from_zones)?, names(entry.to_zones)?],
        class: entry.class,
    };
    let (as_of, source) = (one_line(&entry.as_of), one_line(&entry.source));
    Ok(Rule { id, scope, terms, discount: Discount::default(), as_of, source })
}

impl Between {
    const fn locality(self) -> Locality {
        match self {
            Self::SameZone => Locality::SameZone,
            Self::Zones => Locality::CrossZone,
            Self::Regions => Locality::CrossRegion,
        }
    }
}

fn patterns(names: Vec<String>, groups: &BTreeMap<String, Vec<String>>) -> Result<Vec<Pattern>, String> {
    let mut patterns = Vec::new();
    for name in names {
        match name.strip_prefix('@') {
            None => patterns.push(Pattern(name)),
            Some(group) => {
                let members = groups.get(group).ok_or_else(|| format!("there is no group {}", one_line(group)))?;
                patterns.extend(members.iter().cloned().map(Pattern));
            }
        }
        if patterns.len() > MAX_NAMES {
            return Err(format!("more than {MAX_NAMES} names in a list"));
        }
    }
    for Pattern(name) in &patterns {
        let stars = name.matches('*').count();
        if name.is_empty() || stars > 1 || (stars == 1 && !name.ends_with('*')) {
            return Err(format!("`{}` is not a name, or the beginning of names before `*`", one_line(name)));
        }
    }
    Ok(patterns)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}
