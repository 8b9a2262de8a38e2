//! The detailed export of Google Cloud's billing: JSON lines as its tables are exported, or CSV with the same names,
//! `sku.description` or `sku_description`.

use super::{
    amount::{Amount, BillUnit},
    charges::{Charges, Resource},
    columns::{Column, Names, Table},
    day::Day,
    invalid::{InvalidLine, Refusal},
    lines::Lines,
    unpacked::Text,
};
use serde::Deserialize;
use std::borrow::Cow;

/// Whether an SKU is of traffic between zones: `Network Inter Zone Data Transfer Out`, once `… Egress`. The receiver
/// pays nothing.
fn is_between_zones(sku: &str) -> bool {
    let sku = sku.to_ascii_lowercase();
    let is_received = sku.ends_with(" in") || sku.contains("transfer in ") || sku.contains("ingress");
    (sku.contains("inter zone") || sku.contains("inter-zone")) && !is_received
}

/// The fields of a line.
#[derive(Default)]
struct Item<'a> {
    sku: &'a str,
    cost_type: &'a str,
    start: &'a str,
    amount: &'a str,
    unit: &'a str,
    project: &'a str,
    name: &'a str,
    global_name: &'a str,
}

impl Item<'_> {
    fn is_asked(&self) -> bool {
        // Taxes, adjustments and rounding errors are lines of their own.
        matches!(self.cost_type, "" | "regular") && is_between_zones(self.sku)
    }

    fn add_to(&self, charges: &mut Charges) -> Result<(), InvalidLine> {
        let day = Day::of(Day::second(self.start)?);
        let quoted = || self.unit.chars().filter(|c| !c.is_control()).take(40).collect();
        let unit = BillUnit::of_google(self.unit).ok_or_else(|| InvalidLine::Unit(quoted()))?;
        charges.add(day, &self.resource(), Amount::parse(self.amount, unit)?)
    }

    fn resource(&self) -> Resource {
        let path = if self.global_name.is_empty() { self.name } else { self.global_name };
        let name = if self.name.is_empty() { self.global_name } else { self.name };
        let name = name.rsplit('/').next().unwrap_or_default();
        if name.is_empty() {
            return Resource::None;
        }
        if path.contains("/forwardingRules/") {
            return Resource::LoadBalancer;
        }
        if path.contains("/routers/") {
            return Resource::NatGateway;
        }
        if path.contains("sqladmin.") || path.contains("redis.") || path.contains("alloydb.") {
            return Resource::Database;
        }
        Resource::Instance(format!("{}/{name}", self.project))
    }
}

/// Adds the lines of traffic between zones of an export as CSV.
pub(super) fn read_table(from: Text<'_>, charges: &mut Charges) -> Result<(), Refusal> {
    let (mut table, columns) = Table::open(from, Columns::find)?;
    while let Some(line) = table.next()? {
        let item = columns.item(&table).map_err(|reason| (line, reason))?;
        if item.is_asked() {
            item.add_to(charges).map_err(|reason| (line, reason))?;
        }
    }
    Ok(())
}

struct Columns {
    sku: Column,
    start: Column,
    amount: Column,
    unit: Column,
    cost_type: Option<Column>,
    project: Option<Column>,
    name: Option<Column>,
    global_name: Option<Column>,
}

impl Columns {
    fn find(names: &Names) -> Result<Self, InvalidLine> {
        const HINT: &str = "the detailed export of Google Cloud's billing";
        let usage = names.find("usage_amount").zip(names.find("usage_unit"));
        let pricing = || names.find("usage_amount_in_pricing_units").zip(names.find("usage_pricing_unit"));
        let (amount, unit) =
            usage.or_else(pricing).ok_or(InvalidLine::NoColumn("usage_amount and usage_unit", HINT))?;
        Ok(Self {
            sku: names.need("sku_description", HINT)?,
            start: names.need("usage_start_time", HINT)?,
            amount,
            unit,
            cost_type: names.find("cost_type"),
            project: names.find("project_id"),
            name: names.find("resource_name"),
            global_name: names.find("resource_global_name"),
        })
    }

    fn item<'t>(&self, table: &'t Table<'_>) -> Result<Item<'t>, InvalidLine> {
        let sku = table.text(self.sku)?;
        if !is_between_zones(sku) {
            return Ok(Item::default());
        }
        Ok(Item {
            sku,
            cost_type: table.text_of(self.cost_type)?,
            start: table.text(self.start)?,
            amount: table.text(self.amount)?,
            unit: table.text(self.unit)?,
            project: table.text_of(self.project)?,
            name: table.text_of(self.name)?,
            global_name: table.text_of(self.global_name)?,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    sku: Option<Described<'a>>,
    #[serde(borrow)]
    cost_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    usage_start_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    usage: Option<Usage<'a>>,
    #[serde(borrow)]
    project: Option<Project<'a>>,
    #[serde(borrow)]
    resource: Option<Named<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Described<'a> {
    #[serde(borrow)]
    description: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage<'a> {
    amount: Option<Number>,
    #[serde(borrow)]
    unit: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Project<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    global_name: Option<Cow<'a, str>>,
}

/// A number, which exports write as such or as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(serde_json::Number),
    Text(String),
}

/// Adds the lines of traffic between zones of an export as JSON lines.
pub(super) fn read_lines(from: Text<'_>, charges: &mut Charges) -> Result<(), Refusal> {
    let mut lines = Lines::new(from);
    while let Some((number, bytes)) = lines.next()? {
        add_line(bytes, charges).map_err(|reason| (number, reason))?;
    }
    Ok(())
}

fn add_line(bytes: &[u8], charges: &mut Charges) -> Result<(), InvalidLine> {
    let line: Line<'_> = serde_json::from_slice(bytes).map_err(|error| {
        let is_cut = error.is_eof() && !bytes.ends_with(b"\n");
        // The error has a place in the line, and the message may quote the line.
        let message = || error.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
        if is_cut { InvalidLine::Truncated } else { InvalidLine::Json(message()) }
    })?;
    let sku = line.sku.unwrap_or_default().description.unwrap_or_default();
    if !is_between_zones(&sku) {
        return Ok(());
    }
    let usage = line.usage.unwrap_or_default();
    let amount = match usage.amount {
        Some(Number::Number(number)) => number.to_string(),
        Some(Number::Text(text)) => text,
        None => String::new(),
    };
    let (project, resource) = (line.project.unwrap_or_default(), line.resource.unwrap_or_default());
    let item = Item {
        sku: &sku,
        cost_type: text(&line.cost_type),
        start: text(&line.usage_start_time),
        amount: &amount,
        unit: text(&usage.unit),
        project: text(&project.id),
        name: text(&resource.name),
        global_name: text(&resource.global_name),
    };
    if item.is_asked() { item.add_to(charges) } else { Ok(()) }
}

fn text<'l>(of: &'l Option<Cow<'_, str>>) -> &'l str {
    of.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skus_between_zones_are_known_by_their_names() {
        for sku in ["Network Inter Zone Data Transfer Out", "Network Inter Zone Egress", "Inter-zone egress"] {
            assert!(is_between_zones(sku), "{sku}");
        }
        for sku in
            ["Network Intra Zone Egress", "Network Inter Region Egress", "Network Inter Zone Data Transfer In", ""]
        {
            assert!(!is_between_zones(sku), "{sku}");
        }
    }
}
