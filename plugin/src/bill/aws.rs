//! AWS's Cost and Usage Report, legacy and 2.0: the columns have other names, and one meaning.

use super::{
    amount::{Amount, BillUnit},
    charges::{Charges, Resource},
    columns::{Column, Names, Table},
    day::Day,
    invalid::{InvalidLine, Refusal},
    unpacked::Text,
};
use crate::history::Span;

/// The end of the usage types for traffic between zones, after the code of the region. Each end has a line of its own.
const BETWEEN_ZONES: &[u8] = b"DataTransfer-Regional-Bytes";
/// The type of lines with usage. Lines of other types repeat amounts for taxes, credits and discounts.
const USAGE: &[u8] = b"Usage";
const HINT: &str = "a Cost and Usage Report";

struct Columns {
    usage_type: Column,
    amount: Column,
    start: Column,
    end: Option<Column>,
    line_type: Option<Column>,
    resource: Option<Column>,
    operation: Option<Column>,
}

impl Columns {
    fn find(names: &Names) -> Result<Self, InvalidLine> {
        Ok(Self {
            usage_type: names.need("line_item_usage_type", HINT)?,
            amount: names.need("line_item_usage_amount", HINT)?,
            start: names.need("line_item_usage_start_date", HINT)?,
            end: names.find("line_item_usage_end_date"),
            line_type: names.find("line_item_line_item_type"),
            resource: names.find("line_item_resource_id"),
            operation: names.find("line_item_operation"),
        })
    }
}

/// Adds the lines of traffic between zones.
pub(super) fn read(from: Text<'_>, unit: BillUnit, charges: &mut Charges) -> Result<(), Refusal> {
    let (mut table, columns) = Table::open(from, Columns::find)?;
    while let Some(line) = table.next()? {
        let is_usage = columns.line_type.is_none_or(|column| table.bytes(column) == USAGE);
        if is_usage && table.bytes(columns.usage_type).ends_with(BETWEEN_ZONES) {
            add(&table, &columns, unit, charges).map_err(|reason| (line, reason))?;
        }
    }
    Ok(())
}

fn add(table: &Table<'_>, columns: &Columns, unit: BillUnit, charges: &mut Charges) -> Result<(), InvalidLine> {
    let start = Day::second(table.text(columns.start)?)?;
    let end = table.text_of(columns.end)?;
    if !end.is_empty() && Day::second(end)?.saturating_sub(start) > u64::from(Span::DAY) {
        return Err(InvalidLine::LongPeriod);
    }
    let amount = Amount::parse(table.text(columns.amount)?, unit)?;
    let resource = resource(table.text_of(columns.resource)?, table.text_of(columns.operation)?);
    charges.add(Day::of(start), &resource, amount)
}

/// The resource by its ID or ARN.
fn resource(id: &str, operation: &str) -> Resource {
    if operation.contains("PublicIP") || operation.contains("EIP-") {
        return Resource::PublicAddress;
    }
    if id.is_empty() {
        return Resource::None;
    }
    let service = id.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(1)).unwrap_or_default();
    let name = id.rsplit(['/', ':']).next().unwrap_or_default();
    match service {
        "elasticloadbalancing" => Resource::LoadBalancer,
        "rds" | "elasticache" | "memorydb" | "redshift" | "kafka" | "es" | "dax" => Resource::Database,
        "" | "ec2" if name.starts_with("i-") => Resource::Instance(name.to_owned()),
        "" | "ec2" if name.starts_with("nat-") => Resource::NatGateway,
        _ => Resource::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_known_by_its_id() {
        let of = |id| resource(id, "InterZone-In");
        let instance = || Resource::Instance("i-0123456789abcdef0".to_owned());
        assert_eq!(of("i-0123456789abcdef0"), instance());
        assert_eq!(of("arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"), instance());
        assert_eq!(of("arn:aws:ec2:us-east-1:123456789012:natgateway/nat-0abc"), Resource::NatGateway);
        let balancer = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/web/0abc";
        assert_eq!(of(balancer), Resource::LoadBalancer);
        assert_eq!(of("arn:aws:rds:us-east-1:123456789012:db:orders"), Resource::Database);
        assert_eq!((of(""), of("eni-0abc"), of("arn:")), (Resource::None, Resource::Other, Resource::Other));
        assert_eq!(resource("i-0123456789abcdef0", "PublicIP-Out"), Resource::PublicAddress);
    }
}
