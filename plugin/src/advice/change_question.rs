//! The texts of a what-if: `shop/cart=PreferSameZone`, and endpoints by zone.

use super::whatif::{Change, Preferred};
use std::collections::BTreeMap;

/// The most endpoints of a zone that can be asked for.
const MAX_ENDPOINTS: u32 = 100_000;
/// The most zones.
const MAX_ZONES: usize = 64;

/// A change that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum BadChange {
    /// No service and value.
    #[error("`{0}` is not NAMESPACE/NAME=PreferSameZone, =PreferClose or =none")]
    Service(String),
    /// No zone and number.
    #[error("endpoints: `{0}` is not ZONE=NUMBER, with at most {MAX_ENDPOINTS} endpoints and {MAX_ZONES} zones")]
    Endpoints(String),
}

impl Change {
    /// The change of these texts; `endpoints` has zones and numbers with commas between them.
    ///
    /// # Errors
    /// A text that makes no sense.
    pub fn parse(service: &str, endpoints: &str) -> Result<Self, BadChange> {
        let bad = || BadChange::Service(quoted(service));
        let (name, value) = service.split_once('=').ok_or_else(bad)?;
        if !name.contains('/') || name.len() > 512 {
            return Err(bad());
        }
        let preference = match value {
            "PreferSameZone" => Some(Preferred::SameZone),
            "PreferClose" => Some(Preferred::Close),
            "none" => None,
            _ => return Err(bad()),
        };
        let mut counts = BTreeMap::new();
        for text in endpoints.split(',').filter(|text| !text.is_empty()) {
            let bad = || BadChange::Endpoints(quoted(text));
            let (zone, count) = text.split_once('=').ok_or_else(bad)?;
            let count = count.parse().ok().filter(|count| *count <= MAX_ENDPOINTS).ok_or_else(bad)?;
            if zone.is_empty() || zone.len() > 253 || counts.len() >= MAX_ZONES {
                return Err(bad());
            }
            counts.insert(zone.to_owned(), count);
        }
        Ok(Self { service: name.to_owned(), preference, endpoints: counts })
    }
}

/// The beginning of a text, for an error.
fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
