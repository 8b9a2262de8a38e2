//! The outputs of AWS's command line that are imported: the fields that have an address or a zone. Unknown fields are
//! skipped.

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Subnets {
    #[serde(rename = "Subnets")]
    pub(super) subnets: Vec<Subnet>,
    #[serde(rename = "NextToken")]
    pub(super) next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Subnet {
    availability_zone: String,
    subnet_id: String,
    cidr_block: Option<String>,
    #[serde(default)]
    ipv6_cidr_block_association_set: Vec<Ipv6Block>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6Block {
    ipv6_cidr_block: String,
    ipv6_cidr_block_state: Option<Ipv6BlockState>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ipv6BlockState {
    state: String,
}

#[derive(Deserialize)]
pub(super) struct Reservations {
    #[serde(rename = "Reservations")]
    pub(super) reservations: Vec<Reservation>,
    #[serde(rename = "NextToken")]
    pub(super) next_token: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Reservation {
    #[serde(rename = "Instances")]
    pub(super) instances: Vec<Instance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instance {
    instance_id: String,
    placement: Placement,
    private_ip_address: Option<String>,
    #[serde(default)]
    network_interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Placement {
    availability_zone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Interface {
    private_ip_addresses: Vec<PrivateAddress>,
    ipv6_addresses: Vec<Ipv6Address>,
    ipv4_prefixes: Vec<Ipv4Prefix>,
    ipv6_prefixes: Vec<Ipv6Prefix>,
}

#[derive(Deserialize)]
struct PrivateAddress {
    #[serde(rename = "PrivateIpAddress")]
    address: String,
}

#[derive(Deserialize)]
struct Ipv6Address {
    #[serde(rename = "Ipv6Address")]
    address: String,
}

#[derive(Deserialize)]
struct Ipv4Prefix {
    #[serde(rename = "Ipv4Prefix")]
    prefix: String,
}

#[derive(Deserialize)]
struct Ipv6Prefix {
    #[serde(rename = "Ipv6Prefix")]
    prefix: String,
}

impl Subnet {
    /// Its name, its zone and its prefixes.
    pub(super) fn prefixes(&self) -> (&str, &str, Vec<String>) {
        let of_ipv6 = self.ipv6_cidr_block_association_set.iter();
        let associated = of_ipv6
            .filter(|block| block.ipv6_cidr_block_state.as_ref().is_none_or(|state| state.state == "associated"));
        let prefixes = self.cidr_block.iter().chain(associated.map(|block| &block.ipv6_cidr_block));
        // A subnet with IPv6 only can have an empty text.
        let prefixes = prefixes.filter(|prefix| !prefix.is_empty());
        (&self.subnet_id, &self.availability_zone, prefixes.cloned().collect())
    }
}

impl Instance {
    /// Its name, its zone, and its addresses and prefixes.
    pub(super) fn prefixes(&self) -> (&str, &str, Vec<String>) {
        let of_interface = |interface: &'_ Interface| {
            let addresses = interface.private_ip_addresses.iter().map(|of| of.address.clone());
            let ipv6 = interface.ipv6_addresses.iter().map(|of| of.address.clone());
            let prefixes = interface.ipv4_prefixes.iter().map(|of| of.prefix.clone());
            let all = addresses.chain(ipv6).chain(prefixes);
            all.chain(interface.ipv6_prefixes.iter().map(|of| of.prefix.clone())).collect::<Vec<_>>()
        };
        let texts: Vec<String> = self
            .private_ip_address
            .iter()
            .cloned()
            .chain(self.network_interfaces.iter().flat_map(of_interface))
            .collect();
        (&self.instance_id, &self.placement.availability_zone, texts)
    }
}

/// The region of a zone like us-east-1a, or of a Local Zone like us-west-2-lax-1a: up to the first number.
pub(super) fn region_of_aws(zone: &str) -> Option<&str> {
    let mut end = 0;
    for part in zone.split('-') {
        end += part.len() + usize::from(end > 0);
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            let region = &zone[..end - (part.len() - digits)];
            return (region.matches('-').count() >= 2 && zone.len() > region.len()).then_some(region);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_aws_end_with_their_number() {
        let regions = ["us-east-1a", "us-gov-west-1b", "us-west-2-lax-1a", "ap-southeast-10c"].map(region_of_aws);
        assert_eq!(regions, [Some("us-east-1"), Some("us-gov-west-1"), Some("us-west-2"), Some("ap-southeast-10")]);
        for zone in ["", "a", "us-east", "us-east-1", "zone-1", "-1a", "use1-az1", "é-é-1é"] {
            let found = region_of_aws(zone);
            assert!(found.is_none() || zone == "é-é-1é", "{zone}: {found:?}");
        }
    }
}
