//! Rules: which transfers have which price.

use super::money::{Discount, Money, Price, Unit};
use crate::zones::{Class, Locality, Location, Place, Provider};

/// Names that a rule is for: a text, or its beginning before `*`. `REGION` stands for the name of the zone's region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub(super) String);

impl Pattern {
    /// The text of the file.
    pub fn text(&self) -> &str {
        &self.0
    }

    fn fits(&self, name: &str, region: &str) -> bool {
        let rest = match self.0.strip_prefix("REGION") {
            Some(rest) => name.strip_prefix(region).filter(|_| !region.is_empty()).map(|name| (name, rest)),
            None => Some((name, self.0.as_str())),
        };
        rest.is_some_and(|(name, pattern)| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        })
    }
}

/// The transfers that a rule matches. Empty fields and `None` match all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The provider of both ends.
    pub provider: Option<Provider>,
    /// The localities.
    pub between: Vec<Locality>,
    /// Regions of the sender and of the receiver.
    pub regions: [Vec<Pattern>; 2],
    /// Zones of the sender and of the receiver.
    pub zones: [Vec<Pattern>; 2],
    /// The class of one of the ends.
    pub class: Option<Class>,
}

impl Scope {
    fn fits(&self, ends: [&Location; 2]) -> bool {
        let locality = Locality::between(&ends[0].place, &ends[1].place);
        let is_of = |provider: &Provider| {
            // External addresses have no provider.
            ends.iter().filter(|end| end.place != Place::Internet).all(|end| end.provider.as_ref() == Some(provider))
        };
        if !self.provider.as_ref().is_none_or(is_of) || !(self.between.is_empty() || self.between.contains(&locality)) {
            return false;
        }
        let has_class = |class| ends.iter().any(|end| end.class() == Some(class));
        let fits = |patterns: &[Pattern], name: &str, region: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(name, region))
        };
        self.class.is_none_or(has_class)
            && (0..2).all(|at| {
                let region = ends[at].region();
                fits(&self.regions[at], region, region) && fits(&self.zones[at], ends[at].place.name(), region)
            })
    }
}

/// The price of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulePrice {
    /// The prices of the two ends.
    Prices {
        /// The sender's price.
        sender: Price,
        /// The receiver's price.
        receiver: Price,
        /// The transfers that the rule matches.
        unit: Unit,
    },
    /// There is no price, because of this.
    Unpriced(String),
}

impl RulePrice {
    /// Adds the prices, or the reason for having none, to the JSON object of a rule.
    pub fn add_to(&self, rule: &mut serde_json::Value) {
        match self {
            Self::Prices { sender, receiver, unit } => {
                rule["sender"] = sender.to_string().into();
                rule["receiver"] = receiver.to_string().into();
                rule["unit"] = unit.name().into();
            }
            Self::Unpriced(reason) => rule["unpriced"] = reason.as_str().into(),
        }
    }
}

/// A rule of a price file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// The transfers that it is for.
    pub scope: Scope,
    /// The price.
    pub terms: RulePrice,
    /// The discount that has been taken off.
    pub discount: Discount,
    /// The day of the price, if it is known.
    pub as_of: String,
    /// Where the price is from.
    pub source: String,
}

impl Rule {
    pub(super) fn fits(&self, source: &Location, destination: &Location) -> bool {
        self.scope.fits([source, destination])
    }

    /// What these bytes cost. `None` where there is no price.
    fn cost(&self, source: &Location, destination: &Location, bytes: u64) -> Option<Charge> {
        let RulePrice::Prices { sender, receiver, unit } = &self.terms else { return None };
        // A rule for the class has the prices of both ends.
        let pays = |end: &Location| self.scope.class.is_some() || end.class().is_none_or(is_charged);
        let of = |end: &Location, price: &Price| if pays(end) { price.of(bytes, *unit) } else { Money::ZERO };
        Some(Charge { sender: of(source, sender), receiver: of(destination, receiver) })
    }
}

/// Whether the customer pays for what an end of this class sends and receives.
const fn is_charged(class: Class) -> bool {
    matches!(class, Class::Vm | Class::Loadbalancer | Class::Internet)
}

/// The cost of a transfer for its two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// The sender's part.
    pub sender: Money,
    /// The receiver's part.
    pub receiver: Money,
}

impl Charge {
    /// Both parts.
    pub fn total(self) -> Money {
        [self.sender, self.receiver].into_iter().sum()
    }
}

/// The rule for a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Quote<'a> {
    /// The rule; `None` where no rule fits.
    pub rule: Option<&'a Rule>,
    source: &'a Location,
    destination: &'a Location,
}

impl<'a> Quote<'a> {
    pub(super) const fn new(rule: Option<&'a Rule>, source: &'a Location, destination: &'a Location) -> Self {
        Self { rule, source, destination }
    }

    /// The cost of these bytes; `None` without a price.
    pub fn cost(&self, bytes: u64) -> Option<Charge> {
        self.rule?.cost(self.source, self.destination, bytes)
    }

    /// Why there is no price, if there is none.
    pub fn unpriced(&self) -> Option<String> {
        if let Some(rule) = self.rule {
            return match &rule.terms {
                RulePrice::Prices { .. } => None,
                RulePrice::Unpriced(reason) => Some(reason.clone()),
            };
        }
        let (source, destination) = (self.source, self.destination);
        Some(match (&source.place, &destination.place, &source.provider, &destination.provider) {
            (Place::Unknown, ..) | (_, Place::Unknown, ..) => "the zone of one end is unknown".to_owned(),
            (_, _, Some(one), Some(other)) if one != other => format!("no price between {one} and {other}"),
            (_, _, Some(provider), _) | (_, _, _, Some(provider)) if source.provider == destination.provider => {
                format!("no price of {provider} for this pair")
            }
            _ => "the provider of a zone is unknown".to_owned(),
        })
    }
}
