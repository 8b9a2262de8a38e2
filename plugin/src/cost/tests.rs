//! Which rule holds for which pair, and hand calculations for each provider.

use super::*;
use crate::zones::{Class, Location, Place, Provider, Zone};
use std::sync::Arc;

/// An end like `aws us-east-1 us-east-1a`.
fn end(text: &str) -> Location {
    let mut words = text.split(' ');
    let provider = words.next().and_then(Provider::new).filter(|provider| provider.name() != "none");
    let (region, zone) = (words.next().unwrap(), words.next().unwrap());
    let class = words.next().map(|class| match class {
        "database" => Class::Database,
        "nat" => Class::Nat,
        "vm" => Class::Vm,
        _ => Class::Loadbalancer,
    });
    let place = match zone {
        "internet" => Place::Internet,
        "unknown" => Place::Unknown,
        _ => Place::Zone(Arc::new(Zone { name: zone.into(), region: region.into() })),
    };
    Location { provider, place, class }
}

fn parse(text: &str) -> Result<PriceTable, String> {
    PriceTable::parse(Path::new("prices.yaml"), text.as_bytes()).map_err(|error| error.to_string())
}

/// The rule and the parts of the two ends.
fn cost(table: &PriceTable, from: &str, to: &str, bytes: u64) -> (String, Option<[String; 2]>) {
    let (from, to) = (end(from), end(to));
    let quote = table.quote(&from, &to);
    let charge = quote.cost(bytes).map(|charge| [charge.sender.exact(), charge.receiver.exact()]);
    assert_eq!(charge.is_none(), quote.unpriced().is_some());
    (quote.rule.map_or_else(|| quote.unpriced().unwrap(), |rule| rule.id.clone()), charge)
}

#[track_caller]
fn costs(from: &str, to: &str, bytes: u64, rule: &str, parts: [&str; 2]) {
    let expected = (rule.to_owned(), Some(parts.map(str::to_owned)));
    assert_eq!(cost(&PriceTable::default(), from, to, bytes), expected);
}

#[track_caller]
fn unpriced(from: &str, to: &str, why: &str) {
    assert_eq!(cost(&PriceTable::default(), from, to, 1), (why.to_owned(), None));
}

#[test]
fn between_zones_of_aws_both_ends_pay() {
    costs("aws us-east-1 us-east-1a", "aws us-east-1 us-east-1b", 1_500_000_000_000, "aws-zones", ["15", "15"]);
    costs(
        "aws us-gov-west-1 us-gov-west-1a",
        "aws us-gov-west-1 us-gov-west-1b",
        1_000,
        "aws-zones",
        ["0.00000001"; 2],
    );
    costs("aws us-east-1 us-east-1a", "aws us-east-1 us-east-1a", 9, "aws-same-zone", ["0"; 2]);
    unpriced("aws cn-north-1 cn-north-1a", "aws cn-north-1 cn-north-1b", "aws-china");
    unpriced("aws us-west-2 us-west-2-lax-1a", "aws us-west-2 us-west-2b", "aws-local-zone");
    unpriced("aws us-west-2 us-west-2b", "aws us-west-2 us-west-2-lax-1a", "aws-to-local-zone");
    costs("aws us-west-2 us-west-2-lax-1a", "aws us-west-2 us-west-2-lax-1a", 9, "aws-same-zone", ["0"; 2]);
}

#[test]
fn between_regions_of_aws_the_sender_pays_by_its_region() {
    let gigabyte = 1_000_000_000;
    costs("aws us-east-1 us-east-1a", "aws us-east-2 us-east-2a", gigabyte, "aws-us-east-1-2", ["0.01", "0"]);
    costs("aws us-east-1 us-east-1a", "aws us-west-2 us-west-2a", gigabyte, "aws-regions-0.02", ["0.02", "0"]);
    costs("aws sa-east-1 sa-east-1a", "aws us-east-1 us-east-1a", gigabyte, "aws-regions-0.138", ["0.138", "0"]);
    costs("aws us-east-1 us-east-1a", "aws sa-east-1 sa-east-1a", gigabyte, "aws-regions-0.02", ["0.02", "0"]);
    unpriced("aws ap-east-2 ap-east-2a", "aws us-east-1 us-east-1a", "no price of aws for this pair");
    unpriced("aws us-east-1 us-east-1a", "aws cn-north-1 cn-north-1a", "aws-to-china");
}

#[test]
fn google_charges_the_sender_for_two_to_the_thirty_bytes() {
    costs("gcp us-central1 us-central1-a", "gcp us-central1 us-central1-b", 3 << 30, "gcp-zones", ["0.03", "0"]);
    costs(
        "gcp us-central1 us-central1-a",
        "gcp europe-west1 europe-west1-b",
        1 << 30,
        "gcp-north-america-europe",
        ["0.05", "0"],
    );
    costs(
        "gcp asia-southeast2 asia-southeast2-a",
        "gcp asia-east1 asia-east1-a",
        1 << 30,
        "gcp-indonesia",
        ["0.1", "0"],
    );
    unpriced("gcp me-west1 me-west1-a", "gcp europe-west1 europe-west1-b", "no price of gcp for this pair");
}

#[test]
fn other_providers_have_their_own_rules() {
    costs("azure eastus eastus-1", "azure eastus eastus-2", 1 << 40, "azure-zones", ["0"; 2]);
    costs(
        "azure westeurope westeurope-1",
        "azure northeurope northeurope-1",
        1_000_000_000,
        "azure-europe",
        ["0.02", "0"],
    );
    unpriced("azure westeurope westeurope-1", "azure eastus eastus-1", "no price of azure for this pair");
    costs("oci eu-frankfurt-1 AD-1", "oci eu-frankfurt-1 AD-2", 1 << 40, "oci-same-region", ["0"; 2]);
    costs("alibaba cn-beijing a", "alibaba cn-shanghai b", 1_000_000_000, "alibaba-mainland", ["0.072", "0"]);
    costs("alibaba cn-beijing a", "alibaba eu-central-1 b", 1_000_000_000, "alibaba-mainland-out", ["0.8", "0"]);
    costs("alibaba eu-central-1 a", "alibaba cn-beijing b", 1_000_000_000, "alibaba-mainland-in", ["0.8", "0"]);
    unpriced("alibaba cn-hongkong a", "alibaba cn-beijing b", "alibaba-hong-kong");
    costs("hetzner fsn1 fsn1-dc8", "hetzner nbg1 nbg1-dc3", 1, "hetzner-eu-central", ["0"; 2]);
    unpriced("kind r a", "kind r b", "no price of kind for this pair");
    unpriced("none r a", "none r b", "the provider of a zone is unknown");
    unpriced("aws us-east-1 us-east-1a", "gcp us-central1 us-central1-a", "no price between aws and gcp");
    unpriced("aws us-east-1 us-east-1a", "none r unknown", "the zone of one end is unknown");
}

#[test]
fn a_database_pays_nothing_for_its_own_end() {
    let (pod, database) = ("aws us-east-1 us-east-1a", "aws us-east-1 us-east-1b database");
    costs(pod, database, 1_000_000_000, "aws-zones", ["0.01", "0"]);
    costs(database, pod, 1_000_000_000, "aws-zones", ["0", "0.01"]);
    costs(pod, "aws us-east-1 us-east-1b vm", 1_000_000_000, "aws-zones", ["0.01"; 2]);
    costs(pod, "aws us-east-1 us-east-1b nat", 1_000_000_000, "aws-zones", ["0.01", "0"]);
    unpriced(pod, "aws us-east-1 us-east-1b loadbalancer", "loadbalancer");
    unpriced(pod, "none r internet", "internet");
}

#[test]
fn a_file_comes_before_the_list() {
    let table = parse(
        r#"
rules:
  - {id: our-link, from_zones: dc-a, to_zones: [dc-b, dc-c], sender: "0.002", receiver: "0", unit: GiB, as_of: 2026-11-01, source: our own}
  - {id: balancers, provider: aws, class: loadbalancer, between: zones, sender: "0.01", receiver: "0.01"}
  - {id: egress, class: internet, sender: "0.09", receiver: "0"}
  - {id: link-to-aws, from_zones: "dc-*", to: us-east-1, sender: "0.02", receiver: "0"}
"#,
    )
    .unwrap();
    assert_eq!(
        cost(&table, "none dc dc-a", "none dc dc-c", 1 << 30),
        ("our-link".into(), Some(["0.002".into(), "0".into()]))
    );
    assert_eq!(cost(&table, "none dc dc-c", "none dc dc-a", 1).1, None, "a rule has a direction");
    assert_eq!(
        cost(&table, "aws us-east-1 us-east-1a", "aws us-east-1 us-east-1b loadbalancer", 1_000_000_000),
        ("balancers".into(), Some(["0.01".into(), "0.01".into()]))
    );
    assert_eq!(
        cost(&table, "aws us-east-1 us-east-1a", "none r internet", 1_000_000_000).1,
        Some(["0.09".into(), "0".into()])
    );
    assert_eq!(cost(&table, "none dc dc-a", "aws us-east-1 us-east-1a", 1_000_000_000).0, "link-to-aws");
    assert_eq!(
        cost(&table, "aws us-east-1 us-east-1a", "aws us-east-1 us-east-1b", 1).0,
        "aws-zones",
        "the rest is the list's"
    );
    assert_eq!(table.rules().filter(|(_, own)| *own).count(), 4);
}

#[test]
fn a_discount_applies_to_list_prices_alone() {
    let own = "rules: [{id: own, from_zones: x, sender: \"0.01\"}]\n";
    let table = parse(&format!("discount: \"25%\"\n{own}")).unwrap();
    assert_eq!(cost(&table, "aws r a", "aws r b", 1_000_000_000).1, Some(["0.0075".into(), "0.0075".into()]));
    assert_eq!(cost(&table, "aws r x", "aws r b", 1_000_000_000).1, Some(["0.01".into(), "0".into()]));
    let table = parse("discount: {aws: 10.25%}\n").unwrap();
    assert_eq!(cost(&table, "aws r a", "aws r b", 1_000_000_000).1, Some(["0.008975".into(), "0.008975".into()]));
    assert_eq!(cost(&table, "gcp r a", "gcp r b", 1 << 30).1, Some(["0.01".into(), "0".into()]));
}

#[test]
fn the_list_has_the_day_and_the_source_of_every_price() {
    let table = PriceTable::default();
    assert!(table.rules().count() > 50);
    for (rule, _) in table.rules() {
        if let RulePrice::Prices { .. } = rule.terms {
            assert!(rule.as_of.len() == 10 && rule.as_of.starts_with("202") && !rule.source.is_empty(), "{}", rule.id);
        }
    }
}

#[test]
fn a_bad_price_file_is_refused_with_its_line() {
    let refused = |text: &str, expected: &str| {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains('\n') && error.len() < 500, "{error}");
    };
    refused("", "prices.yaml:1: the file is empty: it needs `rules` or `discount`");
    refused("rules:\n- {id: a, sender: \"0,01\"}\n", "prices.yaml:2: rule a: `0,01` is not a price like");
    refused("rules:\n- {id: a, sender: \"1\"}\n- {id: a, sender: \"1\"}\n", "prices.yaml:3: two rules have the id a");
    refused("rules:\n- {id: a}\n", "prices.yaml:2: rule a: it needs `sender` and `receiver`, or `unpriced`");
    refused(
        "rules:\n- {id: a, sender: \"1\", unpriced: no}\n",
        "prices.yaml:2: rule a: it has a price and is `unpriced`",
    );
    refused("rules:\n- {id: a, from: \"@b\", sender: \"1\"}\n", "prices.yaml:2: rule a: there is no group b");
    refused("rules:\n- {id: a, from: \"a*b\", sender: \"1\"}\n", "prices.yaml:2: rule a: `a*b` is not a name");
    refused(
        "rules:\n- {id: a, provider: A W S, sender: \"1\"}\n",
        "prices.yaml:2: rule a: `A W S` is not a provider's name",
    );
    refused("rules:\n- {id: a, sendr: \"1\"}\n", "prices.yaml:2: unknown field");
    refused("rules:\n- {id: a, sender: \"1\", unit: TB}\n", "prices.yaml:2: unknown variant");
    refused("discount: \"110%\"\n", "prices.yaml:1: `110%` is not a discount like");
    refused("discount: {AWS: \"10%\"}\n", "prices.yaml:1: `AWS` is not a provider's name");
}
