//! The output of Google's command line that is imported: the fields that have an address or a zone. Unknown fields are
//! skipped.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Machine {
    name: String,
    zone: String,
    #[serde(default)]
    network_interfaces: Vec<MachineInterface>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MachineInterface {
    #[serde(rename = "networkIP")]
    address: Option<String>,
    ipv6_address: Option<String>,
    #[serde(default)]
    alias_ip_ranges: Vec<AliasRange>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AliasRange {
    ip_cidr_range: String,
}

impl Machine {
    /// Its name, its zone, and its addresses and prefixes.
    pub(super) fn prefixes(&self) -> (&str, &str, Vec<String>) {
        let zone = self.zone.rsplit('/').next().unwrap_or_default();
        let texts = self.network_interfaces.iter().flat_map(|interface| {
            let addresses = interface.address.iter().chain(&interface.ipv6_address);
            addresses.chain(interface.alias_ip_ranges.iter().map(|alias| &alias.ip_cidr_range))
        });
        (&self.name, zone, texts.cloned().collect())
    }
}
