//! The limits of a report. An agent may be faulty or stolen, so its report must be about its own node, of a bounded
//! size, and in zones of the controller's table.

use crate::{
    proto::v1::{Counter, End, EndpointName, Place, ReportRequest, ZonePair},
    wire::Malformed,
};
use std::collections::{BTreeMap, btree_map::Entry};

/// The longest name in a report, in bytes: a DNS name.
const NAME_BYTES: usize = 253;
/// The maximum of a node's counter, and of what it adds in all: three months at a terabit a second, three years at a
/// hundred gigabits.
pub(super) const MAX_COUNTER: u64 = 1 << 60;

/// The zones of the cluster.
pub trait ZoneNames: Send + Sync {
    /// Whether the table is whole: before it is, reports can't be read.
    fn is_whole(&self) -> bool;
    /// Whether there is or was a zone of this name in this region.
    fn contains(&self, zone: &str, region: &str) -> bool;
}

/// Refuses texts and counters that no agent has, makes zones unknown that the controller does not know, and leaves out
/// pairs of pods in them. Returns the number of these zones.
pub(super) fn check(report: &mut ReportRequest, zones: &dyn ZoneNames) -> Result<usize, Malformed> {
    let names = report.names.iter().flat_map(|names| &names.endpoints);
    let is_long = |EndpointName { namespace, pod, workload_kind, workload_name, node, services }: &EndpointName| {
        let names = [namespace, pod, workload_kind, workload_name, node];
        names.into_iter().chain(services).any(|name| name.len() > NAME_BYTES)
    };
    if names.clone().any(is_long) {
        return Err(Malformed("a name is too long"));
    }
    let of_zones = report.zones.iter().filter_map(|pair| pair.counter.as_ref());
    let of_reasons = report.reasons.iter().filter_map(|reason| reason.counter.as_ref());
    let of_pods = report.pods.iter().flat_map(|line| &line.counters);
    let all = of_zones.chain(of_reasons).chain(of_pods).chain(&report.attributed).chain(&report.sent_by_known);
    if all.clone().any(|Counter { bytes, packets }| *bytes.max(packets) > MAX_COUNTER) {
        return Err(Malformed("a counter is more than a node can count"));
    }
    Ok(unname(report, zones))
}

fn unname(report: &mut ReportRequest, known: &dyn ZoneNames) -> usize {
    let mut unnamed = 0;
    let is_place = |zone: &str, region: &str| region.is_empty() && matches!(zone, "" | "unknown" | "internet");
    for place in report.zones.iter_mut().flat_map(|pair| [&mut pair.source, &mut pair.destination]).flatten() {
        if !is_place(&place.zone, &place.region) && !known.contains(&place.zone, &place.region) {
            (place.zone, place.region) = ("unknown".into(), String::new());
            unnamed += 1;
        }
    }
    if unnamed > 0 {
        report.zones = merged(std::mem::take(&mut report.zones));
    }
    // Ends of pairs name zones by their numbers. The localities of `attributed` are those of the agent, so a pair of a
    // zone that is not known can't move to the unknown ones: its bytes stay in the rest.
    let zones = report.names.iter().flat_map(|names| &names.zones);
    let is_known: Vec<bool> = zones.map(|zone| known.contains(&zone.name, &zone.region)).collect();
    unnamed += is_known.iter().filter(|known| !**known).count();
    let is_foreign = |end: &End| {
        let named = end.zone.checked_sub(FIRST_ZONE).and_then(|zone| is_known.get(zone as usize));
        named == Some(&false)
    };
    for lines in [&mut report.pods, &mut report.ended] {
        lines.retain(|line| !line.source.iter().chain(&line.destination).any(is_foreign));
    }
    unnamed
}

/// The sums of pairs of the same names.
fn merged(pairs: Vec<ZonePair>) -> Vec<ZonePair> {
    let name = |place: &Option<Place>| place.as_ref().map(|place| (place.zone.clone(), place.region.clone()));
    let mut sums = BTreeMap::<_, ZonePair>::new();
    for pair in pairs {
        let key = (name(&pair.source), name(&pair.destination), pair.ip_version, pair.direction.clone());
        match sums.entry(key) {
            Entry::Vacant(new) => {
                new.insert(pair);
            }
            Entry::Occupied(mut sum) => {
                let (sum, new) = (sum.get_mut().counter.get_or_insert_default(), pair.counter.unwrap_or_default());
                sum.bytes = sum.bytes.saturating_add(new.bytes);
                sum.packets = sum.packets.saturating_add(new.packets);
            }
        }
    }
    sums.into_values().collect()
}

/// The numbers below are not of named zones.
const FIRST_ZONE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Line, Names, Zone};

    struct OnlyA;

    impl ZoneNames for OnlyA {
        fn is_whole(&self) -> bool {
            true
        }

        fn contains(&self, zone: &str, region: &str) -> bool {
            (zone, region) == ("a", "r")
        }
    }

    #[test]
    fn zones_outside_the_table_are_unknown_and_their_pairs_are_left_out() {
        let place = |zone: &str, region: &str| Some(Place { zone: zone.into(), region: region.into() });
        let counted = |bytes| Some(Counter { bytes, packets: 1 });
        let pair = |source, destination, bytes| ZonePair {
            source,
            destination,
            counter: counted(bytes),
            ..ZonePair::default()
        };
        let end = |zone| Some(End { zone, ..End::default() });
        let line = |from, to| Line { source: end(from), destination: end(to), ..Line::default() };
        let zone = |name: &str| Zone { name: name.into(), region: "r".into() };
        let mut report = ReportRequest {
            zones: vec![
                pair(place("a", "r"), place("internet", ""), 1),
                pair(place("invented", "r"), place("a", "elsewhere"), 2),
                pair(place("gone", "r"), place("unknown", ""), 4),
            ],
            names: Some(Names { zones: vec![zone("a"), zone("invented")], ..Names::default() }),
            pods: vec![line(2, 3), line(2, 0), line(3, 3), line(2, 2)],
            ended: vec![line(3, 2), line(0, 1)],
            ..ReportRequest::default()
        };
        assert_eq!(check(&mut report, &OnlyA), Ok(4));
        let mut unknown = pair(place("unknown", ""), place("unknown", ""), 6);
        unknown.counter.as_mut().unwrap().packets = 2;
        assert_eq!(report.zones, [pair(place("a", "r"), place("internet", ""), 1), unknown]);
        assert_eq!((report.pods, report.ended), (vec![line(2, 0), line(2, 2)], vec![line(0, 1)]));
    }

    #[test]
    fn texts_and_counters_that_no_agent_has_are_refused() {
        let mut counter = ReportRequest::default();
        counter.attributed.push(Counter { bytes: u64::MAX, packets: 1 });
        assert_eq!(check(&mut counter, &OnlyA), Err(Malformed("a counter is more than a node can count")));
        let long = EndpointName { pod: "p".repeat(254), ..EndpointName::default() };
        let names = Some(Names { endpoints: vec![long], ..Names::default() });
        let mut name = ReportRequest { names, ..ReportRequest::default() };
        assert_eq!(check(&mut name, &OnlyA), Err(Malformed("a name is too long")));
    }
}
