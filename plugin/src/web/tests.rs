//! Answers against their description, bad questions, bounds, and names from outside.

mod schema;

use super::*;
use crate::{
    accounting::{Accounting, Service, Transfer, TransferEnd},
    cost::PriceTable,
    historian::{NodeSeen, Tick},
    recorder::Directory,
    zones::{Pair, Place, Provider, Zone},
};
use meridian_abi::{Counter, IpVersion, matrix::Direction, stats::Stat};
use schema::Schemas;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const NOW: u64 = 1_764_000_100;

fn place(name: &str) -> Place {
    Place::Zone(Arc::new(Zone { name: name.into(), region: "us-east-1".into() }))
}

#[derive(Debug)]
struct Fixed {
    zones: usize,
    nodes: usize,
}

impl Source for Fixed {
    fn counts(&self) -> Counts {
        let mut matrix = crate::zones::Matrix::default();
        for zone in 0..self.zones {
            let (source, destination) = (place(&format!("z{zone}")), place("z0"));
            let pair = Pair { source, destination, version: IpVersion::V6, direction: Direction::Egress };
            matrix.add(pair, Counter { bytes: 10 + zone as u64, packets: 1 });
        }
        Counts { time: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)), nodes: self.nodes, matrix }
    }

    fn health(&self) -> Health {
        let node = |number: usize| NodeHealth {
            name: format!("node-{number}"),
            age: (number > 0).then_some(Duration::from_secs(3)),
            is_silent: number == 0,
            hook: (number > 1).then(|| ("netfilter", "as asked".to_owned())),
        };
        Health {
            program: "controller",
            is_leader: Some(true),
            agents: Some(AgentsHealth { connected: 2, behind: 1 }),
            nodes: (0..self.nodes).map(node).collect(),
            stats: vec![(Stat::Unattributed, Counter { bytes: 5, packets: 1 })],
        }
    }
}

/// A site whose history has an hour with a transfer from each zone to the next, in which each is a provider's.
fn site(zones: &[&str]) -> Site {
    let historian = Historian::in_memory(PriceTable::default(), NOW - 7200);
    let providers = zones.iter().map(|zone| ((*zone).to_owned(), Provider::new("aws").unwrap())).collect();
    let directory = Directory { providers, ..Directory::default() };
    for hour in 0..2 {
        let mut accounting = Accounting::new(100, false).with_growth();
        for pair in zones.windows(2) {
            let end = |zone: &str| TransferEnd { address: None, endpoint: None, place: place(zone), external: None };
            let (source, destination) = (end(pair[0]), end(pair[1]));
            let transfer = Transfer { source: &source, destination: &destination, service: Service::default() };
            accounting.add(&transfer, Counter { bytes: 1_000_000_000, packets: 1000 }, Instant::now());
        }
        let grown = accounting.growth_mut().unwrap().take(true);
        let nodes = [NodeSeen { name: "node-1".into(), provider_id: String::new(), is_heard: hour == 0 }];
        let now = NOW - 7200 + hour * 3600;
        let elapsed = Duration::from_secs(60);
        historian.tick(&Tick { now, elapsed, grown: &grown, directory: &directory, nodes: &nodes });
    }
    Site { history: Some(Arc::new(historian)), source: Some(Arc::new(Fixed { zones: 3, nodes: 3 })), catalogue: None }
}

fn ask(site: &Site, address: &str) -> Answer {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let query = query.split('&').filter_map(|part| part.split_once('='));
    let query = query.map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    site.answer(&Request { path: path.to_owned(), query, now, is_ready: true, catalogue: Some(Catalogue::default()) })
}

fn json(site: &Site, address: &str) -> Value {
    let answer = ask(site, address);
    assert_eq!((answer.status, answer.content_type), (200, JSON), "{address}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn charges_are_of_a_day_at_most_and_have_the_bytes_of_the_report() {
    let site = site(&["us-east-1a", "us-east-1b", "us-east-1a"]);
    let answer = ask(&site, "/api/v1/focus?locality=all");
    let mut lines = answer.body.lines();
    assert_eq!(
        (answer.content_type, lines.next().unwrap()),
        ("text/csv; charset=utf-8", crate::focus::COLUMNS.join(",").as_str())
    );
    // Two hours with two transfers of two ends.
    assert_eq!((lines.count(), answer.body.matches(",1000000000,B,").count()), (8, 8));
    for (path, reason) in [
        ("/api/v1/focus?from=3d", "charges are of at most 24 hours"),
        ("/api/v1/focus?by=zone-pair", "`by` is no parameter"),
        ("/api/v1/focus?from=x", "from: `x` is not a time"),
        ("/api/v1/focus?locality=near", "locality: `near`"),
    ] {
        let answer = ask(&site, path);
        assert!(answer.status == 400 && answer.body.starts_with(reason), "{path}: {answer:?}");
    }
}

#[test]
fn the_description_names_every_path_and_no_other() {
    let site = site(&["a", "b"]);
    let mut described: BTreeSet<String> = Schemas::read(OPENAPI).paths().collect();
    // It has no answer without a change; the page does not ask for it.
    assert!(described.remove("/api/v1/whatif"));
    let offered = site.offers().into_iter().map(|name| format!("/api/v1/{name}"));
    assert_eq!(described, offered.collect());
    described.iter().for_each(|path| assert_eq!(ask(&site, path).status, 200, "{path}"));
}

#[test]
fn every_answer_has_the_fields_that_the_description_says_and_no_others() {
    let schemas = Schemas::read(OPENAPI);
    let full = site(&["us-east-1a", "us-east-1b", "us-east-1a"]);
    let empty = Site {
        history: Some(Arc::new(Historian::in_memory(PriceTable::default(), NOW))),
        source: None,
        catalogue: None,
    };
    let mut addresses: Vec<String> = [
        "health",
        "nodes",
        "zones",
        "prices",
        "series?step=day",
        "advice?min-data=0s&floor=0",
        "report?explain=true&locality=all&compare=14d..7d&top=1",
    ]
    .map(|path| format!("/api/v1/{path}"))
    .into();
    for by in ["zone-pair", "namespace-pair", "workload-pair", "workload", "service", "node", "label:app"] {
        addresses.push(format!("/api/v1/report?by={by}"));
        addresses.push(format!("/api/v1/series?by={by}&locality=all"));
    }
    for address in &addresses {
        let path = address.split('?').next().unwrap();
        schemas.check(path, &json(&full, address));
        if path != "/api/v1/zones" {
            schemas.check(path, &json(&empty, address));
        }
    }
    // The check finds faults.
    let mut wrong = json(&full, "/api/v1/health");
    wrong["more"] = 1.into();
    assert!(schemas.fault("/api/v1/health", &wrong).is_some_and(|fault| fault.contains("more")));
    wrong = json(&full, "/api/v1/report");
    wrong["rows"][0]["cost"]["usd"] = 1.into();
    assert!(schemas.fault("/api/v1/report", &wrong).is_some_and(|fault| fault.contains("rows[0].cost.usd")));
}

#[test]
fn a_series_and_a_report_have_the_same_sums() {
    let site = site(&["us-east-1a", "us-east-1b", "us-east-1c"]);
    let (series, report) = (json(&site, "/api/v1/series?top=1"), json(&site, "/api/v1/report"));
    let sum = |of: &Value| -> u64 { of["bytes"].as_array().unwrap().iter().map(|bytes| bytes.as_u64().unwrap()).sum() };
    let rows: u64 = series["rows"].as_array().unwrap().iter().map(sum).sum();
    assert_eq!((rows, sum(&series["total"])), (4_000_000_000, 4_000_000_000));
    assert_eq!(report["total"]["bytes"], 4_000_000_000_u64);
    // 4 GB at 0.01 for each end, in two hours.
    assert_eq!(
        (&report["total"]["cost"]["usd"], &series["total"]["usd"]),
        (&"0.08".into(), &serde_json::json!(["0.04", "0.04"]))
    );
    assert_eq!(series["rows"].as_array().unwrap().len(), 2);
    assert_eq!(json(&site, "/api/v1/series?step=day")["total"]["usd"], serde_json::json!(["0.08"]));
}

#[test]
fn a_bad_question_gets_one_line_that_names_the_mistake() {
    let site = site(&["a", "b"]);
    let long = "x".repeat(10_000);
    for (address, status, start) in [
        ("/api/v1/report?by=pod", 400, "by: `pod` is none of"),
        ("/api/v1/report?x=1", 400, "`x` is none of from"),
        (&format!("/api/v1/report?from={long}"), 400, "from: `xxx"),
        ("/api/v1/series?step=minute", 400, "step: `minute` is neither"),
        ("/api/v1/series?compare=14d..7d", 400, "`compare` is no parameter"),
        ("/api/v1/series?output=csv", 400, "`output` is no parameter"),
        ("/api/v1/nodes?by=node", 400, "`by` is no parameter"),
        ("/api/v1/nodes?from=14d", 400, "the range has more than 8 days"),
        ("/api/v1/zones?x=1", 400, "`x` is no parameter"),
        (&format!("/api/v1/health?{long}=1"), 400, "`xxx"),
        ("/api/v1/prices?by=1", 400, "`by` is no parameter"),
        ("/api/v1/advice?floor=x", 400, "floor: `x` is no amount"),
        ("/api/v1/advice?explain=r9", 400, "explain: there is no finding `r9`"),
        ("/api/v1/whatif", 400, ""),
        ("/api/v1/nothing", 404, "there is no /api/v1/nothing here"),
        (&format!("/{long}"), 404, "there is no /xxx"),
        ("/api/v1/report\u{1b}[31m\n", 404, "there is no /api/v1/report[31m here"),
    ] {
        let answer = ask(&site, address);
        assert_eq!((answer.status, answer.content_type), (status, TEXT), "{address}");
        assert!(answer.body.starts_with(start) && answer.body.len() < 300, "{}", answer.body);
        assert_eq!(answer.body.find('\n'), Some(answer.body.len() - 1), "{}", answer.body);
    }
    let page = ask(&site, "/?from=<b>");
    assert_eq!((page.status, page.content_type), (400, HTML));
    assert!(page.body.contains("from: `&lt;b&gt;` is not a time"), "{}", page.body);
}

#[test]
fn without_a_history_the_page_says_so_and_offers_the_counters() {
    let site = Site { history: None, source: Some(Arc::new(Fixed { zones: 2, nodes: 1 })), catalogue: None };
    assert!(ask(&site, "/").body.contains("no history is kept here"));
    assert_eq!(ask(&site, "/api/v1/report").status, 404);
    assert_eq!(json(&site, "/api/v1/health")["offers"], serde_json::json!(["health", "zones"]));
    let nothing = Site::default();
    assert_eq!(ask(&nothing, "/api/v1/zones").status, 404);
    assert_eq!(json(&nothing, "/api/v1/health")["offers"], serde_json::json!(["health"]));
}

#[test]
fn what_is_beyond_a_bound_is_a_number_of_its_own() {
    let site = Site { history: None, source: Some(Arc::new(Fixed { zones: 12_000, nodes: 12_000 })), catalogue: None };
    let zones = json(&site, "/api/v1/zones");
    assert_eq!((zones["matrix"].as_array().unwrap().len(), zones["omitted_packets"].as_u64()), (10_000, Some(2000)));
    let health = json(&site, "/api/v1/health");
    assert_eq!((health["nodes"].as_array().unwrap().len(), health["omitted_nodes"].as_u64()), (10_000, Some(2000)));

    let names: Vec<String> = (0..100).map(|zone| format!("z{zone:02}")).collect();
    let site = self::site(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let series = json(&site, "/api/v1/series?top=1000");
    // Fifty, and the others.
    assert_eq!(series["rows"].as_array().unwrap().len(), 51);
    assert_eq!(ask(&site, "/").body.matches("<th scope=\"row\">").count(), 32);
}

#[test]
fn the_first_table_has_the_numbers_and_names_do_not_leave_their_cells() {
    let hostile = "<img src=x onerror=alert(1)>\u{202e}\u{1b}]0;x\u{7}\"'&";
    let site = site(&["us-east-1a", "us-east-1b", hostile]);
    let page = ask(&site, "/");
    assert_eq!((page.status, page.content_type), (200, HTML));
    let cell = "<td class=\"cross-zone\"><span class=\"bytes\">2.0 GB</span><span class=\"money\">$";
    assert_eq!(page.body.matches(cell).count(), 2, "{}", page.body);
    assert!(page.body.contains("&lt;img src=x onerror=alert(1)&gt;\u{fffd}\u{fffd}]0;x\u{fffd}&quot;&#39;&amp;"));
    assert!(!page.body.contains(['\u{1b}', '\u{202e}']) && !page.body.contains("<img src=x"));
    // In JSON a name is as it was.
    let rows = json(&site, "/api/v1/report");
    assert!(rows["rows"].as_array().unwrap().iter().any(|row| row["key"]["destination_zone"] == hostile));
}

#[test]
fn what_has_no_price_is_never_shown_as_free() {
    let site = site(&["a", "b"]);
    let historian = Historian::in_memory(PriceTable::default(), NOW);
    let mut accounting = Accounting::new(100, false).with_growth();
    let end = |zone: &str| TransferEnd { address: None, endpoint: None, place: place(zone), external: None };
    let (source, destination) = (end("dc-1"), end("dc-2"));
    let transfer = Transfer { source: &source, destination: &destination, service: Service::default() };
    accounting.add(&transfer, Counter { bytes: 1000, packets: 1 }, Instant::now());
    let grown = accounting.growth_mut().unwrap().take(true);
    let (elapsed, directory) = (Duration::from_secs(60), Directory::default());
    historian.tick(&Tick { now: NOW, elapsed, grown: &grown, directory: &directory, nodes: &[] });
    let unpriced = Site { history: Some(Arc::new(historian)), ..site };
    let page = ask(&unpriced, "/").body;
    assert!(page.contains("<span class=\"money\">unpriced</span>") && !page.contains("$0"), "{page}");
}
