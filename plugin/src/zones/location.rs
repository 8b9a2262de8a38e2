//! An end of a transfer, as far as its price depends on it.

use super::{Class, Place, Provider};
use std::fmt;

/// One end of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The provider, if it is known.
    pub provider: Option<Provider>,
    /// The zone, the internet, or unknown.
    pub place: Place,
    /// The class of an external prefix.
    pub class: Option<Class>,
}

impl Location {
    /// The class; that of the internet is its own.
    pub const fn class(&self) -> Option<Class> {
        match self.place {
            Place::Internet => Some(Class::Internet),
            Place::Unknown | Place::Zone(_) => self.class,
        }
    }

    /// The region's name, or nothing.
    pub fn region(&self) -> &str {
        self.place.zone().map_or("", |zone| &zone.region)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = self.provider.as_ref().map_or("no provider", Provider::name);
        match (&self.place, self.class()) {
            (Place::Zone(zone), class) => {
                let class = class.map(|class| format!(", {}", class.name())).unwrap_or_default();
                write!(f, "{} (region {}, {provider}{class})", zone.name, zone.region)
            }
            (place, _) => write!(f, "{place}"),
        }
    }
}
