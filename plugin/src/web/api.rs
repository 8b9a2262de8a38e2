//! The answers of the API besides those of the history, as JSON. `openapi.json` describes them.

use super::source::{Counts, Health, NodeHealth};
use crate::{
    cost::PriceTable,
    historian::Historian,
    zones::{Pair, Place},
};
use jiff::Timestamp;
use meridian_abi::{Counter, IpVersion, stats::Stat};
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::BTreeMap, sync::atomic::Ordering, time::SystemTime};

/// The largest numbers of pairs of zones, and of nodes, in an answer.
const MAX_PAIRS: usize = 10_000;
const MAX_NODES: usize = 10_000;

/// A time as RFC 3339 in UTC.
pub(super) fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().round(jiff::Unit::Second).unwrap_or_default().to_string()
}

/// The counters by zone pair.
pub(super) fn zones(counts: Counts) -> Value {
    let mut zones: BTreeMap<&str, &str> = BTreeMap::new();
    let mut cells: Vec<(&Pair, Counter)> =
        counts.matrix.cells().filter(|(_, sum)| *sum != Counter::default()).collect();
    for place in cells.iter().flat_map(|(pair, _)| [&pair.source, &pair.destination]) {
        if let Place::Zone(zone) = place {
            zones.insert(&zone.name, &zone.region);
        }
    }
    cells.sort_by_key(|(pair, counter)| (Reverse(counter.bytes), *pair));
    let omitted: Counter = cells.iter().skip(MAX_PAIRS).map(|(_, counter)| *counter).sum();
    json!({
        "time": counts.time.map(time),
        "nodes": counts.nodes,
        "zones": zones.iter().map(|(zone, region)| json!({ "zone": zone, "region": region })).collect::<Vec<_>>(),
        "matrix": cells.iter().take(MAX_PAIRS).map(|(pair, counter)| cell(pair, *counter)).collect::<Vec<_>>(),
        "omitted_bytes": omitted.bytes,
        "omitted_packets": omitted.packets,
    })
}

fn cell(pair: &Pair, Counter { bytes, packets }: Counter) -> Value {
    let version = match pair.version {
        IpVersion::V4 => 4,
        IpVersion::V6 => 6,
    };
    json!({
        "source_zone": pair.source.name(),
        "destination_zone": pair.destination.name(),
        "locality": pair.locality().name(),
        "ip_version": version,
        "direction": pair.direction.name(),
        "bytes": bytes,
        "packets": packets,
    })
}

/// The state of the process and of its nodes.
pub(super) fn health(health: &Health, history: Option<&Historian>) -> Value {
    let history = history.map(|history| {
        let ((blocks, bytes), tally) = (history.size(), history.tally());
        json!({
            "blocks": blocks,
            "bytes": bytes,
            "failed_writes": tally.failed.load(Ordering::Relaxed),
            "damaged_blocks": tally.damaged.load(Ordering::Relaxed),
        })
    });
    let agents = health.agents.map(|agents| json!({ "connected": agents.connected, "behind": agents.behind }));
    let stats = health.stats.iter().filter(|(_, counter)| *counter != Counter::default());
    json!({
        "program": health.program,
        "version": env!("CARGO_PKG_VERSION"),
        "leader": health.is_leader,
        "history": history,
        "agents": agents,
        "nodes": health.nodes.iter().take(MAX_NODES).map(node).collect::<Vec<_>>(),
        "omitted_nodes": health.nodes.len().saturating_sub(MAX_NODES),
        "reasons": stats.map(reason).collect::<Vec<_>>(),
    })
}

fn node(node: &NodeHealth) -> Value {
    json!({
        "node": node.name,
        "age_seconds": node.age.map(|age| age.as_secs()),
        "silent": node.is_silent,
        "hook": node.hook.as_ref().map(|(hook, _)| hook),
        "hook_reason": node.hook.as_ref().map(|(_, reason)| reason),
    })
}

fn reason((stat, counter): &(Stat, Counter)) -> Value {
    json!({
        "reason": stat.name(),
        "counted": !stat.is_outside(),
        "bytes": counter.bytes,
        "packets": counter.packets,
    })
}

/// The price rules in the order in which they are tried.
pub(super) fn prices(prices: &PriceTable) -> Value {
    json!({ "rules": prices.rules().map(|(rule, own)| rule.json(own)).collect::<Vec<_>>() })
}
