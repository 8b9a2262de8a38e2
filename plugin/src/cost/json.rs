//! A price rule as JSON.

use super::{Pattern, Rule};
use crate::zones::{Class, Provider};
use serde_json::{Value, json};

impl Rule {
    /// The rule as JSON; `own` is whether it is the user's.
    pub fn json(&self, own: bool) -> Value {
        let names = |patterns: &[Pattern]| patterns.iter().map(|name| name.text().to_owned()).collect::<Vec<_>>();
        let scope = &self.scope;
        let mut value = json!({
            "id": self.id,
            "provider": scope.provider.as_ref().map(Provider::name),
            "between": scope.between.iter().map(|locality| locality.name()).collect::<Vec<_>>(),
            "class": scope.class.map(Class::name),
            "from": names(&scope.regions[0]),
            "to": names(&scope.regions[1]),
            "from_zones": names(&scope.zones[0]),
            "to_zones": names(&scope.zones[1]),
            "as_of": self.as_of,
            "source": self.source,
            "own": own,
        });
        self.terms.add_to(&mut value);
        value
    }
}
