//! Sums by every key, hand calculations, and what coverage shows.

use super::*;
use crate::{
    budget::Budgets,
    cost::{Money, PriceTable},
    history::{Block, Builder, Ends, Server, Span, TransferService, Workload},
    zones::{Class, Locality, Location, Place, Provider, Zone},
};
use meridian_abi::Counter;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

fn at(provider: &str, region: &str, zone: &str, class: Option<Class>) -> Location {
    let place = match zone {
        "internet" => Place::Internet,
        "unknown" => Place::Unknown,
        _ => Place::Zone(Arc::new(Zone { name: zone.into(), region: region.into() })),
    };
    Location { provider: Provider::new(provider), place, class }
}

fn workload(namespace: &str, name: &str, team: &str) -> Workload {
    let labels = BTreeMap::from([("team".to_owned(), team.to_owned())]);
    Workload { namespace: namespace.into(), kind: "Deployment".into(), name: name.into(), labels }
}

const BY: [&str; 9] = [
    "zone-pair",
    "namespace-pair",
    "workload-pair",
    "namespace",
    "workload",
    "service",
    "node",
    "region",
    "label:team",
];

fn statement(blocks: &[Block], query: Query, prices: &PriceTable) -> Statement {
    let mut summary = Summary::new(query, prices);
    blocks.iter().for_each(|block| summary.add(block));
    summary.finish()
}

fn by(text: &str, charge: ChargeTo) -> Query {
    Query { by: text.parse().unwrap(), charge, ..Query::default() }
}

/// web (us-east-1a) asks cart (us-east-1b), which answers; cart asks a database across zones.
fn story() -> Block {
    let mut builder = Builder::new(Span::hour_of(1_764_000_000), 1000);
    let (a, b) = (at("aws", "us-east-1", "us-east-1a", None), at("aws", "us-east-1", "us-east-1b", None));
    let db = at("aws", "us-east-1", "us-east-1a", Some(Class::Database));
    let (web, cart) = (workload("shop", "web", "front"), workload("shop", "cart", "back"));
    let orders = Workload { kind: "database".into(), name: "orders".into(), ..Workload::default() };
    let mut add = |workloads: [&Workload; 2], sites: [&Location; 2], server, gigabytes: u64| {
        let counter = Counter { bytes: gigabytes * 1_000_000_000, packets: gigabytes };
        builder.add(
            Ends { workloads, sites },
            TransferService { service: "shop/cart", port: 6379, protocol: 6, server },
            counter,
        );
        builder.add_nodes(["n1", "n2"], sites, counter);
    };
    add([&web, &cart], [&a, &b], Server::Destination, 1);
    add([&cart, &web], [&b, &a], Server::Source, 10);
    add([&cart, &orders], [&b, &db], Server::Destination, 2);
    add([&orders, &cart], [&db, &b], Server::Source, 3);
    builder.cover("n1", "", 3600);
    builder.cover("n2", "", 1800);
    builder.add_recorded(3600);
    builder.block()
}

fn costs(statement: &Statement) -> Vec<(String, String)> {
    let name = |row: &Row| row.key.last().unwrap().1.clone();
    statement.rows.iter().map(|row| (name(row), row.sum.cost.exact())).collect()
}

#[test]
fn the_ends_pay_their_own_part_or_the_client_both() {
    let (block, prices) = ([story()], PriceTable::default());
    let ends = statement(&block, by("workload", ChargeTo::Ends), &prices);
    // cart: sends 10 + 2, receives 1 + 3; web: sends 1, receives 10; the database's own end is free.
    assert_eq!(
        costs(&ends),
        [("cart".into(), "0.16".into()), ("web".into(), "0.11".into()), ("orders".into(), "0".into())]
    );
    assert_eq!(ends.total.cost.exact(), "0.27");
    let client = statement(&block, by("workload", ChargeTo::Client), &prices);
    // web is the client of 11 GB at 0.02; cart of the database, its own end: 5 GB at 0.01.
    assert_eq!(costs(&client), [("web".into(), "0.22".into()), ("cart".into(), "0.05".into())]);
    assert_eq!(client.total.cost, ends.total.cost);
    let teams = statement(&block, by("label:team", ChargeTo::Client), &prices);
    assert_eq!(costs(&teams), [("front".into(), "0.22".into()), ("back".into(), "0.05".into())]);
    let nodes = statement(&block, by("node", ChargeTo::Ends), &prices);
    assert_eq!(nodes.total.cost, ends.total.cost);
    assert_eq!(ends.total.rules, BTreeSet::from(["aws-zones".to_owned()]));
}

/// What a client sends and a server answers, between two places.
fn exchange(client: &Location, server: &Location, [request, answer]: [u64; 2]) -> Block {
    let mut builder = Builder::new(Span::hour_of(1_764_000_000), 100);
    let workloads = [workload("shop", "client", "a"), workload("shop", "server", "b")];
    let mut add = |from: usize, sites: [&Location; 2], server, bytes| {
        let ends = Ends { workloads: [&workloads[from], &workloads[1 - from]], sites };
        builder.add(ends, TransferService { server, ..TransferService::default() }, Counter { bytes, packets: 1 });
    };
    add(0, [client, server], Server::Destination, request);
    add(1, [server, client], Server::Source, answer);
    builder.block()
}

#[test]
fn dollars_equal_a_hand_calculation_for_every_provider_and_both_ways_to_charge() {
    const GB: u64 = 1_000_000_000;
    const GIB: u64 = 1 << 30;
    let own = "rules: [{id: dc, from_zones: \"dc-*\", to_zones: \"dc-*\", sender: \"0.002\", receiver: \"0.0005\"}]";
    let prices = PriceTable::parse(Path::new("prices.yaml"), own.as_bytes()).unwrap();
    let zone = |provider: &str, region: &str, zone: &str| at(provider, region, zone, None);
    let (a, b) = (zone("aws", "us-east-1", "us-east-1a"), zone("aws", "us-east-1", "us-east-1b"));
    let database = at("aws", "us-east-1", "us-east-1b", Some(Class::Database));
    let gcp = ["a", "b"].map(|name| zone("gcp", "us-central1", &format!("us-central1-{name}")));
    let azure = ["1", "2"].map(|name| zone("azure", "westeurope", &format!("westeurope-{name}")));
    let dc = ["dc-1", "dc-2"].map(|name| zone("", "dc", name));
    let china = ["a", "b"].map(|name| zone("aws", "cn-north-1", &format!("cn-north-1{name}")));
    // The client sends 3 units, the server 5. Client and server as the ends, then the client for both.
    let cases = [
        // AWS: (3 + 5) GB at 0.01 for each end.
        ([&a, &b], GB, ["0.08", "0.08"], ["0.16", "0"], 0),
        // Google Cloud: the sender of each GiB.
        ([&gcp[0], &gcp[1]], GIB, ["0.03", "0.05"], ["0.08", "0"], 0),
        // Azure charges nothing, which is a price.
        ([&azure[0], &azure[1]], GB, ["0", "0"], ["0", "0"], 0),
        // Own prices: 3 × 0.002 + 5 × 0.0005, 5 × 0.002 + 3 × 0.0005.
        ([&dc[0], &dc[1]], GB, ["0.0085", "0.0115"], ["0.02", "0"], 0),
        // A database on AWS: the client's own end alone.
        ([&a, &database], GB, ["0.08", "0"], ["0.08", "0"], 0),
        // AWS in China: no price is known.
        ([&china[0], &china[1]], GB, ["0", "0"], ["0", "0"], 8 * GB),
    ];
    for ([client, server], unit, ends, of_client, unpriced) in cases {
        let block = [exchange(client, server, [3 * unit, 5 * unit])];
        for (charge, expected) in [(ChargeTo::Ends, ends), (ChargeTo::Client, of_client)] {
            let statement = statement(&block, by("workload", charge), &prices);
            let of = |name: &str| {
                let row = statement.rows.iter().find(|row| row.key.last().unwrap().1 == name);
                row.map_or_else(|| "0".to_owned(), |row| row.sum.cost.exact())
            };
            assert_eq!([of("client"), of("server")], expected, "{client} {charge:?}");
            assert_eq!((statement.total.counter.bytes, statement.total.unpriced_bytes), (8 * unit, unpriced));
            assert_eq!(statement.rows.iter().map(|row| row.sum.cost).sum::<Money>(), statement.total.cost);
        }
    }
}

#[test]
fn a_budget_has_what_the_month_has_cost_and_its_projection() {
    let budgets = "budgets:\n- {namespace: shop, usd_per_month: \"100\"}\n- {name: fronts, label: team=front, usd_per_month: \"0.1\"}\n- {namespace: none, usd_per_month: \"1\"}\n";
    let budgets = Budgets::parse(Path::new("budgets.yaml"), budgets.as_bytes()).unwrap();
    let prices = PriceTable::default();
    // An hour of 2025-11-24, and now is the end of that day: of the month, six days are left.
    let now = 1_764_028_800;
    let mut sums = BudgetSums::new(&budgets, &prices, now);
    assert_eq!(sums.range(), (1_761_955_200, now + 3600));
    let old = Block { span: Span::hour_of(1_761_955_200 - 3600), ..story() };
    let week_ago = Block { span: Span::hour_of(1_761_955_200), ..story() };
    [&old, &week_ago, &story()].into_iter().for_each(|block| sums.add(block));
    let states = sums.finish();
    let found: Vec<(&str, String, String)> =
        states.iter().map(|state| (state.budget.name.as_str(), state.spent.exact(), state.projected.exact())).collect();
    // The hour costs 0.27, of which web's part is 0.11; two are of the month; one of the last week, times 144.
    let expected = [("shop", "0.54", "39.42"), ("fronts", "0.22", "16.06"), ("none", "0", "0")];
    assert_eq!(found, expected.map(|(name, spent, projected)| (name, spent.to_owned(), projected.to_owned())));
    assert_eq!(states[0].line(), "Budget of namespace shop: 0.54 of 100.00 USD this month, 39.42 projected.");
    let line = "Budget of fronts, label team=front: 0.22 of 0.10 USD this month, 16.06 projected: passed.";
    assert_eq!(states[1].line(), line);
    let statement = Statement { budgets: states, ..statement(&[story()], Query::default(), &prices) };
    assert!(statement.table().contains(line) && statement.markdown().contains(line));
    assert_eq!(statement.json()["budgets"][1]["projected_usd"], "16.06");
}

#[test]
fn a_month_ends_with_its_last_day_and_a_history_without_a_past_projects_nothing() {
    let budgets = Budgets::parse(Path::new("b"), b"budgets: [{namespace: a, usd_per_month: \"1\"}]").unwrap();
    let prices = PriceTable::default();
    for now in [0, 1_735_689_599, 1_735_689_600, 253_402_300_799, u64::MAX] {
        let states = BudgetSums::new(&budgets, &prices, now).finish();
        assert_eq!((states[0].spent, states[0].projected), (Money::ZERO, Money::ZERO));
    }
}

#[test]
fn rows_sum_up_to_the_total_whatever_they_are_of() {
    let mut random = StdRng::seed_from_u64(9);
    let sites = [
        at("aws", "us-east-1", "us-east-1a", None),
        at("aws", "us-east-1", "us-east-1b", None),
        at("aws", "eu-west-1", "eu-west-1a", None),
        at("gcp", "us-central1", "us-central1-a", None),
        at("gcp", "us-central1", "us-central1-b", None),
        at("azure", "eastus", "eastus-1", None),
        at("azure", "eastus", "eastus-2", None),
        at("aws", "us-east-1", "us-east-1b", Some(Class::Database)),
        at("", "", "internet", None),
        at("", "", "unknown", None),
        at("kind", "r", "z", None),
    ];
    let mut blocks = Vec::new();
    for hour in 0..5 {
        let mut builder = Builder::new(Span::hour_of(1_764_000_000 + hour * 3600), 1000);
        for _ in 0..400 {
            let mut below = |limit: usize| random.random_range(0..limit);
            let workloads = [below(30), below(30)]
                .map(|n| workload(&format!("ns{}", n % 4), &format!("w{n}"), &format!("t{}", n % 3)));
            let pair = [&sites[below(sites.len())], &sites[below(sites.len())]];
            let (server, service) = (Server::ALL[below(3)], ["", "ns1/a", "ns2/b"][below(3)]);
            let counter = Counter { bytes: below(1 << 40) as u64, packets: below(1 << 20) as u64 };
            let nodes = [format!("n{}", below(5)), format!("n{}", below(5))];
            builder.add(
                Ends { workloads: workloads.each_ref(), sites: pair },
                TransferService { service, port: 1, protocol: 6, server },
                counter,
            );
            builder.add_nodes([&nodes[0], &nodes[1]], pair, counter);
        }
        blocks.push(builder.block());
    }
    let prices = PriceTable::parse(
        Path::new("p"),
        b"discount: \"7.77%\"\nrules: [{id: x, provider: kind, sender: \"0.123456\"}]\n",
    )
    .unwrap();
    for localities in [Query::LOCALITIES.to_vec(), Locality::ALL.to_vec()] {
        let mut totals: Vec<Sum> = Vec::new();
        for dimension in BY {
            for charge in [ChargeTo::Ends, ChargeTo::Client] {
                for top in [None, Some(2)] {
                    let query = Query { localities: localities.clone(), top, ..by(dimension, charge) };
                    let statement = statement(&blocks, query, &prices);
                    let mut sum = Sum::default();
                    statement.rows.iter().for_each(|row| sum.add(&row.sum));
                    assert_eq!(sum, statement.total, "{dimension}");
                    assert!(top.is_none_or(|top| statement.rows.len() <= top + 1));
                    totals.push(statement.total);
                }
            }
        }
        assert!(totals.iter().all(|total| *total == totals[0]), "{totals:?}");
        let bytes: u64 = blocks
            .iter()
            .flat_map(|block| block.transfers.iter().map(move |row| (block, row)))
            .filter(|(block, row)| {
                let [from, to] = row.key.sites.map(|site| &block.sites[site as usize].place);
                localities.contains(&Locality::between(from, to))
            })
            .map(|(_, row)| row.counter.bytes)
            .sum();
        assert_eq!((totals[0].counter.bytes, totals[0].received.bytes), (bytes, bytes));
        assert!(totals[0].unpriced_bytes > 0 && totals[0].cost > Money::ZERO);
    }
}

#[test]
fn an_hour_that_is_not_there_and_a_silent_node_are_in_the_coverage() {
    let mut later = story();
    later.span.start += 7200;
    let statement = statement(&[story(), later], Query::default(), &PriceTable::default());
    let coverage = &statement.coverage;
    assert_eq!((coverage.seconds(), coverage.recorded_seconds(), coverage.nodes()), (3 * 3600, 7200, 2));
    assert_eq!(coverage.silent().collect::<Vec<_>>(), [("n2", 50)]);
    let table = statement.table();
    assert!(table.contains("recorded 66 % of the time, 2 nodes, partly silent: n2 (50 %)"), "{table}");
}

#[test]
fn the_forms_have_the_same_contents() {
    let statement = statement(&[story()], by("workload", ChargeTo::Ends), &PriceTable::default());
    let json = statement.json();
    assert_eq!(
        json["rows"][0]["key"],
        serde_json::json!({"namespace": "shop", "kind": "Deployment", "workload": "cart"})
    );
    assert_eq!(
        json["rows"][0]["cost"],
        serde_json::json!({"usd": "0.16", "usd_per_month": "116.8", "unpriced_bytes": 0, "rules": ["aws-zones"]})
    );
    assert_eq!(
        (&json["rows"][0]["bytes"], &json["rows"][0]["received_bytes"]),
        (&12_000_000_000_u64.into(), &4_000_000_000_u64.into())
    );
    assert_eq!((&json["total"]["cost"]["usd"], &json["from"]), (&"0.27".into(), &"2025-11-24T16:00:00Z".into()));
    let csv = statement.csv();
    assert!(csv.starts_with("namespace,kind,workload,bytes,packets,received_bytes,received_packets,usd,unpriced_bytes,rules\nshop,Deployment,cart,12000000000,12,4000000000,4,0.16,0,aws-zones\n"), "{csv}");
    let table = statement.table();
    assert!(table.lines().nth(1).unwrap().contains("cart") && table.contains("116.80"), "{table}");
    assert!(statement.markdown().starts_with("| NAMESPACE | KIND | WORKLOAD | SENT |"));
}
