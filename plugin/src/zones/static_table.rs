//! The static table, zones.yaml: zones, prefixes and endpoints that the Kubernetes API does not have.
//!
//! Every error is one line that names the file, the line in it and the reason.

use super::{
    Class, Place, Placement, Provider, Table, Zone,
    invalid_table::{InvalidPrefix, InvalidTable},
};
use crate::yaml;
use ipnetwork::IpNetwork;
use meridian_abi::zone::PrefixKind;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

type Error = yaml::Error<InvalidTable>;
type Refusal = yaml::Refusal<InvalidTable>;

/// The zone name for addresses that belong to the cluster's owner and whose zone is unknown.
const UNKNOWN: &str = "unknown";

/// A static table that has been checked.
#[derive(Clone, Debug, Default)]
pub struct StaticTable {
    /// The prefixes with their zones.
    pub zones: Table,
    /// The endpoints by address.
    pub endpoints: Vec<EndpointEntry>,
    /// The providers of zones, by the zone's name.
    pub providers: BTreeMap<String, Provider>,
    /// Prefixes that are no node's.
    pub external: Vec<External>,
}

/// An external prefix of the static table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The name.
    pub name: String,
    /// The addresses.
    pub prefix: IpNetwork,
    /// The class.
    pub class: Class,
}

impl External {
    /// The text that a prefix of this name and class has for its origin.
    fn origin(name: &str, class: Class) -> String {
        format!("external {name} ({})", class.name())
    }

    /// The name and class in the origin of a prefix, whatever is before it.
    pub fn of_origin(origin: &str) -> Option<(&str, Class)> {
        let (_, name) = origin.split_once("external ")?;
        let (name, class) = name.strip_suffix(')')?.rsplit_once(" (")?;
        Some((name, Class::of_name(class)?))
    }
}

/// An endpoint of the static table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointEntry {
    /// The endpoint's address.
    pub ip: IpAddr,
    /// The endpoint's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's workload.
    pub workload: Option<WorkloadEntry>,
    /// The pod's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A workload of the static table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadEntry {
    /// Deployment, StatefulSet, DaemonSet …
    pub kind: String,
    /// Its name.
    pub name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(deserialize_with = "yaml::list")]
    zones: Vec<ZoneEntry>,
    #[serde(default, deserialize_with = "yaml::list")]
    endpoints: Vec<Spanned<EndpointEntry>>,
    #[serde(default, deserialize_with = "yaml::list")]
    external: Vec<ExternalEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneEntry {
    name: Spanned<String>,
    #[serde(default)]
    region: String,
    provider: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "yaml::list")]
    cidrs: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExternalEntry {
    name: Spanned<String>,
    cidr: Spanned<String>,
    /// Missing or `unknown` where the zone is unknown.
    zone: Option<Spanned<String>>,
    class: Spanned<Class>,
}

impl StaticTable {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file can't be read, is not YAML of this form, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(path, &yaml::read(path)?)
    }

    /// Checks the text of a file. Errors name `path`.
    ///
    /// # Errors
    /// The text is not YAML of this form, or contradicts itself.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        yaml::parse(text, "the key `zones`")
            .map_err(yaml::Refusal::widen)
            .and_then(|file| Checker::default().check(file))
            .map_err(|refusal| refusal.of_file(path))
    }
}

/// The entries of the file that have been checked so far.
#[derive(Default)]
struct Checker {
    zones: HashMap<String, (Arc<Zone>, u64)>,
    prefixes: HashMap<IpNetwork, (Place, u64)>,
    table: StaticTable,
}

impl Checker {
    fn check(mut self, file: File) -> Result<StaticTable, Refusal> {
        for entry in file.zones {
            let place = self.zone(entry.name, entry.region)?;
            if let Some(provider) = entry.provider {
                self.provider(&place, &provider)?;
            }
            let origin: Arc<str> = format!("zone {place}").into();
            for cidr in entry.cidrs {
                self.prefix(&cidr, &place, PrefixKind::Cluster, &origin)?;
            }
        }
        for entry in file.external {
            if entry.name.value.is_empty() {
                return Err(Refusal::new(entry.name.referenced.line(), InvalidTable::UnnamedExternal));
            }
            let place = match entry.zone.filter(|zone| zone.value != UNKNOWN) {
                None => Place::Unknown,
                Some(zone) => {
                    let known = self.zones.get(&zone.value).map(|(known, _)| Place::Zone(Arc::clone(known)));
                    known.ok_or_else(|| {
                        let (name, line) = (entry.name.value.clone(), zone.referenced.line());
                        Refusal::new(line, InvalidTable::UnlistedZone { name, zone: zone.value })
                    })?
                }
            };
            let class = entry.class.value;
            let origin: Arc<str> = External::origin(&entry.name.value, class).into();
            if class == Class::Internet {
                return Err(Refusal::new(entry.class.referenced.line(), InvalidTable::InternetPrefix));
            }
            let prefix = self.prefix(&entry.cidr, &place, PrefixKind::External, &origin)?;
            self.table.external.push(External { name: entry.name.value, prefix, class });
        }
        let mut addresses = HashMap::new();
        for Spanned { mut value, referenced, .. } in file.endpoints {
            value.ip = value.ip.to_canonical();
            if let Some(first) = addresses.insert(value.ip, referenced.line()) {
                let reason = InvalidTable::SameAddress { address: value.ip, first };
                return Err(Refusal::new(referenced.line(), reason));
            }
            self.table.endpoints.push(value);
        }
        Ok(self.table)
    }

    fn zone(&mut self, name: Spanned<String>, region: String) -> Result<Place, Refusal> {
        let line = name.referenced.line();
        let name = name.value;
        if name == UNKNOWN {
            return Ok(Place::Unknown);
        }
        if name.is_empty() || region.is_empty() {
            return Err(Refusal::new(line, InvalidTable::IncompleteZone));
        }
        if name == Place::Internet.name() {
            return Err(Refusal::new(line, InvalidTable::ReservedName { name }));
        }
        match self.zones.get(&name) {
            Some((zone, first)) if zone.region != region => {
                let (other, first) = (zone.region.clone(), *first);
                Err(Refusal::new(line, InvalidTable::TwoRegions { zone: name, region, other, first }))
            }
            Some((zone, _)) => Ok(Place::Zone(Arc::clone(zone))),
            None => {
                let zone = Arc::new(Zone { name: name.clone(), region });
                self.zones.insert(name, (Arc::clone(&zone), line));
                Ok(Place::Zone(zone))
            }
        }
    }

    /// Every zone of a name has one provider.
    fn provider(&mut self, place: &Place, name: &Spanned<String>) -> Result<(), Refusal> {
        let line = name.referenced.line();
        let provider: Provider =
            name.value.parse().map_err(|invalid| Refusal::new(line, InvalidTable::Provider(invalid)))?;
        match self.table.providers.insert(place.name().to_owned(), provider.clone()) {
            Some(other) if other != provider => {
                Err(Refusal::new(line, InvalidTable::TwoProviders { zone: place.clone(), provider, other }))
            }
            _ => Ok(()),
        }
    }

    fn prefix(
        &mut self,
        cidr: &Spanned<String>,
        place: &Place,
        kind: PrefixKind,
        origin: &Arc<str>,
    ) -> Result<IpNetwork, Refusal> {
        let line = cidr.referenced.line();
        let text = &cidr.value;
        let prefix = parse_prefix(text)
            .map_err(|reason| Refusal::new(line, InvalidTable::Prefix { text: text.clone(), reason }))?;
        if let Some((other, first)) = self.prefixes.get(&prefix)
            && other != place
        {
            let (place, other, first) = (place.clone(), other.clone(), *first);
            return Err(Refusal::new(line, InvalidTable::TwoZones { prefix, place, other, first }));
        }
        self.prefixes.insert(prefix, (place.clone(), line));
        let placement = Placement { place: place.clone(), kind, origin: Arc::clone(origin) };
        self.table.zones.insert(prefix, placement);
        Ok(prefix)
    }
}

/// A prefix with a length, and no bits set after it.
fn parse_prefix(text: &str) -> Result<IpNetwork, InvalidPrefix> {
    if !text.contains('/') {
        return Err(InvalidPrefix::NoLength);
    }
    let given = canonical(text.parse()?);
    let prefix = IpNetwork::new(given.network(), given.prefix())?;
    if prefix == given { Ok(prefix) } else { Err(InvalidPrefix::HostBits { prefix }) }
}

/// The IPv4 prefix that an IPv4-mapped IPv6 prefix stands for; other prefixes unchanged.
fn canonical(prefix: IpNetwork) -> IpNetwork {
    let mapped = prefix.prefix().checked_sub(96).filter(|_| prefix.is_ipv6());
    match (prefix.ip().to_canonical(), mapped) {
        (ip @ IpAddr::V4(_), Some(length)) => IpNetwork::new(ip, length).unwrap_or(prefix),
        _ => prefix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StaticTable, String> {
        StaticTable::parse(Path::new("zones.yaml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    const GOOD: &str = r#"
zones:
  - {name: eu-1a, region: eu-1, cidrs: [10.0.1.0/24, "fd00:1::/64"]}
  - {name: eu-1b, region: eu-1, cidrs: [10.0.2.0/24]}
endpoints:
  - {ip: 10.0.1.7, namespace: shop, pod: cart-0, workload: {kind: StatefulSet, name: cart}, labels: {app: cart}}
external:
  - {name: orders-db, cidr: 10.9.8.0/24, zone: eu-1b, class: database}
"#;

    #[test]
    fn a_good_table_is_read() {
        let table = parse(GOOD).unwrap();
        let place = |ip: &str| table.zones.lookup(ip.parse().unwrap()).unwrap().1.clone();
        assert_eq!(place("10.0.1.7").place.to_string(), "eu-1a");
        assert_eq!(place("fd00:1::9").place.to_string(), "eu-1a");
        assert_eq!(place("10.9.8.7").place.to_string(), "eu-1b");
        assert_eq!(
            (place("10.9.8.7").kind, &*place("10.9.8.7").origin),
            (PrefixKind::External, "external orders-db (database)")
        );
        let named = [
            "external a (b) (nat)",
            "static table, external orders-db (database)",
            "external x",
            "Node a",
            "external x (pod)",
        ];
        let expected = [Some(("a (b)", Class::Nat)), Some(("orders-db", Class::Database)), None, None, None];
        assert_eq!(named.map(External::of_origin), expected);
        assert_eq!(table.endpoints[0].workload.as_ref().unwrap().kind, "StatefulSet");
    }

    #[test]
    fn addresses_can_be_ours_without_a_zone() {
        let text = "zones:\n- {name: a, region: r, cidrs: [\"::ffff:10.0.0.0/112\"]}\n- {name: unknown, cidrs: [11.0.0.0/16]}\nexternal:\n- {name: peer, cidr: 12.0.0.0/8, class: vm}\n- {name: nat, cidr: 13.0.0.0/8, zone: unknown, class: nat}\n";
        let table = parse(text).unwrap();
        let place = |ip: &str| table.zones.lookup(ip.parse().unwrap()).unwrap().1.clone();
        assert_eq!((place("11.0.9.9").place, place("11.0.9.9").kind), (Place::Unknown, PrefixKind::Cluster));
        assert_eq!((place("12.0.9.9").place, place("12.0.9.9").kind), (Place::Unknown, PrefixKind::External));
        assert_eq!((place("13.0.9.9").place, place("13.0.9.9").kind), (Place::Unknown, PrefixKind::External));
        let named = parse("zones: [{name: unknown, region: eu-1, cidrs: [11.0.0.0/16]}]\n").unwrap();
        let lies = named.zones.lookup("11.0.200.5".parse().unwrap()).unwrap().1.clone();
        assert_eq!((lies.place, lies.kind), (Place::Unknown, PrefixKind::Cluster), "a region is no zone");
        refused(
            "zones: [{name: \"\", region: eu-1, cidrs: [11.0.0.0/16]}]\n",
            "zones.yaml:1: a zone needs a name and a region",
        );
        assert_eq!(place("10.0.9.9").place.to_string(), "a");
        assert_eq!(place("11.1.0.1").place, Place::Internet);
        refused("zones: [{name: internet, region: r}]\n", "zones.yaml:1: `internet` is reserved");
        refused("zones: [{name: a}]\n", "zones.yaml:1: a zone needs a name and a region");
        refused(
            "zones: [{name: a, region: r, cidrs: [11.0.0.0/16]}, {name: unknown, cidrs: [11.0.0.0/16]}]\n",
            "zones.yaml:1: prefix 11.0.0.0/16 is in zone unknown and in zone a",
        );
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_prefix_in_two_zones_is_refused() {
        refused(
            "zones:\n- {name: a, region: r, cidrs: [10.0.1.0/24]}\n- {name: b, region: r, cidrs: [10.0.1.0/24]}\n",
            "zones.yaml:3: prefix 10.0.1.0/24 is in zone b and in zone a (line 2)",
        );
        refused(
            "zones:\n- {name: a, region: r, cidrs: [10.0.1.0/24]}\n- {name: b, region: r}\nexternal:\n- {name: db, cidr: 10.0.1.0/24, zone: b, class: vm}\n",
            "zones.yaml:5: prefix 10.0.1.0/24 is in zone b and in zone a (line 2)",
        );
    }

    #[test]
    fn a_zone_in_two_regions_is_refused() {
        refused(
            "zones:\n- {name: a, region: r1}\n- {name: a, region: r2}\n",
            "zones.yaml:3: zone a is in region r2 and in region r1 (line 2)",
        );
    }

    #[test]
    fn a_bad_prefix_is_refused() {
        let with = |cidr: &str| format!("zones:\n- name: a\n  region: r\n  cidrs:\n  - 10.1.0.0/16\n  - {cidr}\n");
        refused(&with("10.0.1.0/33"), "zones.yaml:6: `10.0.1.0/33` is not a prefix");
        refused(
            &with("10.0.1.0"),
            "zones.yaml:6: `10.0.1.0` is not a prefix like 10.0.1.0/24 or fd00:1::/64: it has no length",
        );
        refused(
            &with("10.0.1.7/24"),
            "zones.yaml:6: `10.0.1.7/24` is not a prefix like 10.0.1.0/24 or fd00:1::/64: bits are set after the length; 10.0.1.0/24 is",
        );
        refused(&with("ten/8"), "zones.yaml:6: `ten/8` is not a prefix");
    }

    #[test]
    fn a_key_without_a_value_is_an_empty_list() {
        let table = parse("zones:\n- {name: a, region: r, cidrs: }\nexternal:\n#- {name: db}\nendpoints:\n").unwrap();
        assert!(table.external.is_empty() && table.endpoints.is_empty());
        refused("zones:\n- {name: a, region: r, cidrs: 10.0.0.0/8}\n", "zones.yaml:2: expected a list, such as");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        refused("zones:\n- {name: a, region: r}\nzoness: []\n", "zones.yaml:3: unknown field");
        refused("zones:\n- {name: a, region: r,\n   cidr: [10.0.0.0/8]}\n", "zones.yaml:3: unknown field");
    }

    #[test]
    fn an_unknown_zone_or_class_is_refused() {
        let with = |zone: &str, class: &str| {
            format!(
                "zones:\n- {{name: a, region: r}}\nexternal:\n- {{name: db, cidr: 10.0.0.0/8, zone: {zone}, class: {class}}}\n"
            )
        };
        refused(&with("b", "vm"), "zones.yaml:4: db is in zone b, which is not one of `zones`");
        refused(&with("a", "cloud"), "zones.yaml:4: unknown variant");
        assert!(parse(&with("a", "vm")).is_ok());
    }

    #[test]
    fn zones_have_providers_and_externals_a_class() {
        let text = "zones:\n- {name: a, region: r, provider: aws}\n- {name: b, region: r}\nexternal:\n- {name: db, cidr: 10.0.0.0/8, zone: b, class: database}\n";
        let table = parse(text).unwrap();
        assert_eq!(table.providers.get("a").map(Provider::name), Some("aws"));
        assert_eq!((table.providers.len(), table.external[0].class), (1, Class::Database));
        refused("zones:\n- {name: a, region: r, provider: Aws}\n", "zones.yaml:2: `Aws` is not a provider's name");
        refused(
            "zones:\n- {name: a, region: r, provider: aws}\n- {name: a, region: r, provider: gcp}\n",
            "zones.yaml:3: zone a is of provider gcp and of provider aws",
        );
        refused(
            "zones:\n- {name: a, region: r}\nexternal:\n- {name: x, cidr: 10.0.0.0/8, class: internet}\n",
            "zones.yaml:4: class internet is for addresses in no prefix",
        );
    }

    #[test]
    fn an_empty_file_is_refused() {
        for text in ["", "\n\n", "# nothing\n"] {
            refused(text, "zones.yaml:1: the file is empty: it needs the key `zones`");
        }
        refused("endpoints: []\n", "zones.yaml:1: missing field");
    }

    #[test]
    fn two_endpoints_with_one_address_are_refused() {
        refused(
            "zones:\n- {name: a, region: r}\nendpoints:\n- {ip: 10.0.0.1, namespace: n, pod: p}\n- {ip: 10.0.0.1, namespace: n, pod: q}\n",
            "zones.yaml:5: two endpoints have the address 10.0.0.1 (the other: line 4)",
        );
    }

    #[test]
    fn ten_megabytes_of_garbage_are_refused() {
        let mut state = 7u32;
        let mut noise = |printable: bool| -> Vec<u8> {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let byte = (state >> 24) as u8;
                if printable { b' ' + byte % 95 } else { byte }
            };
            (0..10_000_000).map(next).collect()
        };
        for text in [noise(false), noise(true), vec![b'['; 10_000_000], vec![b'a'; 10_000_000]] {
            let error = StaticTable::parse(Path::new("zones.yaml"), &text).unwrap_err().to_string();
            assert!(error.starts_with("zones.yaml:1: ") && error.len() < 400 && !error.contains('\n'), "{error}");
        }
    }
}
