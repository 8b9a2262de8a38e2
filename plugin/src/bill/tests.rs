//! Bills that are made of a history, read again and put beside it.

use super::*;
use crate::{
    history::{Block, Builder, Ends, Span, TransferService, Workload},
    statement::OutputFormat,
    zones::{Class, Location, Place, Provider, Zone},
};
use flate2::{Compression, write::GzEncoder};
use meridian_abi::Counter;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{convert::Infallible, fmt::Write as _, io::Write as _, sync::Arc};

/// 2025-01-01.
const FIRST: u64 = 1_735_689_600;
const NODES: usize = 4;

fn location(zone: usize, provider: &str, class: Option<Class>) -> Location {
    let name = ["a", "b"][zone % 2];
    let place = Place::Zone(Arc::new(Zone { name: format!("r1{name}"), region: "r1".into() }));
    Location { provider: Provider::new(provider), place, class }
}

fn provider_id(payer: Payer, node: usize) -> String {
    match payer {
        Payer::Aws => format!("aws:///r1a/i-{node:017x}"),
        Payer::Gcp => format!("gce://shop/r1-a/gke-{node}"),
    }
}

/// A day whose nodes each send to the next one in the other zone, and to a database there.
fn block(payer: Payer, day: u64, random: &mut StdRng) -> Block {
    let mut builder = Builder::new(Span { start: FIRST + day * 86_400, seconds: Span::DAY }, 1000);
    let workload = Workload { kind: "Deployment".into(), name: "web".into(), ..Workload::default() };
    for node in 0..NODES {
        builder.cover(&format!("n{node}"), &provider_id(payer, node), 86_400);
    }
    for node in 0..NODES {
        for (peer, class) in [(format!("n{}", (node + 1) % NODES), None), (String::new(), Some(Class::Database))] {
            let sites = [location(node, payer.name(), None), location(node + 1, payer.name(), class)];
            let counter = Counter { bytes: random.random_range(1..1 << 45), packets: 1 };
            let ends = Ends { workloads: [&workload; 2], sites: sites.each_ref() };
            builder.add(ends, TransferService::default(), counter);
            builder.add_nodes([&format!("n{node}"), &peer], sites.each_ref(), counter);
            // Neither within the zone nor to another region is anything of this bill.
            let here = location(node, payer.name(), None);
            builder.add_nodes([&format!("n{node}"), &peer], [&here; 2], counter);
        }
    }
    builder.add_recorded(86_400);
    builder.block()
}

fn history(payer: Payer, days: u64) -> Measured {
    let (mut measured, mut random) = (Measured::default(), StdRng::seed_from_u64(days));
    (0..days).for_each(|day| measured.add(&block(payer, day, &mut random)));
    measured
}

/// A line of a bill: the second, the node, the bytes and the direction.
type Line = (u64, usize, u64, &'static str);

/// The bytes of each node, one line for each charged end; hourly for a few days, and daily for more.
fn lines(payer: Payer, measured: &Measured) -> Vec<Line> {
    let mut lines = Vec::new();
    let hours = if measured.days().count() > 3 { 1 } else { 24 };
    for (day, of_day) in measured.days() {
        for (node, of_node) in of_day.nodes.values().enumerate() {
            let ends: &[(u64, &str)] = match payer {
                Payer::Aws => &[(of_node.sent_bytes, "Out"), (of_node.received_bytes, "In")],
                Payer::Gcp => &[(of_node.sent_bytes, "Out")],
            };
            for (bytes, direction) in ends {
                let part = bytes / hours;
                for hour in 0..hours {
                    let bytes = if hour == 0 { bytes - (hours - 1) * part } else { part };
                    lines.push((day.start() + hour * 3600, node, bytes, *direction));
                }
            }
        }
    }
    lines
}

fn time(second: u64, form: &str) -> String {
    let second = jiff::Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
    second.to_zoned(jiff::tz::TimeZone::UTC).strftime(form).to_string()
}

fn gigabytes(bytes: u64) -> String {
    format!("{}.{:09}", bytes / 1_000_000_000, bytes % 1_000_000_000)
}

/// A report of AWS with the columns of a form, among lines and columns of other things.
fn cur(lines: &[Line], names: &str, form: &str) -> String {
    let mut text = format!("{names}\n");
    for (second, node, bytes, direction) in lines {
        let (start, end, amount) = (time(*second, form), time(second + 3600, form), gigabytes(*bytes));
        let mut line = |kind: &str, usage: &str, operation: &str| {
            let tags = "\"{\"\"team\"\": \"\"a,b\"\"}\"";
            let line = format!("{kind},{start},{end},USE1-{usage},{operation},i-{node:017x},{amount},{tags}");
            writeln!(text, "{line}").unwrap();
        };
        line("Usage", "DataTransfer-Regional-Bytes", &format!("InterZone-{direction}"));
        line("EdpDiscount", "DataTransfer-Regional-Bytes", &format!("InterZone-{direction}"));
        line("Usage", "BoxUsage:m5.large", "RunInstances");
        line("Usage", "DataTransfer-xAZ-Out-Bytes", "");
    }
    text
}

fn legacy(lines: &[Line]) -> String {
    let names = "lineItem/LineItemType,lineItem/UsageStartDate,lineItem/UsageEndDate,lineItem/UsageType,\
        lineItem/Operation,lineItem/ResourceId,lineItem/UsageAmount,resourceTags/user:team";
    cur(lines, names, "%Y-%m-%dT%H:%M:%SZ")
}

fn second(lines: &[Line]) -> String {
    let names = "line_item_line_item_type,line_item_usage_start_date,line_item_usage_end_date,line_item_usage_type,\
        line_item_operation,line_item_resource_id,line_item_usage_amount,resource_tags";
    cur(lines, names, "%Y-%m-%d %H:%M:%S.000")
}

const SKUS: [&str; 3] =
    ["Network Inter Zone Data Transfer Out", "Network Inter Zone Data Transfer In", "N2 Instance Core"];

fn gcp_lines(lines: &[Line]) -> String {
    let mut text = String::new();
    for ((second, node, bytes, _), sku) in lines.iter().flat_map(|line| SKUS.map(|sku| (line, sku))) {
        let line = json!({
            "billing_account_id": "0", "service": {"id": "6F81", "description": "Compute Engine"},
            "sku": {"id": "DE9E", "description": sku}, "usage_start_time": time(*second, "%Y-%m-%d %H:%M:%S UTC"),
            "project": {"id": "shop", "labels": []}, "cost": 0.1, "cost_type": "regular",
            "resource": {"name": format!("gke-{node}"), "global_name": format!("//compute.googleapis.com/projects/1/zones/r1-a/instances/{node}")},
            "usage": {"amount": *bytes as f64, "unit": "bytes", "amount_in_pricing_units": 0.1, "pricing_unit": "gibibyte"},
        });
        writeln!(text, "{line}").unwrap();
    }
    text
}

fn gcp_table(lines: &[Line]) -> String {
    let mut text =
        "project_id,sku.description,usage_start_time,resource_name,usage.amount,usage.unit,cost_type\n".to_owned();
    for ((second, node, bytes, _), sku) in lines.iter().flat_map(|line| SKUS.map(|sku| (line, sku))) {
        let start = time(*second, "%Y-%m-%d %H:%M:%S UTC");
        writeln!(text, "shop,{sku},{start},gke-{node},{bytes},bytes,regular").unwrap();
    }
    text
}

fn packed(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

const CUR: Format = Format::AwsCur(BillUnit::Gigabyte);

fn reconciled(payer: Payer, by: GroupBy, bills: &[Vec<u8>], measured: &Measured) -> Reconciliation {
    let mut charges = Charges::default();
    let format = if payer == Payer::Aws { CUR } else { Format::GcpBilling };
    bills.iter().for_each(|bill| read(format, bill.as_slice(), "bill", &mut charges).unwrap());
    let days = charges.days().unwrap();
    let day = |day| Ok::<_, Infallible>(measured.day(day).cloned().unwrap_or_default());
    Reconciliation::new((payer, by), &charges, days, day).unwrap()
}

type Written = fn(&[Line]) -> String;
const FORMATS: [(Payer, Written); 4] = [
    (Payer::Aws, legacy as Written),
    (Payer::Aws, second as Written),
    (Payer::Gcp, gcp_lines as Written),
    (Payer::Gcp, gcp_table as Written),
];

#[test]
fn a_bill_of_our_own_counts_is_covered_exactly_in_every_format_and_length() {
    for ((payer, written), days) in FORMATS.into_iter().flat_map(|format| [1, 30, 365].map(|days| (format, days))) {
        let measured = history(payer, days);
        let text = written(&lines(payer, &measured));
        let (plain, gz) = (text.clone().into_bytes(), packed(&text));
        for bill in [plain, gz] {
            let whole = reconciled(payer, GroupBy::DayNode, &[bill], &measured);
            assert_eq!(whole.rows.len(), days as usize * NODES);
            assert!(whole.rows.iter().all(|row| row.billed == row.measured && row.reasons.is_empty()), "{payer:?}");
            assert_eq!((whole.total.billed, whole.total.coverage()), (whole.total.measured, Some(10_000)));
        }
    }
}

#[test]
fn nodes_that_are_left_out_are_missing_from_the_coverage_to_the_byte() {
    for (payer, written) in FORMATS {
        let measured = history(payer, 30);
        let bill = written(&lines(payer, &measured)).into_bytes();
        let mut partial = Measured::default();
        let (mut left_out, mut all) = (0, 0);
        for (day, of_day) in measured.days() {
            let mut of_day = of_day.clone();
            for (at, node) in of_day.nodes.values_mut().enumerate() {
                all += payer.charged(node);
                if at == 1 {
                    left_out += payer.charged(node);
                    (node.sent_bytes, node.received_bytes, node.reported_seconds) = (0, 0, 0);
                }
            }
            partial.extend(Measured::of(day, of_day));
        }
        let result = reconciled(payer, GroupBy::Node, &[bill], &partial);
        let percent = (u128::from(all - left_out) * 10_000 + u128::from(all) / 2) / u128::from(all);
        assert_eq!(result.total.coverage().map(u128::from), Some(percent));
        assert_eq!(result.total.reasons.clone().into_iter().collect::<Vec<_>>(), [(Reason::NoAgent, left_out)]);
        assert_eq!((result.rows.len(), result.rows[1].coverage()), (NODES, Some(0)));
    }
}

#[test]
fn every_row_of_a_bill_has_the_resource_or_time_that_explains_it() {
    let mut measured = history(Payer::Aws, 1);
    let (day, mut of_day) = measured.days().map(|(day, of_day)| (day, of_day.clone())).next().unwrap();
    let mut lines = lines(Payer::Aws, &measured);
    lines.push((FIRST, 77, 5, "In"));
    let mut bill = legacy(&lines);
    let balancer = "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/net/web/1";
    let line = |resource: &str, operation: &str, amount: &str, day: u32| {
        format!("Usage,2025-01-0{day}T00:00:00Z,,DataTransfer-Regional-Bytes,{operation},{resource},{amount},\n")
    };
    bill += &line(balancer, "InterZone-In", "1e-8", 1);
    bill += &line("i-00000000000000000", "PublicIP-In", "0.000000020", 1);
    bill += &line("", "", "0.000000030", 1);
    bill += &line("i-00000000000000000", "", "0.000000040", 2);
    let nodes: Vec<&mut MeasuredNode> = of_day.nodes.values_mut().collect();
    for (at, node) in nodes.into_iter().enumerate() {
        match at {
            0 => node.sent_bytes += 7,
            1 => (node.received_bytes, node.reported_seconds) = (node.received_bytes - 8, 40_000),
            2 => node.sent_bytes -= 9,
            _ => {}
        }
    }
    let fresh = NodeId { node: "n9".into(), provider_id: "aws:///r1a/i-9".into() };
    of_day.nodes.insert(fresh, MeasuredNode { sent_bytes: 6, ..MeasuredNode::default() });
    let hybrid = NodeId { node: "own".into(), provider_id: "eks-hybrid:///x".into() };
    of_day
        .nodes
        .insert(hybrid, MeasuredNode { provider: "eks-hybrid".into(), sent_bytes: 999, ..MeasuredNode::default() });
    of_day.no_node.sent_bytes = 11;
    measured.extend(Measured::of(day, of_day));
    let result = reconciled(Payer::Aws, GroupBy::DayNode, &[bill.into_bytes()], &measured);
    let expected = [
        (Reason::LoadBalancer, 10),
        (Reason::PublicAddress, 20),
        (Reason::OutsideCluster, 5),
        (Reason::NoResource, 30),
        (Reason::SilentAgent, 8),
        (Reason::NotRecorded, 40),
        (Reason::Unattributed, 11),
        (Reason::NotBilled, 6),
        (Reason::MoreThanBilled, 7),
        (Reason::Unexplained, 9),
    ];
    assert_eq!(result.total.reasons, expected.into_iter().collect());
    for by in [GroupBy::Day, GroupBy::Node] {
        let other = Reconciliation { by, ..result.clone() };
        assert_eq!(other.total, result.total);
    }
    for form in [OutputFormat::Table, OutputFormat::Markdown, OutputFormat::Csv, OutputFormat::Json] {
        let text = result.form(form);
        assert!(text.contains("outside the cluster") && text.contains("i-00000000000000001"), "{text}");
    }
    let json: Value = serde_json::from_str(&result.form(OutputFormat::Json)).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    for key in ["billed_bytes", "measured_bytes"] {
        assert_eq!(json["total"][key], sum(key));
    }
}

#[test]
fn a_bill_in_binary_units_is_recognised() {
    let measured = history(Payer::Aws, 3);
    let binary: Vec<Line> = lines(Payer::Aws, &measured);
    let bill = binary.iter().fold(
        "lineItem/UsageStartDate,lineItem/UsageType,lineItem/ResourceId,lineItem/UsageAmount\n".to_owned(),
        |text, (second, node, bytes, _)| {
            let amount = *bytes as f64 / f64::from(1 << 30);
            text + &format!("{},DataTransfer-Regional-Bytes,i-{node:017x},{amount:.10}\n", time(*second, "%Y-%m-%d"))
        },
    );
    let result = reconciled(Payer::Aws, GroupBy::DayNode, &[bill.clone().into_bytes()], &measured);
    assert!(result.looks_binary() && result.form(OutputFormat::Table).contains("Try --unit GiB"));
    let mut charges = Charges::default();
    read(Format::AwsCur(BillUnit::Gibibyte), bill.as_bytes(), "bill", &mut charges).unwrap();
    let day = |day| Ok::<_, Infallible>(measured.day(day).cloned().unwrap_or_default());
    let result = Reconciliation::new((Payer::Aws, GroupBy::DayNode), &charges, charges.days().unwrap(), day).unwrap();
    assert!(!result.looks_binary() && result.total.coverage() == Some(10_000));
}

#[test]
fn an_invoice_is_compared_with_what_its_provider_charges() {
    let (measured, gcp) = (history(Payer::Aws, 30), history(Payer::Gcp, 30));
    let of = |payer: Payer, measured: &Measured| lines(payer, measured).iter().map(|line| line.2).sum::<u64>();
    let days = (Day::of(FIRST), Day::of(FIRST + 29 * 86_400));
    for (payer, measured) in [(Payer::Aws, &measured), (Payer::Gcp, &gcp)] {
        let bytes = of(payer, measured);
        let result = Reconciliation::of_invoice(bytes, days, measured);
        assert_eq!((result.total.measured, result.total.coverage()), (bytes, Some(10_000)));
        let result = Reconciliation::of_invoice(2 * bytes, days, measured);
        assert_eq!(
            (result.total.coverage(), result.total.reasons.get(&Reason::Unexplained)),
            (Some(5000), Some(&bytes))
        );
    }
    let longer = (Day::of(FIRST), Day::of(FIRST + 30 * 86_400));
    let result = Reconciliation::of_invoice(1 << 60, longer, &measured);
    assert!(result.total.reasons.contains_key(&Reason::NotRecorded));
}

#[test]
fn the_answer_of_a_server_has_the_same_days() {
    let measured = history(Payer::Gcp, 3);
    assert_eq!(Measured::parse(&measured.json().to_string()).unwrap(), measured);
    for bad in ["", "{}", "[]", "{\"days\":[{}]}"] {
        assert!(Measured::parse(bad).is_err(), "{bad}");
    }
    let day = json!({"days": [{"day": "x", "recorded_seconds": 0, "nodes": [], "sent_bytes_of_no_node": 0, "received_bytes_of_no_node": 0}]});
    assert!(Measured::parse(&day.to_string()).unwrap_err().to_string().contains("`x` is not a time"));
}

fn refused(format: Format, bytes: &[u8]) -> String {
    let error = read(format, bytes, "bill", &mut Charges::default()).unwrap_err().to_string();
    assert!(error.len() < 300 && !error.chars().any(char::is_control), "{error}");
    error
}

#[test]
fn a_bill_that_is_none_is_refused_with_file_and_line() {
    let cases: [(Format, &[u8], &str); 14] = [
        (CUR, b"", "bill:1: the file is empty"),
        (Format::GcpBilling, b"", "bill:1: the file is empty"),
        (CUR, b"PAR1\x15\x04", "bill:1: Parquet is not read: "),
        (CUR, b"PK\x03\x04x", "bill:1: zip is not read: "),
        (CUR, b"a,b\n1,2\n", "bill:1: there is no column line_item_usage_type"),
        (CUR, &[0x1f, 0x8b, 8, 0], "bill:1: the file ends within this line"),
        (CUR, &[0x1f, 0x8b, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0], "bill:1: it can't be read: "),
        (Format::GcpBilling, b"[{}]", "bill:1: it is a JSON list"),
        (Format::GcpBilling, b"{}\n{\"sku\":1}\n", "bill:2: it is not a line of the export: "),
        (Format::GcpBilling, b"{}\n\n{\"sku\":{", "bill:3: the file ends within this line"),
        (Format::GcpBilling, b"sku.description\nx\n", "bill:1: there is no column usage_amount and usage_unit"),
        (
            Format::GcpBilling,
            b"{\"sku\":{\"description\":\"Inter Zone\"},\"usage_start_time\":\"2025-01-01\",\"usage\":{\"amount\":1,\"unit\":\"seconds\"}}\n",
            "bill:1: `seconds` is not a unit of bytes",
        ),
        (
            Format::GcpBilling,
            b"{\"sku\":{\"description\":\"Inter Zone\"},\"usage_start_time\":\"soon\"}\n",
            "bill:1: `soon` is not a time",
        ),
        (Format::GcpBilling, &[0xff, 0xfe, b'{', 0], "bill:1: UTF-16 is not read"),
    ];
    for (format, bytes, start) in cases {
        let error = refused(format, bytes);
        assert!(error.starts_with(start), "{error}");
    }
    let names = "lineItem/UsageStartDate,lineItem/UsageEndDate,lineItem/UsageType,lineItem/UsageAmount\n";
    for (line, start) in [
        ("2025-01-01,,DataTransfer-Regional-Bytes,much\n", "bill:2: `much` is not an amount"),
        ("soon,,DataTransfer-Regional-Bytes,1\n", "bill:2: `soon` is not a time"),
        ("2025-01-01,2025-02-01,DataTransfer-Regional-Bytes,1\n", "bill:2: the line is of more than a day"),
        ("2025-01-01,,DataTransfer-Regional-Bytes\n", "bill:2: it has 3 fields, but there are 4 columns"),
    ] {
        let error = refused(CUR, format!("{names}{line}").as_bytes());
        assert!(error.starts_with(start), "{error}");
    }
    assert!(read(CUR, names.as_bytes(), "bill", &mut Charges::default()).is_ok());
}

#[test]
fn a_bill_cut_off_or_changed_anywhere_is_refused_or_read_and_never_ends_the_process() {
    let mut random = StdRng::seed_from_u64(7);
    for (payer, written) in FORMATS {
        let text = written(&lines(payer, &history(payer, 1))[..3]);
        let format = if payer == Payer::Aws { CUR } else { Format::GcpBilling };
        let is_line_end = |end: usize| text.as_bytes()[end - 1] == b'\n' || text.as_bytes().get(end) == Some(&b'\n');
        for end in 0..text.len() {
            let result = read(format, &text.as_bytes()[..end], "bill", &mut Charges::default());
            assert!(result.is_err() || is_line_end(end), "{payer:?} cut at {end}");
        }
        let gz = packed(&text);
        for end in 0..gz.len() {
            refused(format, &gz[..end]);
        }
        for bytes in [text.as_bytes(), &gz] {
            for _ in 0..500 {
                let mut bytes = bytes.to_vec();
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
                let _ = read(format, bytes.as_slice(), "bill", &mut Charges::default());
            }
        }
    }
}
