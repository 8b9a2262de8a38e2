//! The counters as lines of text, for pipes and for `--plain`: totals, and rates since the answer before.

use super::readings::{bytes, caveats};
use crate::{
    cli::plain::plain,
    proto::v1::{PlacedEndpoint, PodPair, WatchResponse},
    units::human,
};
use std::{collections::BTreeMap, fmt::Write};

/// The nodes of the counters: as many names as fit into a line.
fn whose(nodes: &[String]) -> String {
    if nodes.len() <= 4 { plain(&nodes.join(", ")) } else { format!("{} nodes", nodes.len()) }
}

/// Totals, and rates since the answer before.
pub(super) fn picture(answer: &WatchResponse, before: Option<&WatchResponse>) -> String {
    let seconds = before.and_then(|before| seconds_between(before, answer)).filter(|seconds| *seconds > 0.0);
    let rate = |now: u64, then: u64| {
        let per_second = seconds.map(|seconds| (now.saturating_sub(then) as f64 / seconds) as u64);
        per_second.map_or_else(|| "-".to_owned(), |bytes| format!("{}/s", human(bytes)))
    };
    let mut text =
        format!("{}: bytes that left since the programs were loaded, as on the wire\n\n", whose(&answer.nodes));

    let known = before.map(zones).unwrap_or_default();
    let mut sums: Vec<_> = zones(answer).into_iter().collect();
    sums.sort_by_key(|((locality, ..), _)| order(locality));
    let row = |(key, bytes): ((String, String, String), u64)| {
        let rate = rate(bytes, known.get(&key).copied().unwrap_or_default());
        let (locality, source, destination) = key;
        [source, destination, locality, human(bytes), rate]
    };
    text.push_str(&table(["FROM", "TO", "LOCALITY", "BYTES", "RATE"], sums.into_iter().map(row).collect()));

    if !answer.pairs.is_empty() {
        let known: BTreeMap<_, u64> =
            before.into_iter().flat_map(|before| &before.pairs).map(|pair| (key(pair), bytes(pair.counter))).collect();
        let row = |pair: &PodPair| {
            let total = bytes(pair.counter);
            // A pair that was not listed before: how fast it grows is known with the next picture.
            let rate = known.get(&key(pair)).map_or_else(|| "-".to_owned(), |then| rate(total, *then));
            let (source, destination) = (name(pair.source.as_ref()), name(pair.destination.as_ref()));
            [source, destination, pair.locality.clone(), human(total), rate]
        };
        let mut rows: Vec<_> = answer.pairs.iter().map(row).collect();
        let others = human(bytes(answer.other_pairs));
        rows.push(["all others".into(), String::new(), String::new(), others, String::new()]);
        text.push('\n');
        text.push_str(&table(["SOURCE", "DESTINATION", "LOCALITY", "BYTES", "RATE"], rows));
    }
    let noted: Vec<String> =
        caveats(answer).iter().map(|(reason, bytes)| format!("{reason} {}", human(*bytes))).collect();
    if !noted.is_empty() {
        // Writing to a string can't fail.
        let _ = writeln!(text, "\nnoted: {}", noted.join(", "));
    }
    text
}

/// Columns as wide as their contents; the last two are numbers.
fn table(head: [&str; 5], rows: Vec<[String; 5]>) -> String {
    let rows: Vec<_> =
        std::iter::once(head.map(str::to_owned)).chain(rows).map(|row| row.map(|cell| plain(&cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0..=2 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn seconds_between(before: &WatchResponse, after: &WatchResponse) -> Option<f64> {
    let seconds = |answer: &WatchResponse| answer.time.map(|time| time.seconds as f64 + f64::from(time.nanos) / 1e9);
    Some(seconds(after)? - seconds(before)?)
}

/// Bytes by locality and zones, both IP versions together.
fn zones(answer: &WatchResponse) -> BTreeMap<(String, String, String), u64> {
    let mut sums = BTreeMap::new();
    for pair in &answer.zones {
        let zone = |place: &Option<crate::proto::v1::Place>| place.as_ref().map_or("", |place| &place.zone).to_owned();
        let key = (pair.locality.clone(), zone(&pair.source), zone(&pair.destination));
        *sums.entry(key).or_default() += bytes(pair.counter);
    }
    sums
}

/// The most expensive rows come first.
fn order(locality: &str) -> usize {
    let order = ["cross-region", "cross-zone", "internet", "unknown"];
    order.iter().position(|known| *known == locality).unwrap_or(order.len())
}

fn key(pair: &PodPair) -> (String, String, &str) {
    (name(pair.source.as_ref()), name(pair.destination.as_ref()), &pair.locality)
}

/// `namespace/pod zone`.
fn name(end: Option<&PlacedEndpoint>) -> String {
    let Some(end) = end else { return String::new() };
    let zone = end.place.as_ref().map_or("", |place| &place.zone);
    if end.pod.is_empty() { format!("? {zone}") } else { format!("{}/{} {zone}", end.namespace, end.pod) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::plain::tests::{HOSTILE, is_harmless},
        proto::v1::{Counter, Place, Reason, ZonePair},
    };

    fn answer(seconds: i64, bytes: u64) -> WatchResponse {
        let place = |zone: &str| Some(Place { zone: zone.into(), region: "eu-1".into() });
        let counter = Some(Counter { bytes, packets: 1 });
        let end = |pod: &str, zone: &str| {
            Some(PlacedEndpoint {
                namespace: "shop".into(),
                pod: pod.into(),
                place: place(zone),
                ..PlacedEndpoint::default()
            })
        };
        let zone = |to: &str, locality: &str, ip_version| ZonePair {
            source: place("eu-1a"),
            destination: place(to),
            locality: locality.into(),
            ip_version,
            direction: "egress".into(),
            counter,
        };
        WatchResponse {
            time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            nodes: vec!["node-a".into()],
            zones: vec![zone("eu-1a", "same-zone", 4), zone("eu-1b", "cross-zone", 4), zone("eu-1b", "cross-zone", 6)],
            pairs: vec![PodPair {
                source: end("cart-0", "eu-1a"),
                destination: end("db-0", "eu-1b"),
                locality: "cross-zone".into(),
                counter,
            }],
            other_pairs: counter,
            reasons: vec![Reason { name: "unattributed".into(), outside: false, counter }],
            missed: 0,
        }
    }

    #[test]
    fn a_picture_of_hostile_names_obeys_none_of_them() {
        let mut answer = answer(10, 1000);
        let name = || HOSTILE.to_owned();
        answer.nodes = vec![name()];
        answer.reasons[0].name = name();
        let place = Some(Place { zone: name(), region: name() });
        answer.zones[1] = ZonePair { destination: place.clone(), locality: name(), ..answer.zones[1].clone() };
        let end = PlacedEndpoint { namespace: name(), pod: name(), workload: name(), workload_kind: name(), place };
        answer.pairs[0] = PodPair { source: Some(end), locality: name(), ..answer.pairs[0].clone() };
        let text = picture(&answer, None);
        assert!(is_harmless(&text), "{text}");
    }

    #[test]
    fn a_picture_has_totals_and_rates() {
        let (first, second) = (answer(10, 1000), answer(12, 5000));
        assert!(!picture(&first, None).contains("/s"));
        let picture = picture(&second, Some(&first));
        let expected = "\
node-a: bytes that left since the programs were loaded, as on the wire

FROM   TO     LOCALITY      BYTES      RATE
eu-1a  eu-1b  cross-zone  10.0 kB  4.0 kB/s
eu-1a  eu-1a  same-zone    5.0 kB  2.0 kB/s

SOURCE             DESTINATION      LOCALITY     BYTES      RATE
shop/cart-0 eu-1a  shop/db-0 eu-1b  cross-zone  5.0 kB  2.0 kB/s
all others                                      5.0 kB

noted: unattributed 5.0 kB
";
        assert_eq!(picture, expected);
    }
}
