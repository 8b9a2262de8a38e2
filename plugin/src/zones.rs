//! Zones, the table that maps prefixes to zones, and the locality of a pair of zones. Pure: no kernel, no cluster.

mod class;
pub mod import;
mod invalid_table;
mod location;
mod matrix;
mod provider;
mod slots;
mod static_table;
mod table;

pub use class::Class;
pub use invalid_table::{InvalidPrefix, InvalidTable};
pub use location::Location;
pub use matrix::{Matrix, Pair};
pub use provider::{InvalidProvider, NodeSigns, Provider};
pub use slots::{Slots, TooManyZones};
pub use static_table::{EndpointEntry, External, StaticTable, WorkloadEntry};
pub use table::{Change, Placement, SharedTable, Table};

use std::{fmt, sync::Arc};

/// A zone of a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone {
    /// The zone's name, as the node label `topology.kubernetes.io/zone` gives it.
    pub name: String,
    /// Its region's name.
    pub region: String,
}

/// The location of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A private address in no prefix, or a node without a zone.
    Unknown,
    /// A public address in no prefix.
    Internet,
    /// In a zone.
    Zone(Arc<Zone>),
}

impl Place {
    /// The zone, unless the place is unknown or the internet.
    pub fn zone(&self) -> Option<&Zone> {
        match self {
            Self::Zone(zone) => Some(zone),
            Self::Unknown | Self::Internet => None,
        }
    }

    /// The name in labels, metrics and reports.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown => "unknown",
            Self::Internet => "internet",
            Self::Zone(zone) => &zone.name,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The relation between the places of the two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Locality {
    /// The same zone.
    SameZone,
    /// Two zones of the same region.
    CrossZone,
    /// Two regions, both known.
    CrossRegion,
    /// One end is a public address that no prefix contains.
    Internet,
    /// The place of one end is unknown. Never counted as cross-zone.
    Unknown,
}

impl Locality {
    /// All localities, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::SameZone, Self::CrossZone, Self::CrossRegion, Self::Internet, Self::Unknown];

    /// The locality of two ends. Unknown never equals anything, not even itself.
    pub fn between(source: &Place, destination: &Place) -> Self {
        match (source, destination) {
            (Place::Unknown, _) | (_, Place::Unknown) => Self::Unknown,
            (Place::Internet, _) | (_, Place::Internet) => Self::Internet,
            (Place::Zone(a), Place::Zone(b)) if a.name == b.name => Self::SameZone,
            // An unknown region does not count as another region.
            (Place::Zone(a), Place::Zone(b)) if a.region == b.region || a.region.is_empty() || b.region.is_empty() => {
                Self::CrossZone
            }
            (Place::Zone(_), Place::Zone(_)) => Self::CrossRegion,
        }
    }

    /// The name in labels, metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SameZone => "same-zone",
            Self::CrossZone => "cross-zone",
            Self::CrossRegion => "cross-region",
            Self::Internet => "internet",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, region: &str) -> Place {
        Place::Zone(Arc::new(Zone { name: name.into(), region: region.into() }))
    }

    #[test]
    fn unknown_is_never_compared_as_if_it_were_a_zone() {
        let (a, b, c) = (zone("eu-1a", "eu-1"), zone("eu-1b", "eu-1"), zone("us-1a", "us-1"));
        let cases = [
            (&a, &a, Locality::SameZone),
            (&a, &b, Locality::CrossZone),
            (&b, &c, Locality::CrossRegion),
            (&a, &Place::Internet, Locality::Internet),
            (&a, &Place::Unknown, Locality::Unknown),
            (&Place::Unknown, &Place::Unknown, Locality::Unknown),
            (&Place::Internet, &Place::Unknown, Locality::Unknown),
            (&Place::Internet, &Place::Internet, Locality::Internet),
            (&a, &zone("eu-1b", ""), Locality::CrossZone),
            (&zone("eu-1a", ""), &zone("us-1a", ""), Locality::CrossZone),
            (&zone("eu-1a", ""), &a, Locality::SameZone),
        ];
        for (source, destination, expected) in cases {
            assert_eq!(Locality::between(source, destination), expected, "{source} -> {destination}");
            assert_eq!(Locality::between(destination, source), expected, "{destination} -> {source}");
        }
    }
}
