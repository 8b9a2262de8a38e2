//! Hours, disks that fail, clocks, prices and budgets.

use super::*;
use crate::{
    accounting::{Accounting, Service, Transfer, TransferEnd},
    statement::{Dimension, OutputFormat},
    zones::{Place, Zone},
};
use meridian_abi::Counter;
use std::{fs, time::Instant};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("meridian-historian-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self, now: u64) -> Historian {
        Historian::open(&self.0, Limits::default(), PriceTable::default(), now).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn grown(bytes: u64) -> TrafficDelta {
    let place = |name: &str| Place::Zone(Arc::new(Zone { name: name.into(), region: "r".into() }));
    let end = |zone| TransferEnd { address: None, endpoint: None, place: place(zone), external: None };
    let mut accounting = Accounting::new(10, false).with_growth();
    let transfer = Transfer { source: &end("a"), destination: &end("b"), service: Service::default() };
    accounting.add(&transfer, Counter { bytes, packets: 1 }, Instant::now());
    accounting.growth_mut().unwrap().take(false)
}

fn tick(historian: &Historian, now: u64, bytes: u64) {
    let nodes = [NodeSeen { name: "n".into(), provider_id: String::new(), is_heard: true }];
    let (grown, directory, elapsed) = (grown(bytes), Directory::default(), Duration::from_secs(10));
    historian.tick(&Tick { now, elapsed, grown: &grown, directory: &directory, nodes: &nodes });
}

fn seen(historian: &Historian) -> (u64, u64) {
    let query = Query { by: Dimension::ZonePair, ..Query::default() };
    let statement = historian.statement(query, 0, 1 << 40).unwrap();
    (statement.total.counter.bytes, statement.coverage.recorded_seconds())
}

#[test]
fn an_hour_is_sealed_when_the_next_begins_and_continues_after_a_restart() {
    let scratch = Scratch::new("hours");
    let historian = scratch.open(3590);
    tick(&historian, 3595, 1);
    tick(&historian, 3605, 2);
    assert_eq!((historian.size().0, seen(&historian)), (1, (3, 20)));
    historian.save();
    drop(historian);
    let historian = scratch.open(3620);
    assert_eq!(seen(&historian), (3, 20));
    tick(&historian, 3630, 4);
    assert_eq!(seen(&historian), (7, 30));
}

#[test]
fn after_a_kill_the_unwritten_part_is_missing_from_bytes_and_coverage() {
    let scratch = Scratch::new("killed");
    let historian = scratch.open(0);
    tick(&historian, 10, 1);
    historian.save();
    tick(&historian, 20, 2);
    drop(historian);
    assert_eq!(seen(&scratch.open(30)), (1, 10));
}

#[test]
fn changed_prices_and_budgets_are_in_force_and_bad_ones_are_refused() {
    let scratch = Scratch::new("followed");
    fs::create_dir_all(&scratch.0).unwrap();
    let (prices, budgets) = (scratch.0.join("prices.yaml"), scratch.0.join("budgets.yaml"));
    let price = |dollars: &str| fs::write(&prices, format!("rules: [{{id: own, sender: \"{dollars}\"}}]\n")).unwrap();
    let limit = |text: &str| fs::write(&budgets, text).unwrap();
    price("0.5");
    limit("budgets: [{name: all, namespace: \"\", usd_per_month: \"1\"}]\n");
    assert!(Budgets::read(&budgets).is_err(), "no namespace has no name");
    limit("budgets: [{namespace: shop, usd_per_month: \"1\"}]\n");
    let settings = Settings {
        prices: PriceTable::read(&prices).unwrap(),
        prices_file: Some(prices.clone()),
        budgets: Budgets::read(&budgets).unwrap(),
        budgets_file: Some(budgets.clone()),
        labels: vec!["team".into(), "app".into()],
        ..Settings::default()
    };
    let historian = scratch.open(0).following(&settings);
    let usd = |historian: &Historian| historian.statement(Query::default(), 0, 1 << 40).unwrap().total.cost.exact();
    let reloads = |historian: &Historian| historian.reloads().map(|(_, counts)| counts).collect::<Vec<_>>();
    tick(&historian, 10, 1_000_000_000);
    historian.attend(10);
    assert_eq!((usd(&historian).as_str(), reloads(&historian)), ("0.5", vec![[0, 0]; 2]));
    assert_eq!(historian.budgets()[0].budget.name, "shop");
    price("0.25");
    limit("budgets: [{label: team=a, usd_per_month: \"2\"}, {label: tier=b, usd_per_month: \"2\"}]\n");
    historian.attend(20);
    assert_eq!((usd(&historian).as_str(), reloads(&historian)), ("0.25", vec![[1, 0]; 2]));
    assert_eq!(historian.labels(), ["team", "app", "tier"]);
    assert_eq!(historian.budgets()[0].budget.limit.exact(), "2");
    price("much");
    limit("budgets: 7\n");
    historian.attend(30);
    assert_eq!((usd(&historian).as_str(), reloads(&historian)), ("0.25", vec![[1, 1]; 2]));
    assert_eq!(historian.budgets().len(), 2);
    fs::remove_file(&prices).unwrap();
    historian.attend(40);
    assert_eq!((usd(&historian).as_str(), reloads(&historian)), ("0.25", vec![[1, 1]; 2]));
}

#[test]
fn a_clock_that_is_set_back_an_hour_counts_nothing_twice() {
    let scratch = Scratch::new("clock");
    let historian = scratch.open(7200);
    tick(&historian, 7210, 1);
    tick(&historian, 3610, 2);
    tick(&historian, 3620, 4);
    tick(&historian, 7220, 8);
    assert_eq!(seen(&historian), (15, 40));
}

#[test]
fn a_disk_that_fails_holds_nobody_and_the_hour_is_written_later() {
    let scratch = Scratch::new("disk");
    let historian = scratch.open(0);
    tick(&historian, 10, 1);
    let in_the_way = scratch.0.join("1970-01-01T00.new");
    fs::create_dir(&in_the_way).unwrap();
    historian.save();
    tick(&historian, 20, 2);
    assert_eq!((historian.size().0, seen(&historian)), (0, (3, 20)));
    fs::remove_dir(&in_the_way).unwrap();
    historian.save();
    drop(historian);
    assert_eq!(seen(&scratch.open(30)), (3, 20));
}

#[test]
fn hours_that_end_while_the_disk_fails_are_in_reports_and_written_later() {
    let scratch = Scratch::new("disk-hours");
    let historian = scratch.open(0);
    let in_the_way = |hour: u64| scratch.0.join(format!("1970-01-01T{hour:02}.new"));
    (0..9).for_each(|hour| fs::create_dir(in_the_way(hour)).unwrap());
    tick(&historian, 10, 1);
    tick(&historian, 3610, 2);
    assert_eq!((historian.size().0, seen(&historian)), (0, (3, 20)));
    // Six hours are kept beside the open one.
    (2..9).for_each(|hour| tick(&historian, hour * 3600 + 10, 1 << hour));
    assert_eq!((historian.size().0, seen(&historian)), (0, (0b1_1111_1100, 70)));
    (0..9).for_each(|hour| fs::remove_dir(in_the_way(hour)).unwrap());
    historian.save();
    assert_eq!((historian.size().0, seen(&historian)), (7, (0b1_1111_1100, 70)));
    drop(historian);
    assert_eq!(seen(&scratch.open(9 * 3600)), (0b1_1111_1100, 70));
}

#[test]
fn a_comparison_has_the_hours_that_are_not_on_disk() {
    let scratch = Scratch::new("disk-compared");
    let historian = scratch.open(0);
    let week = 7 * 24 * 3600;
    tick(&historian, 10, 1_000_000);
    fs::create_dir(scratch.0.join("1970-01-08T00.new")).unwrap();
    tick(&historian, week + 10, 2_000_000);
    let verdict = || {
        let (from, to, compare) = (week, week + 3600, Some((0, 3600)));
        let question = StatementRequest { query: Query::default(), from, to, compare, form: OutputFormat::default() };
        historian.answer(question).unwrap().comparison.unwrap().verdict()
    };
    assert!(verdict().contains("(+100.0 %)"), "the open hour: {}", verdict());
    tick(&historian, week + 3610, 4_000_000);
    assert!(verdict().contains("(+100.0 %)"), "the hour that could not be written: {}", verdict());
}

#[test]
fn a_day_is_made_once_all_of_its_hours_are_written() {
    let scratch = Scratch::new("disk-day");
    let historian = scratch.open(0);
    let midnight = 24 * 3600;
    tick(&historian, midnight - 3600, 1);
    historian.save();
    let in_the_way = scratch.0.join("1970-01-01T23.new");
    fs::create_dir(&in_the_way).unwrap();
    tick(&historian, midnight - 10, 2);
    // The hour on disk is a part of the one in memory; every further hour can be written.
    tick(&historian, midnight + 10, 4);
    tick(&historian, midnight + 2 * 3600, 8);
    assert_eq!(seen(&historian), (15, 40));
    fs::remove_dir(&in_the_way).unwrap();
    tick(&historian, midnight + 3 * 3600, 16);
    assert_eq!(seen(&historian), (31, 50));
    let (mut days, mut blocks) = (0, 0);
    let range = (0, 2 * midnight);
    historian
        .read(range.0, range.1, |block| {
            days += usize::from(block.span.seconds == Span::DAY);
            blocks += 1;
        })
        .unwrap();
    assert_eq!((days, blocks), (1, 4));
}
