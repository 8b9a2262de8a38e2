//! The columns, by their names in FOCUS 1.3, and our own after them (`x_`). Null is an empty field.

use super::charge::Charge;
use crate::{
    cost::{Money, Unit},
    history::Workload,
    zones::{Location, Provider},
};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The names of the columns.
pub const COLUMNS: [&str; 49] = [
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "HostProviderName",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_Direction",
    "x_Locality",
    "x_Packets",
    "x_PeerAvailabilityZone",
    "x_PeerResourceId",
    "x_Service",
    "x_UnpricedReason",
];

type Field<'a> = Cow<'a, str>;

/// Adds the line of a charge.
pub(super) fn write(charge: &Charge<'_>, text: &mut String) {
    for (at, value) in fields(charge).iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        add_field(value, text);
    }
    text.push('\n');
}

/// The values in the order of [`COLUMNS`].
fn fields<'a>(charge: &Charge<'a>) -> [Field<'a>; COLUMNS.len()] {
    const NULL: Field<'_> = Cow::Borrowed("");
    let ([site, peer_site], [workload, peer]) = (charge.sites(), charge.workloads());
    let span = charge.block.span;
    let (month, next_month) = month(span.start);
    let cost = money(charge.cost());
    let provider = Field::from(site.provider.as_ref().map_or("", provider_name));
    let region = Field::from(site.region());
    let (rule, price_id) = charge.pair.quote.rule.map_or((NULL, NULL), |rule| {
        let day = if rule.as_of.is_empty() { String::new() } else { format!("@{}", rule.as_of) };
        (Field::from(rule.id.clone()), Field::from(format!("{}{day}", rule.id)))
    });
    let unit = charge.unit();
    [
        zone(site),
        cost.clone(),
        NULL,
        NULL,
        "USD".into(),
        next_month,
        month,
        "Usage".into(),
        NULL,
        description(charge).into(),
        "Usage-Based".into(),
        time(span.end()),
        time(span.start),
        charge.counter.bytes.to_string().into(),
        "B".into(),
        cost.clone(),
        money(charge.unit_price()),
        cost,
        provider.clone(),
        provider.clone(),
        money(charge.list_cost()),
        money(charge.list_price()),
        if unit.is_some() { "Standard".into() } else { NULL },
        unit.map_or(NULL, |unit| quantity(charge.counter.bytes, unit).into()),
        unit.map_or(NULL, |unit| unit.name().into()),
        provider.clone(),
        provider.clone(),
        region.clone(),
        region,
        resource(workload),
        workload.name.as_str().into(),
        workload.kind.as_str().into(),
        "Networking".into(),
        "Data Transfer".into(),
        provider,
        "Network Connectivity".into(),
        rule,
        format!("Data Transfer, {}, {}", charge.pair.locality.name(), charge.direction()).into(),
        price_id,
        workload.namespace.as_str().into(),
        workload.namespace.as_str().into(),
        tags(workload).into(),
        charge.direction().into(),
        charge.pair.locality.name().into(),
        charge.counter.packets.to_string().into(),
        zone(peer_site),
        resource(peer),
        charge.service().into(),
        charge.pair.quote.unpriced().unwrap_or_default().into(),
    ]
}

/// The zone's name; null for the internet and unknown places.
fn zone(site: &Location) -> Field<'_> {
    site.place.zone().map_or("", |zone| &zone.name).into()
}

/// A workload as NAMESPACE/KIND/NAME; null for unknown ends.
fn resource(workload: &Workload) -> Field<'_> {
    let Workload { namespace, kind, name, .. } = workload;
    match (namespace.is_empty(), name.is_empty()) {
        (_, true) => "".into(),
        (true, _) => format!("{kind}/{name}").into(),
        (false, _) => format!("{namespace}/{kind}/{name}").into(),
    }
}

fn description(charge: &Charge<'_>) -> String {
    let [source, destination] = charge.pair.sites.map(|site| site.place.name());
    let direction = charge.direction();
    match charge.pair.quote.rule {
        Some(rule) => format!("Data {direction} from {source} to {destination}: rule {}", rule.id),
        None => format!("Data {direction} from {source} to {destination}: no price is known"),
    }
}

/// The labels as a JSON object.
fn tags(workload: &Workload) -> String {
    let labels = workload.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    Value::Object(labels.collect::<Map<_, _>>()).to_string()
}

fn provider_name(provider: &Provider) -> &str {
    match provider.name() {
        "aws" => "AWS",
        "gcp" => "Google Cloud",
        "azure" => "Microsoft",
        "oci" => "Oracle",
        "alibaba" => "Alibaba Cloud",
        "digitalocean" => "DigitalOcean",
        "hetzner" => "Hetzner",
        other => other,
    }
}

fn money(amount: Option<Money>) -> Field<'static> {
    amount.map_or_else(|| "".into(), |amount| amount.exact().into())
}

/// Bytes in a unit of prices, as a decimal number with all its digits.
fn quantity(bytes: u64, unit: Unit) -> String {
    let divisor: u64 = match unit {
        Unit::Gigabyte => 1_000_000_000,
        Unit::Gibibyte => 1 << 30,
    };
    let (mut rest, mut digits) = (bytes % divisor, String::new());
    while rest > 0 {
        // Below 10 · 2³⁰.
        rest *= 10;
        digits.push(char::from(b'0' + (rest / divisor) as u8));
        rest %= divisor;
    }
    let whole = bytes / divisor;
    if digits.is_empty() { whole.to_string() } else { format!("{whole}.{digits}") }
}

fn time(second: u64) -> Field<'static> {
    let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    time.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// The beginning of the month of a second in UTC, and of the next month.
fn month(second: u64) -> (Field<'static>, Field<'static>) {
    let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    let first: Date = time.unwrap_or_default().to_zoned(TimeZone::UTC).date().first_of_month();
    // No block is in the last month of the calendar.
    let next = first.last_of_month().tomorrow().unwrap_or(first);
    let begin = |day: Date| Field::from(format!("{day}T00:00:00Z"));
    (begin(first), begin(next))
}

/// Adds a field of CSV. A value that a spreadsheet would take for a formula gets an apostrophe before it.
fn add_field(value: &str, text: &mut String) {
    let is_formula = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula || value.contains([',', '"', '\n', '\r']) {
        text.push('"');
        if is_formula {
            text.push('\'');
        }
        text.push_str(&value.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_all_their_digits() {
        assert_eq!(quantity(1_500_000_001, Unit::Gigabyte), "1.500000001");
        assert_eq!(quantity(2 << 30, Unit::Gibibyte), "2");
        assert_eq!(quantity((1 << 30) + (1 << 28), Unit::Gibibyte), "1.25");
        assert_eq!(quantity(1, Unit::Gibibyte), "0.000000000931322574615478515625");
        assert_eq!(quantity(u64::MAX, Unit::Gigabyte), "18446744073.709551615");
        assert_eq!(quantity(0, Unit::Gigabyte), "0");
    }

    #[test]
    fn a_billing_period_is_a_month_in_utc() {
        let of = |second| month(second);
        assert_eq!(of(1_764_000_000), ("2025-11-01T00:00:00Z".into(), "2025-12-01T00:00:00Z".into()));
        assert_eq!(of(1_767_225_599), ("2025-12-01T00:00:00Z".into(), "2026-01-01T00:00:00Z".into()));
        assert_eq!(time(1_767_225_600), "2026-01-01T00:00:00Z");
        assert!(time(u64::MAX).starts_with("9999-12-"));
    }

    #[test]
    fn fields_that_csv_or_a_spreadsheet_would_read_otherwise_are_quoted() {
        let field = |value: &str| {
            let mut text = String::new();
            add_field(value, &mut text);
            text
        };
        assert_eq!(field("shop"), "shop");
        assert_eq!(field("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(field("=1+1"), "\"'=1+1\"");
    }
}
