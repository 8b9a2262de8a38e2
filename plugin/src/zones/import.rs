//! Static tables from the JSON that the clouds' own command lines print: subnets, which AWS has in one zone each, and
//! instances with their addresses.

mod aws;
mod gcp;

use aws::{Reservations, Subnets, region_of_aws};
use gcp::Machine;
use ipnetwork::IpNetwork;
use serde::de::DeserializeOwned;
use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write,
    net::IpAddr,
};

/// Prefixes that are imported.
const MAX_PREFIXES: usize = 1_000_000;

/// The command whose output is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudOutput {
    /// `aws ec2 describe-subnets --output json`.
    AwsSubnets,
    /// `aws ec2 describe-instances --output json`.
    AwsInstances,
    /// `gcloud compute instances list --format=json`.
    GcpInstances,
}

/// The kind of the imported prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportAs {
    /// Prefixes of zones: nodes with an agent, and all addresses that are the owner's.
    #[default]
    Zones,
    /// External prefixes of the class `vm`: machines without an agent.
    Machines,
}

/// Why an output is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidImport {
    /// It is not JSON of the form.
    #[error("line {line}: it is not the output of `{command}`: {message}")]
    Form {
        /// The line, from 1.
        line: usize,
        /// The command.
        command: &'static str,
        /// The parser's message.
        message: String,
    },
    /// It is packed.
    #[error("it is packed by gzip: unpack it first")]
    Packed,
    /// It has nothing to import.
    #[error("it has no address in a zone; it must be the output of `{0}`")]
    Nothing(&'static str),
    /// It is the first part of a longer output.
    #[error("it is incomplete, as it has a NextToken: leave out --max-items and --no-paginate")]
    Incomplete,
    /// A name is not that of a zone.
    #[error("{name}: `{zone}` is not a zone")]
    Zone {
        /// The subnet or instance.
        name: String,
        /// The text.
        zone: String,
    },
    /// A text is not a prefix or an address.
    #[error("{name}: `{text}` is not an address or prefix")]
    Prefix {
        /// The subnet or instance.
        name: String,
        /// The text.
        text: String,
    },
    /// One prefix is in two zones.
    #[error("{prefix} is in {zone} ({name}) and in {other} ({first}): import one network at a time")]
    TwoZones {
        /// The prefix.
        prefix: IpNetwork,
        /// The zone.
        zone: String,
        /// The subnet or instance in it.
        name: String,
        /// The zone of the first one.
        other: String,
        /// The first one.
        first: String,
    },
    /// There are too many prefixes.
    #[error("more than {0} prefixes")]
    TooMany(usize),
}

impl CloudOutput {
    /// The command.
    pub const fn command(self) -> &'static str {
        match self {
            Self::AwsSubnets => "aws ec2 describe-subnets --output json",
            Self::AwsInstances => "aws ec2 describe-instances --output json",
            Self::GcpInstances => "gcloud compute instances list --format=json",
        }
    }

    const fn provider(self) -> &'static str {
        match self {
            Self::AwsSubnets | Self::AwsInstances => "aws",
            Self::GcpInstances => "gcp",
        }
    }

    /// The static table of an output, as text.
    ///
    /// # Errors
    /// The text is not the output of the command, or contradicts itself.
    pub fn table(self, text: &[u8], kind: ImportAs) -> Result<String, InvalidImport> {
        let mut import = Import { source: self, prefixes: BTreeMap::new() };
        match self {
            Self::AwsSubnets => {
                for Subnets { subnets, next_token } in self.parse(text)? {
                    complete(next_token.as_ref())?;
                    subnets.iter().try_for_each(|subnet| import.add(subnet.prefixes()))?;
                }
            }
            Self::AwsInstances => {
                for Reservations { reservations, next_token } in self.parse(text)? {
                    complete(next_token.as_ref())?;
                    let mut instances = reservations.iter().flat_map(|reservation| &reservation.instances);
                    instances.try_for_each(|instance| import.add(instance.prefixes()))?;
                }
            }
            Self::GcpInstances => {
                let machines: Vec<Vec<Machine>> = self.parse(text)?;
                machines.iter().flatten().try_for_each(|machine| import.add(machine.prefixes()))?;
            }
        }
        import.table(kind)
    }

    /// The outputs in a text: one, or one for each region or project.
    fn parse<T: DeserializeOwned>(self, text: &[u8]) -> Result<Vec<T>, InvalidImport> {
        let text = utf_8(text)?;
        let refused = |error: &serde_json::Error| InvalidImport::Form {
            line: error.line().max(1),
            command: self.command(),
            message: short(&error.to_string()),
        };
        if text.trim_ascii().is_empty() {
            // The parser's own message for no value.
            return serde_json::from_slice(&text).map(|one| vec![one]).map_err(|error| refused(&error));
        }
        serde_json::Deserializer::from_slice(&text)
            .into_iter()
            .map(|one| one.map_err(|error| refused(&error)))
            .collect()
    }
}

/// The text in UTF-8. PowerShell writes what a program prints as UTF-16, or with a byte order mark.
fn utf_8(text: &[u8]) -> Result<Cow<'_, [u8]>, InvalidImport> {
    let utf_16 = |bytes: &[u8], to_unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| to_unit([pair[0], pair[1]]));
        let text: String = char::decode_utf16(units).map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Ok(Cow::Owned(text.into_bytes()))
    };
    match text {
        [0xef, 0xbb, 0xbf, text @ ..] => Ok(text.into()),
        [0xff, 0xfe, text @ ..] => utf_16(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => utf_16(text, u16::from_be_bytes),
        [0x1f, 0x8b, ..] => Err(InvalidImport::Packed),
        text => Ok(text.into()),
    }
}

fn complete(next_token: Option<&String>) -> Result<(), InvalidImport> {
    if next_token.is_some() { Err(InvalidImport::Incomplete) } else { Ok(()) }
}

/// A text from outside as part of an error: short, and on one line.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// The prefixes so far, each with its zone, region and the name of the subnet or instance.
struct Import {
    source: CloudOutput,
    prefixes: BTreeMap<IpNetwork, (String, String, String)>,
}

impl Import {
    /// Adds the prefixes of a subnet or instance: its name, its zone, their texts.
    fn add(&mut self, (name, zone, texts): (&str, &str, Vec<String>)) -> Result<(), InvalidImport> {
        let region = match self.source.provider() {
            "aws" => region_of_aws(zone),
            _ => zone.rsplit_once('-').map(|(region, _)| region).filter(|region| region.contains('-')),
        };
        let region = region.ok_or_else(|| InvalidImport::Zone { name: short(name), zone: short(zone) })?;
        for text in &texts {
            let prefix = prefix(text).ok_or_else(|| InvalidImport::Prefix { name: short(name), text: short(text) })?;
            let too_many = self.prefixes.len() >= MAX_PREFIXES;
            match self.prefixes.entry(prefix) {
                Entry::Occupied(known) if known.get().0 != zone => {
                    let (other, _, first) = known.get();
                    let (other, first) = (short(other), short(first));
                    return Err(InvalidImport::TwoZones { prefix, zone: short(zone), name: short(name), other, first });
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(_) if too_many => return Err(InvalidImport::TooMany(MAX_PREFIXES)),
                Entry::Vacant(place) => {
                    place.insert((zone.to_owned(), region.to_owned(), name.to_owned()));
                }
            }
        }
        Ok(())
    }

    fn table(&self, kind: ImportAs) -> Result<String, InvalidImport> {
        if self.prefixes.is_empty() {
            return Err(InvalidImport::Nothing(self.source.command()));
        }
        let mut zones: BTreeMap<(&str, &str), Vec<&IpNetwork>> = BTreeMap::new();
        for (prefix, (zone, region, _)) in &self.prefixes {
            zones.entry((zone, region)).or_default().push(prefix);
        }
        // A JSON text is a text of YAML, whatever is in it. Writing to a string can't fail.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let provider = self.source.provider();
        let mut text = format!("# From `{}`.\nzones:\n", self.source.command());
        for ((zone, region), prefixes) in zones {
            let _ =
                writeln!(text, "  - name: {}\n    region: {}\n    provider: {provider}", quoted(zone), quoted(region));
            if kind == ImportAs::Zones {
                text.push_str("    cidrs:\n");
                for prefix in prefixes {
                    let _ = writeln!(text, "      - \"{prefix}\"");
                }
            }
        }
        if kind == ImportAs::Machines {
            text.push_str("external:\n");
            for (prefix, (zone, _, name)) in &self.prefixes {
                let (name, zone) = (quoted(name), quoted(zone));
                let _ = writeln!(text, "  - {{name: {name}, cidr: \"{prefix}\", zone: {zone}, class: vm}}");
            }
        }
        Ok(text)
    }
}

/// A prefix, or an address as one; bits beyond the length are a mistake.
fn prefix(text: &str) -> Option<IpNetwork> {
    let given: IpNetwork = match text.parse::<IpAddr>() {
        Ok(address) => IpNetwork::from(address),
        Err(_) => text.parse().ok()?,
    };
    (given.ip() == given.network()).then_some(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::{Class, StaticTable};
    use std::path::Path;

    const SUBNETS: &str = r#"{"Subnets": [
        {"AvailabilityZone": "us-east-1a", "AvailabilityZoneId": "use1-az1", "CidrBlock": "10.0.0.0/20", "SubnetId": "subnet-1",
         "Ipv6CidrBlockAssociationSet": [
            {"Ipv6CidrBlock": "2600:1f18:1::/64", "Ipv6CidrBlockState": {"State": "associated"}},
            {"Ipv6CidrBlock": "2600:1f18:2::/64", "Ipv6CidrBlockState": {"State": "disassociated"}}]},
        {"AvailabilityZone": "us-west-2-lax-1a", "CidrBlock": "10.0.16.0/20", "SubnetId": "subnet-2"}]}"#;
    const INSTANCES: &str = r#"{"Reservations": [{"Instances": [
        {"InstanceId": "i-1", "Placement": {"AvailabilityZone": "us-gov-west-1b"}, "PrivateIpAddress": "10.0.0.9",
         "NetworkInterfaces": [{"PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.9"}, {"PrivateIpAddress": "10.0.0.10"}],
          "Ipv6Addresses": [{"Ipv6Address": "2600:1f18::9"}], "Ipv4Prefixes": [{"Ipv4Prefix": "10.0.0.64/28"}]}]},
        {"InstanceId": "i-2", "Placement": {"AvailabilityZone": "us-gov-west-1a"}, "State": {"Name": "terminated"}}]}]}"#;
    const MACHINES: &str = r#"[{"name": "gke-1", "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a",
        "networkInterfaces": [{"networkIP": "10.128.0.2", "aliasIpRanges": [{"ipCidrRange": "10.4.0.0/24"}]}]}]"#;

    fn table(source: CloudOutput, text: &str, kind: ImportAs) -> StaticTable {
        let text = source.table(text.as_bytes(), kind).unwrap();
        StaticTable::parse(Path::new("zones.yaml"), text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn zone(table: &StaticTable, address: &str) -> (String, String) {
        let place = table.zones.lookup(address.parse().unwrap()).unwrap().1.place.clone();
        place.zone().map_or_else(|| (place.to_string(), String::new()), |zone| (zone.name.clone(), zone.region.clone()))
    }

    fn of(zone: &str, region: &str) -> (String, String) {
        (zone.to_owned(), region.to_owned())
    }

    #[test]
    fn every_address_of_a_subnet_gets_its_zone_region_and_provider() {
        let table = table(CloudOutput::AwsSubnets, SUBNETS, ImportAs::Zones);
        assert_eq!(zone(&table, "10.0.15.255"), of("us-east-1a", "us-east-1"));
        assert_eq!(zone(&table, "2600:1f18:1::7"), of("us-east-1a", "us-east-1"));
        assert_ne!(zone(&table, "2600:1f18:2::7").0, "us-east-1a");
        assert_eq!(zone(&table, "10.0.16.1"), of("us-west-2-lax-1a", "us-west-2"));
        assert_eq!(table.providers["us-east-1a"].name(), "aws");
    }

    #[test]
    fn instances_have_their_addresses_and_prefixes() {
        let aws = table(CloudOutput::AwsInstances, INSTANCES, ImportAs::Zones);
        for address in ["10.0.0.9", "10.0.0.10", "2600:1f18::9", "10.0.0.79"] {
            assert_eq!(zone(&aws, address), of("us-gov-west-1b", "us-gov-west-1"), "{address}");
        }
        let gcp = table(CloudOutput::GcpInstances, MACHINES, ImportAs::Machines);
        assert_eq!(zone(&gcp, "10.4.0.200"), of("us-central1-a", "us-central1"));
        assert_eq!((gcp.external.len(), gcp.external[0].class, &*gcp.external[0].name), (2, Class::Vm, "gke-1"));
        assert_eq!(gcp.providers["us-central1-a"].name(), "gcp");
    }

    #[test]
    fn outputs_of_several_regions_and_of_powershell_are_read() {
        let other =
            SUBNETS.replace("us-east-1a", "us-east-2a").replace("10.0.0.0", "10.1.0.0").replace("1f18:1", "1f18:3");
        let both = table(CloudOutput::AwsSubnets, &format!("{SUBNETS}\n{other}\n"), ImportAs::Zones);
        assert_eq!(zone(&both, "10.0.0.1"), of("us-east-1a", "us-east-1"));
        assert_eq!(zone(&both, "10.1.0.1"), of("us-east-2a", "us-east-2"));
        assert_eq!(table(CloudOutput::AwsSubnets, &format!("\u{feff}{SUBNETS}"), ImportAs::Zones).providers.len(), 2);
        let expected = CloudOutput::AwsSubnets.table(SUBNETS.as_bytes(), ImportAs::Zones).unwrap();
        for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
            let text: Vec<u8> = format!("\u{feff}{SUBNETS}\r\n").encode_utf16().flat_map(to_bytes).collect();
            assert_eq!(CloudOutput::AwsSubnets.table(&text, ImportAs::Zones).unwrap(), expected);
        }
        // What follows an output is not passed over.
        let error = CloudOutput::AwsSubnets.table(format!("{SUBNETS}\n}}").as_bytes(), ImportAs::Zones).unwrap_err();
        assert!(matches!(error, InvalidImport::Form { .. }), "{error}");
    }

    #[test]
    fn names_that_are_no_names_stay_texts() {
        let text = MACHINES.replace("gke-1", r##"x\n\u001b- {name: y\u2028\u0085}: # ' \" \\"##);
        let table = table(CloudOutput::GcpInstances, &text, ImportAs::Machines);
        assert!(table.external[0].name.starts_with("x\n\u{1b}- {name: y"), "{:?}", table.external[0].name);
    }

    #[test]
    fn what_is_no_output_of_the_command_is_refused_in_one_line() {
        let refused = |source: CloudOutput, text: &str, part: &str| {
            let error = source.table(text.as_bytes(), ImportAs::Zones).unwrap_err().to_string();
            assert!(error.contains(part) && error.len() < 400 && !error.chars().any(char::is_control), "{error}");
        };
        let subnets = CloudOutput::AwsSubnets;
        refused(subnets, "", "line 1: it is not the output of `aws ec2 describe-subnets --output json`: EOF");
        refused(subnets, "{\n\"Subnets\": 7}", "line 2: it is not the output");
        refused(subnets, MACHINES, "it is not the output of `aws ec2 describe-subnets --output json`");
        refused(
            subnets,
            "SUBNETS\tus-east-1a",
            "line 1: it is not the output of `aws ec2 describe-subnets --output json`",
        );
        refused(subnets, "\u{1f}\u{8b}", "line 1: it is not the output");
        assert!(matches!(subnets.table(b"\x1f\x8b\x08", ImportAs::Zones), Err(InvalidImport::Packed)));
        refused(subnets, INSTANCES, "missing field `Subnets`");
        refused(CloudOutput::GcpInstances, SUBNETS, "it is not the output of `gcloud compute instances list");
        refused(subnets, "{\"Subnets\": []}", "it has no address in a zone");
        refused(
            subnets,
            &SUBNETS
                .replace("]}]}", "]}], \"NextToken\": \"x\"}")
                .replace("\"subnet-2\"}]}", "\"subnet-2\"}], \"NextToken\": \"x\"}"),
            "NextToken",
        );
        refused(subnets, &SUBNETS.replace("us-east-1a", "here\\u001b"), "subnet-1: `here` is not a zone");
        refused(
            subnets,
            &SUBNETS.replace("10.0.0.0/20", "10.0.0.1/20"),
            "subnet-1: `10.0.0.1/20` is not an address or prefix",
        );
        refused(
            subnets,
            &SUBNETS.replace("10.0.16.0/20", "10.0.0.0/20"),
            "10.0.0.0/20 is in us-west-2-lax-1a (subnet-2) and in us-east-1a (subnet-1)",
        );
        refused(subnets, &"[".repeat(100_000), "it is not the output");
    }
}
