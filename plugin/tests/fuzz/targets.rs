//! The readers of bytes from outside. Each returns its outcome: `ok` and the shape of what it read, or the error.

use flate2::{Compression, write::DeflateEncoder};
use meridian::{
    accounting::Accounting,
    bill::{self, BillUnit, Charges, Format},
    budget::Budgets,
    cli::Cli,
    cost::PriceTable,
    feed::Saved,
    flows::Encoded,
    history::Block,
    hubble::{Exported, Filters, FlowRequests},
    link::{Check, read_headers},
    outputs::{Settings, Wanted},
    proto::{
        flow::{Endpoint, Flow, FlowFilter, Ip, flow_filter::Experimental},
        observer::GetFlowsRequest,
        v1::{MirrorResponse, ReportRequest, SavedCounters, Update},
    },
    replay,
    reports::ClusterTotals,
    wire::{Reader, restore, sums},
    zones::{
        StaticTable,
        import::{CloudOutput, ImportAs},
    },
};
use prost::Message;
use ring::digest::{SHA256, digest};
use std::{fmt::Display, fs, io::Write, path::Path, time::Instant};

/// A reader.
pub struct Target {
    /// The folder of its corpus.
    pub name: &'static str,
    pub run: fn(&[u8]) -> String,
}

pub const TARGETS: [Target; 19] = [
    Target { name: "filters", run: filters },
    Target { name: "cel", run: cel },
    Target { name: "mask", run: mask },
    Target { name: "zones", run: zones },
    Target { name: "prices", run: prices },
    Target { name: "budgets", run: budgets },
    Target { name: "headers", run: headers },
    Target { name: "settings", run: settings },
    Target { name: "metrics-file", run: metrics_file },
    Target { name: "logs-file", run: logs_file },
    Target { name: "cloud-output", run: cloud_output },
    Target { name: "bill", run: bill },
    Target { name: "flow-log", run: flow_log },
    Target { name: "history", run: history },
    Target { name: "feed", run: feed },
    Target { name: "report", run: report },
    Target { name: "mirror", run: mirror },
    Target { name: "saved-table", run: saved_table },
    Target { name: "saved-sums", run: saved_sums },
];

fn of<T, E: Display>(result: Result<T, E>, shape: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(value) => format!("ok {}", shape(value)),
        Err(error) => error.to_string(),
    }
}

/// Flows that filters and masks examine: an empty one, and one with the fields that most filters read.
fn flows() -> [Encoded; 2] {
    let end = |pod: &str| Endpoint {
        namespace: "shop".into(),
        pod_name: pod.into(),
        labels: vec!["k8s:app=cart".into(), "k8s:topology.kubernetes.io/zone=eu-1a".into()],
        identity: 7,
        ..Endpoint::default()
    };
    let full = Flow {
        uuid: "u".into(),
        node_name: "node-a".into(),
        verdict: 1,
        ip: Some(Ip { source: "10.0.0.1".into(), destination: "fd00::1".into(), ..Ip::default() }),
        source: Some(end("cart-0")),
        destination: Some(end("db-0")),
        ..Flow::default()
    };
    [Flow::default().into(), full.into()]
}

fn matches(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> String {
    of(Filters::new(whitelist, blacklist), |mut filters| {
        // Twice: the second time, results are remembered.
        let results: Vec<bool> = flows().iter().chain(&flows()).map(|flow| filters.match_flow(flow)).collect();
        assert_eq!(results[..2], results[2..], "a remembered result differs");
        results.iter().map(|passes| if *passes { 'y' } else { 'n' }).collect()
    })
}

fn filters(input: &[u8]) -> String {
    if let Err(status) = FlowRequests::check::<GetFlowsRequest>(input) {
        return status.message().to_owned();
    }
    match GetFlowsRequest::decode(input) {
        Ok(request) => matches(&request.whitelist, &request.blacklist),
        Err(error) => error.to_string(),
    }
}

fn cel(input: &[u8]) -> String {
    let cel_expression = vec![String::from_utf8_lossy(input).into_owned()];
    let experimental = Some(Experimental { cel_expression });
    matches(&[FlowFilter { experimental, ..FlowFilter::default() }], &[])
}

/// The paths of a mask.
fn mask(input: &[u8]) -> String {
    let paths = [String::from_utf8_lossy(input).into_owned()];
    of(Exported::new(&[], &[], &paths), |_| String::new())
}

fn zones(input: &[u8]) -> String {
    of(StaticTable::parse(Path::new("zones.yaml"), input), |_| String::new())
}

fn prices(input: &[u8]) -> String {
    of(PriceTable::parse(Path::new("prices.yaml"), input), |_| String::new())
}

fn budgets(input: &[u8]) -> String {
    of(Budgets::parse(Path::new("budgets.yaml"), input), |budgets| budgets.len().to_string())
}

/// The outcome of a reader of a file, without the path, which is another one in each run.
fn of_file(name: &str, input: &[u8], read: impl FnOnce(&Path) -> String) -> String {
    let folder = std::env::temp_dir().join(format!("meridian-fuzz-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), input).unwrap();
    let outcome = read(&folder.join(name));
    fs::remove_dir_all(&folder).unwrap();
    outcome.replace(&folder.display().to_string(), "")
}

/// Headers for a server in the clear: those that may be secret are refused.
fn headers(input: &[u8]) -> String {
    of_file("headers", input, |path| of(read_headers(path, false), |headers| headers.len().to_string()))
}

/// The settings of an agent.
fn settings(input: &[u8]) -> String {
    of_file("agent.yaml", input, |path| {
        let arguments = ["meridian", "agent", "--config"].map(Into::into).into_iter().chain([path.into()]);
        of(Cli::from_args(arguments.collect()), |_| String::new())
    })
}

fn outputs() -> Settings {
    Settings { metrics: Wanted::Auto, metrics_file: None, log: None, logs_file: None }
}

fn metrics_file(input: &[u8]) -> String {
    of_file("metrics.yaml", input, |path| {
        let settings = Settings { metrics_file: Some(path.into()), ..outputs() };
        of(settings.check(), |checked| checked[0].count.to_string())
    })
}

fn logs_file(input: &[u8]) -> String {
    of_file("logs.yaml", input, |path| {
        let settings = Settings { logs_file: Some(path.into()), ..outputs() };
        of(settings.check(), |checked| checked[0].count.to_string())
    })
}

/// The outputs of the clouds' commands: a table that is made of one can be read.
fn cloud_output(input: &[u8]) -> String {
    let mut outcomes = Vec::new();
    for output in [CloudOutput::AwsSubnets, CloudOutput::AwsInstances, CloudOutput::GcpInstances] {
        for kind in [ImportAs::Zones, ImportAs::Machines] {
            outcomes.push(of(output.table(input, kind), |table| {
                let read = StaticTable::parse(Path::new("zones.yaml"), table.as_bytes());
                assert!(read.is_ok(), "{table}");
                String::new()
            }));
        }
    }
    // A good one comes first.
    outcomes.sort_by_key(|outcome| !outcome.starts_with("ok"));
    outcomes.join(" ")
}

fn bill(input: &[u8]) -> String {
    let mut outcomes = [Format::AwsCur(BillUnit::Gigabyte), Format::GcpBilling].map(|format| {
        let mut charges = Charges::default();
        of(bill::read(format, input, "bill", &mut charges), |()| String::new())
    });
    outcomes.sort_by_key(|outcome| !outcome.starts_with("ok"));
    outcomes.join(" ")
}

fn flow_log(input: &[u8]) -> String {
    let (mut reader, mut kinds) = (replay::Reader::new(), std::collections::BTreeSet::new());
    let read = reader.read(input, |_, line| {
        kinds.insert(match line {
            replay::Line::Record(_) => "record".to_owned(),
            replay::Line::Left(reason, _) => format!("{reason:?}"),
            _ => "event".to_owned(),
        });
    });
    of(read, |()| kinds.into_iter().collect::<Vec<_>>().join(" "))
}

/// A block: the input is its body, because nothing passes the checksum by chance.
fn history(input: &[u8]) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(input).unwrap();
    let mut checked = vec![1];
    checked.extend((input.len() as u32).to_le_bytes());
    checked.extend(encoder.finish().unwrap());
    let sealed = [b"mrdnhist", digest(&SHA256, &checked).as_ref(), &checked].concat();
    of(Block::decode(&sealed), |block| {
        assert_eq!(Block::decode(&block.encode()).as_ref(), Ok(&block), "a block differs after it was written");
        String::new()
    })
}

fn feed(input: &[u8]) -> String {
    match Update::decode(input) {
        Ok(update) => of(Reader::default().read(update), |(bucket, changes)| {
            format!("{} {}", bucket.is_some(), changes.is_empty())
        }),
        Err(error) => error.to_string(),
    }
}

fn report(input: &[u8]) -> String {
    let Ok(report) = ReportRequest::decode(input) else { return "undecodable".into() };
    let totals = ClusterTotals::new(100, true, 10);
    of(totals.take(report, Instant::now()), |()| {
        let _ = (totals.counted(), totals.take_interval());
        String::new()
    })
}

fn mirror(input: &[u8]) -> String {
    let Ok(message) = MirrorResponse::decode(input) else { return "undecodable".into() };
    let totals = ClusterTotals::new(100, true, 10);
    of(totals.apply_mirrored(message, Instant::now()), |()| String::new())
}

fn saved_table(input: &[u8]) -> String {
    let sealed = [b"mrdntbl1", digest(&SHA256, input).as_ref(), input].concat();
    of_file("table", &sealed, |path| {
        of(Saved::read(path.parent().unwrap()), |saved| saved.map_or("none", |_| "some").to_owned())
    })
}

fn saved_sums(input: &[u8]) -> String {
    let Ok(SavedCounters { sums: saved, .. }) = SavedCounters::decode(input) else { return "undecodable".into() };
    let mut accounting = Accounting::new(100, true);
    restore(&mut accounting, saved.unwrap_or_default(), Instant::now());
    // What was restored can be saved again.
    format!("ok {}", if sums(&accounting).encoded_len() > 100 { "some" } else { "none" })
}
