//! `meridian prices`: the price rules, and the rule that applies between two places.

use super::{Failure, named_file::NamedFile, print, usage};
use crate::{
    cost::{PriceTable, Quote, Rule, RulePrice, Unit},
    zones::{Class, Locality, Location, Place, Provider, StaticTable, Zone},
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::{fmt::Write, path::PathBuf, sync::Arc};

/// Prices of traffic between zones and regions.
#[derive(Debug, Subcommand)]
pub(super) enum Prices {
    /// Lists the price rules in order. The first rule that matches applies.
    List {
        #[command(flatten)]
        prices: PriceArgs,
        /// Provider whose rules to list, for example aws.
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
        /// Output format.
        #[arg(long, default_value = "table")]
        output: Output,
    },
    /// Shows the price of traffic from one place to another, and the rule with its day and source.
    Explain {
        /// The sender: ZONE, PROVIDER/REGION/ZONE, PROVIDER/REGION or `internet`, with `:CLASS` for an external
        /// prefix, for example us-east-1a or aws/us-east-1/us-east-1b:database.
        from: String,
        /// The receiver, in the same form.
        to: String,
        #[command(flatten)]
        prices: PriceArgs,
        /// File with the static table that names the zones. Without it, the form of a zone's name gives its provider.
        #[arg(long, env = "MERIDIAN_ZONES_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        zones_file: Option<PathBuf>,
        /// Output format.
        #[arg(long, default_value = "table")]
        output: Output,
    },
}

/// The prices to use.
#[derive(Debug, Default, Args)]
pub(super) struct PriceArgs {
    /// File with your own prices, which precede the list prices, and with discounts.
    #[arg(
        id = "prices",
        long = "prices",
        env = "MERIDIAN_PRICES",
        value_name = "FILE",
        value_hint = clap::ValueHint::FilePath
    )]
    prices: Option<NamedFile>,
}

impl PriceArgs {
    /// Whether a file is named.
    pub(super) const fn is_own(&self) -> bool {
        self.prices.is_some()
    }

    /// The file, if one is named.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.prices.as_ref().map(|NamedFile(path)| path.clone())
    }

    /// The list prices, below those of the file.
    pub(super) fn table(&self) -> Result<PriceTable, Failure> {
        let file = self.prices.as_ref().map(|NamedFile(path)| path);
        file.map_or_else(|| Ok(PriceTable::default()), |path| PriceTable::read(path)).map_err(usage)
    }
}

/// The output format.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

pub(super) fn run(command: &Prices) -> Result<(), Failure> {
    print(&match command {
        Prices::List { prices, provider, output } => list(&prices.table()?, provider.as_deref(), *output)?,
        Prices::Explain { from, to, prices, zones_file, output } => {
            let table = zones_file.as_deref().map(StaticTable::read).transpose().map_err(usage)?;
            let from = location(from, table.as_ref(), "")?;
            let to = location(to, table.as_ref(), " (another zone)")?;
            let prices = prices.table()?;
            let quote = prices.quote(&from, &to);
            match output {
                Output::Table => explanation(&from, &to, &quote),
                Output::Json => explained(&from, &to, &quote).to_string() + "\n",
            }
        }
    })
}

fn list(prices: &PriceTable, provider: Option<&str>, output: Output) -> Result<String, Failure> {
    let rules: Vec<_> =
        prices.rules().filter(|(rule, _)| provider.is_none_or(|name| provider_of(rule) == Some(name))).collect();
    if rules.is_empty() {
        let name = provider.unwrap_or_default();
        return Err(Failure::Usage(format!("--provider {name}: no rule has this provider: its traffic is unpriced")));
    }
    if matches!(output, Output::Json) {
        let rules: Vec<Value> = rules.iter().map(|(rule, own)| rule.json(*own)).collect();
        return Ok(json!({ "rules": rules }).to_string() + "\n");
    }
    let mut text = format!(
        "{:<26} {:<13} {:<22} {:>9} {:>9} {:<4} {:<10} FROM → TO\n",
        "RULE", "PROVIDER", "BETWEEN", "SENDER", "RECEIVER", "PER", "AS OF"
    );
    for (rule, own) in rules {
        let (sender, receiver, unit) = match &rule.terms {
            RulePrice::Prices { sender, receiver, unit } => (sender.to_string(), receiver.to_string(), unit.name()),
            RulePrice::Unpriced(_) => ("unpriced".to_owned(), "-".to_owned(), "-"),
        };
        let day = match (own, rule.as_of.as_str()) {
            (true, "") => "your own",
            (_, "") => "-",
            (_, day) => day,
        };
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{:<26} {:<13} {:<22} {sender:>9} {receiver:>9} {unit:<4} {day:<10} {}",
            rule.id,
            provider_of(rule).unwrap_or("any"),
            between(rule),
            ends(rule),
        );
    }
    Ok(text)
}

fn provider_of(rule: &Rule) -> Option<&str> {
    rule.scope.provider.as_ref().map(Provider::name)
}

fn between(rule: &Rule) -> String {
    let mut names: Vec<&str> = rule.scope.between.iter().map(|locality| locality.name()).collect();
    names.extend(rule.scope.class.map(Class::name));
    if names.is_empty() { "any".to_owned() } else { names.join(", ") }
}

/// The regions and zones of a rule, shortened.
fn ends(rule: &Rule) -> String {
    let side = |at: usize| {
        let names: Vec<&str> =
            rule.scope.regions[at].iter().chain(&rule.scope.zones[at]).map(|name| name.text()).collect();
        match names.as_slice() {
            [] => "any".to_owned(),
            [first, second, third, .., _] => format!("{first}, {second}, {third} and {} more", names.len() - 3),
            few => few.join(", "),
        }
    };
    let (from, to) = (side(0), side(1));
    if from == "any" && to == "any" { "any".to_owned() } else { format!("{from} → {to}") }
}

fn explanation(from: &Location, to: &Location, quote: &Quote<'_>) -> String {
    let locality = Locality::between(&from.place, &to.place);
    let mut text = format!("from      {from}\nto        {to}\nlocality  {locality}\n");
    // Writing to a string can't fail.
    if let (Some(charge), Some(Rule { terms: RulePrice::Prices { unit, .. }, .. })) =
        (quote.cost(bytes(quote)), quote.rule)
    {
        for (end, part) in [("sender", charge.sender), ("receiver", charge.receiver), ("both", charge.total())] {
            let _ = writeln!(text, "{end:<9} {} USD per {}", part.exact(), unit.name());
        }
    }
    if let Some(reason) = quote.unpriced() {
        let _ = writeln!(text, "unpriced  {reason}");
    }
    if let Some(rule) = quote.rule {
        let _ = writeln!(text, "rule      {}", rule.id);
        for (what, value) in [("as of", &rule.as_of), ("source", &rule.source)] {
            if !value.is_empty() {
                let _ = writeln!(text, "{what:<9} {value}");
            }
        }
    }
    text
}

/// The bytes of the unit of a quote.
fn bytes(quote: &Quote<'_>) -> u64 {
    match quote.rule.map(|rule| &rule.terms) {
        Some(RulePrice::Prices { unit: Unit::Gibibyte, .. }) => 1 << 30,
        _ => 1_000_000_000,
    }
}

fn explained(from: &Location, to: &Location, quote: &Quote<'_>) -> Value {
    let end = |end: &Location| {
        json!({
            "provider": end.provider.as_ref().map(Provider::name),
            "region": end.place.zone().map(|zone| &zone.region),
            "zone": end.place.name(),
            "class": end.class.map(Class::name),
        })
    };
    let charge = quote.cost(bytes(quote));
    json!({
        "from": end(from),
        "to": end(to),
        "locality": Locality::between(&from.place, &to.place).name(),
        "sender": charge.map(|charge| charge.sender.exact()),
        "receiver": charge.map(|charge| charge.receiver.exact()),
        "unpriced": quote.unpriced(),
        "rule": quote.rule.map(|rule| rule.json(false)),
    })
}

/// The place that a text names. `any` is added to the name of a region where it stands for any zone of it: two of those
/// are two zones.
fn location(text: &str, table: Option<&StaticTable>, any: &str) -> Result<Location, Failure> {
    let bad = |why: &str| {
        Failure::Usage(format!("{text}: {why}; ZONE, PROVIDER/REGION/ZONE, PROVIDER/REGION or internet is a place"))
    };
    let (name, class) = text.rsplit_once(':').map_or((text, None), |(name, class)| (name, Some(class)));
    let class = class
        .map(|class| Class::of_name(class).ok_or_else(|| bad("the class is none of database, loadbalancer, nat, vm")));
    let class = class.transpose()?;
    if name == Place::Internet.name() {
        return Ok(Location { provider: None, place: Place::Internet, class });
    }
    let parts: Vec<&str> = name.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(bad("a part of it is empty"));
    }
    let zone = |name: &str, region: &str| Place::Zone(Arc::new(Zone { name: name.into(), region: region.into() }));
    let provider = |name: &str| Provider::new(name).ok_or_else(|| bad("the provider is not a name like aws"));
    let (provider, place) = match (parts.as_slice(), table) {
        ([of, region, name], _) => (Some(provider(of)?), zone(name, region)),
        ([of, region], _) => (Some(provider(of)?), zone(&format!("{region}{any}"), region)),
        ([name], Some(table)) => {
            let known = table
                .zones
                .prefixes()
                .find_map(|(_, placement)| placement.place.zone().filter(|zone| zone.name == **name));
            let known = known.ok_or_else(|| bad("the zones file does not name this zone"))?;
            (table.providers.get(*name).cloned(), Place::Zone(Arc::new(known.clone())))
        }
        ([name], None) => {
            let (of, region) = guess(name).ok_or_else(|| bad("the provider can't be guessed from this name"))?;
            (Provider::new(of), zone(name, region))
        }
        _ => return Err(bad("it has too many parts")),
    };
    Ok(Location { provider, place, class })
}

/// The provider of a zone by the form of its name.
pub(super) fn provider_of_zone(zone: &str) -> Option<Provider> {
    guess(zone).and_then(|(provider, _)| Provider::new(provider))
}

/// The provider and the region by the form of a zone's name.
fn guess(zone: &str) -> Option<(&'static str, &str)> {
    let is_digit = |byte: u8| byte.is_ascii_digit();
    let (head, last) = zone.split_at_checked(zone.len().checked_sub(1)?)?;
    let last = *last.as_bytes().first()?;
    let ends_in_digit = head.bytes().last().is_some_and(is_digit);
    // us-east-1a, us-gov-west-1a
    if last.is_ascii_lowercase() && ends_in_digit && head.matches('-').count() >= 2 {
        return Some(("aws", head));
    }
    // us-central1-a
    if let Some(region) = head.strip_suffix('-')
        && last.is_ascii_lowercase()
        && region.contains('-')
        && region.bytes().last().is_some_and(is_digit)
    {
        return Some(("gcp", region));
    }
    // eastus-1, eastus2-1
    let region = head.strip_suffix('-').filter(|region| !region.contains('-') && region.len() > 4)?;
    is_digit(last).then_some(("azure", region))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_zone_shows_its_provider() {
        assert_eq!(guess("us-east-1a"), Some(("aws", "us-east-1")));
        assert_eq!(guess("us-gov-west-1b"), Some(("aws", "us-gov-west-1")));
        assert_eq!(guess("europe-west1-b"), Some(("gcp", "europe-west1")));
        assert_eq!(guess("westeurope-2"), Some(("azure", "westeurope")));
        for name in ["", "a", "zone-a", "eu-1a", "1", "-1", "é"] {
            assert_eq!(guess(name), None, "{name}");
        }
    }

    #[test]
    fn a_region_alone_is_another_zone_of_it() {
        let prices = PriceTable::default();
        let ends = ["aws/us-east-1", "us-east-1a"].map(|text| location(text, None, "").unwrap());
        assert_eq!(prices.quote(&ends[0], &ends[1]).rule.unwrap().id, "aws-zones");
        let ends = ["aws/us-east-1/us-east-1a:database", "us-east-1b"].map(|text| location(text, None, "").unwrap());
        assert_eq!(prices.quote(&ends[0], &ends[1]).cost(1_000_000_000).unwrap().sender.exact(), "0");
        for bad in ["", "a//b", "aws/r/z/more", "zone-a", "us-east-1a:db", "A/r/z"] {
            assert!(matches!(location(bad, None, ""), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
