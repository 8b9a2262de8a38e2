//! Charges against a report of the same blocks.

use super::*;
use crate::{
    history::{Builder, Ends, Server, Span, TransferService, Workload},
    statement::{Dimension, Query, Summary},
    zones::{Class, Location, Place, Provider, Zone},
};
use meridian_abi::Counter;
use std::{collections::BTreeMap, path::Path, sync::Arc};

fn location(provider: &str, zone: &str, region: &str) -> Location {
    let place = Place::Zone(Arc::new(Zone { name: zone.into(), region: region.into() }));
    Location { provider: Provider::new(provider), place, class: None }
}

/// Transfers between zones of AWS, of Google, of Azure, of nobody, from a database and to an unknown place.
fn block() -> Block {
    let mut builder = Builder::new(Span::hour_of(1_764_000_000), 100);
    let [aws_a, aws_b] = ["us-east-1a", "us-east-1b"].map(|zone| location("aws", zone, "us-east-1"));
    let [gcp_a, gcp_b] = ["us-central1-a", "us-central1-b"].map(|zone| location("gcp", zone, "us-central1"));
    let [azure_a, azure_b] = ["westeurope-1", "westeurope-2"].map(|zone| location("azure", zone, "westeurope"));
    let [own_a, own_b] = ["dc-a", "dc-b"].map(|zone| location("ours", zone, "dc"));
    let database = Location { class: Some(Class::Database), ..aws_b.clone() };
    let unknown = Location { provider: None, place: Place::Unknown, class: None };
    let sites = [
        ([&aws_a, &aws_b], 1_000_000_007),
        ([&aws_b, &aws_a], 3),
        ([&gcp_a, &gcp_b], (1 << 30) + 1),
        ([&azure_a, &azure_b], 11),
        ([&own_a, &own_b], 13),
        ([&database, &aws_a], 500_000_001),
        ([&aws_a, &unknown], 17),
        ([&aws_a, &aws_a], 1_000),
    ];
    let labels = BTreeMap::from([("team".to_owned(), "a \"b\", c".to_owned())]);
    let web = Workload { namespace: "shop".into(), kind: "Deployment".into(), name: "web".into(), labels };
    let other = Workload { name: "=cmd".into(), kind: "Node".into(), ..Workload::default() };
    for (sites, bytes) in sites {
        let serving = TransferService { service: "shop/cart", port: 80, protocol: 6, server: Server::Destination };
        builder.add(Ends { workloads: [&web, &other], sites }, serving, Counter { bytes, packets: 2 });
    }
    builder.add_recorded(3600);
    builder.block()
}

/// The values of a line, which may be quoted.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            letter => field.push(letter),
        }
    }
    fields.push(field);
    fields
}

/// A decimal number in units of 10⁻³⁶.
fn decimal(text: &str) -> u128 {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    whole.parse::<u128>().unwrap() * 10_u128.pow(36) + format!("{digits:0<36}").parse::<u128>().unwrap()
}

#[test]
fn charges_have_the_bytes_and_the_money_of_the_report() {
    let own = "discount: {aws: \"12.5%\"}\nrules: [{id: ours, provider: ours, sender: \"0.002\", unit: GiB}]\n";
    for prices in [PriceTable::default(), PriceTable::parse(Path::new("p"), own.as_bytes()).unwrap()] {
        let localities = Query::LOCALITIES.to_vec();
        let mut text = Charges::header();
        Charges::new(&prices, localities.clone()).write(&block(), &mut text);
        let mut summary = Summary::new(Query { by: Dimension::Workload, localities, ..Query::default() }, &prices);
        summary.add(&block());
        let report = summary.finish();
        let mut lines = text.lines().map(fields);
        let names = lines.next().unwrap();
        assert_eq!(names, COLUMNS);
        let rows: Vec<BTreeMap<String, String>> = lines.map(|line| names.iter().cloned().zip(line).collect()).collect();
        assert_eq!(rows.len(), 14);
        let of = |direction: &str, column: &str| -> u64 {
            let rows = rows.iter().filter(|row| row["x_Direction"] == direction);
            rows.map(|row| row[column].parse::<u64>().unwrap()).sum()
        };
        assert_eq!(of("sent", "ConsumedQuantity"), report.total.counter.bytes);
        assert_eq!(of("received", "ConsumedQuantity"), report.total.received.bytes);
        assert_eq!(of("sent", "x_Packets"), report.total.counter.packets);
        let sum = |column: &str| -> u128 {
            rows.iter().filter(|row| !row[column].is_empty()).map(|row| decimal(&row[column])).sum()
        };
        assert_eq!(sum("BilledCost"), decimal(&report.total.cost.exact()));
        assert_eq!((sum("EffectiveCost"), sum("ContractedCost")), (sum("BilledCost"), sum("BilledCost")));
        let unpriced: u64 = rows
            .iter()
            .filter(|row| row["x_Direction"] == "sent" && row["BilledCost"].is_empty())
            .map(|row| row["ConsumedQuantity"].parse::<u64>().unwrap())
            .sum();
        assert_eq!(unpriced, report.total.unpriced_bytes);
        for row in &rows {
            let is_unpriced = row["BilledCost"].is_empty();
            assert_eq!(
                (row["PricingQuantity"].is_empty(), !row["x_UnpricedReason"].is_empty()),
                (is_unpriced, is_unpriced)
            );
            if !is_unpriced {
                // A price times a quantity is the cost. Both have at most 40 digits behind the point.
                let (price, quantity) = (&row["ContractedUnitPrice"], &row["PricingQuantity"]);
                let product = price.parse::<f64>().unwrap() * quantity.parse::<f64>().unwrap();
                assert!((product - row["BilledCost"].parse::<f64>().unwrap()).abs() < 1e-12, "{row:?}");
            }
        }
    }
}

#[test]
fn a_charge_is_of_one_end_and_names_its_price_its_zone_and_its_peer() {
    let prices = PriceTable::parse(Path::new("p"), b"discount: {aws: \"50%\"}").unwrap();
    let mut text = String::new();
    Charges::new(&prices, vec![Locality::CrossZone]).write(&block(), &mut text);
    let rows: Vec<BTreeMap<&str, String>> =
        text.lines().map(|line| COLUMNS.into_iter().zip(fields(line)).collect()).collect();
    let row = |zone: &str, direction: &str| {
        let found = rows.iter().find(|row| row["AvailabilityZone"] == zone && row["x_Direction"] == direction);
        found.unwrap_or_else(|| panic!("{zone} {direction}"))
    };
    let sent = row("us-east-1a", "sent");
    for (column, value) in [
        ("BilledCost", "0.005000000035"),
        ("ListCost", "0.01000000007"),
        ("ContractedUnitPrice", "0.005"),
        ("ListUnitPrice", "0.01"),
        ("PricingQuantity", "1.000000007"),
        ("PricingUnit", "GB"),
        ("ConsumedQuantity", "1000000007"),
        ("ConsumedUnit", "B"),
        ("BillingPeriodStart", "2025-11-01T00:00:00Z"),
        ("ChargePeriodStart", "2025-11-24T16:00:00Z"),
        ("ChargePeriodEnd", "2025-11-24T17:00:00Z"),
        ("ServiceProviderName", "AWS"),
        ("RegionId", "us-east-1"),
        ("ResourceId", "shop/Deployment/web"),
        ("SkuId", "aws-zones"),
        ("Tags", "{\"team\":\"a \\\"b\\\", c\"}"),
        ("x_PeerAvailabilityZone", "us-east-1b"),
        ("x_PeerResourceId", "Node/=cmd"),
        ("x_Service", "shop/cart"),
    ] {
        assert_eq!(sent[column], value, "{column}");
    }
    assert_eq!(
        (row("us-central1-b", "received")["BilledCost"].as_str(), row("westeurope-1", "sent")["BilledCost"].as_str()),
        ("0", "0")
    );
    let own = row("dc-a", "sent");
    assert_eq!((own["BilledCost"].as_str(), own["x_UnpricedReason"].as_str()), ("", "no price of ours for this pair"));
}
