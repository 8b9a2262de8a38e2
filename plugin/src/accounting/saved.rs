//! The sums as they are kept on disk, and back.

use super::{Accounting, Between, ByLocality, Interval, Party, Placed, Pod, Top, Totals, Workload};
use crate::{
    identity::{self, Endpoint},
    proto::v1::{
        self,
        saved_counters::{End, Line, Owner, Series, Zone as SavedZone},
    },
    zones::{self, Locality, Place},
};
use ahash::AHashMap;
use meridian_abi::Counter;
use std::{hash::Hash, net::IpAddr, sync::Arc, time::Instant};

/// Numbers below are not of named zones.
const UNKNOWN: u32 = 0;
const INTERNET: u32 = 1;
const FIRST_ZONE: u32 = 2;

/// Takes the sums down.
pub(super) fn save(accounting: &Accounting, into: &mut v1::SavedCounters) {
    let mut names = Names::default();
    let Totals { pods, workloads, senders } = &accounting.totals;
    into.pods = Some(series(pods, |Between { source, destination }| {
        let mut end = |(pod, place): &Placed| names.end(pod.as_ref().map(|pod| &pod.0), place);
        (end(source), Some(end(destination)))
    }));
    into.workloads = Some(series(workloads, |Between { source, destination }| {
        let mut end = |workload: &Option<Workload>| names.end(workload.as_ref().map(|owner| &owner.0), &Place::Unknown);
        (end(source), Some(end(destination)))
    }));
    into.senders = Some(series(senders, |pod| (names.end(Some(&pod.0), &Place::Unknown), None)));
    into.interval = accounting
        .interval
        .iter()
        .flat_map(Interval::pairs)
        .map(|(pair, locality, counter)| {
            let mut end = |(party, place): &(Party, Place)| match party {
                Party::Pod(pod) => names.end(Some(&pod.0), place),
                Party::Address(address) => End { address: octets(*address), ..names.end(None, place) },
                Party::Other => End { other: true, ..names.end(None, place) },
            };
            let (source, destination) = (Some(end(&pair.source)), Some(end(&pair.destination)));
            Line { source, destination, counters: vec![counter.into()], locality: locality as u32 }
        })
        .collect();
    (into.owners, into.zones) = (names.owners, names.zones);
}

/// Goes on with sums that were taken down. What does not make sense is left out.
pub(super) fn restore(accounting: &mut Accounting, saved: v1::SavedCounters, now: Instant) {
    let known = Known::new(&saved);
    let Totals { pods, workloads, senders } = &mut accounting.totals;
    fill(pods, saved.pods, now, |source, destination| {
        let placed = |end: &End| (known.owner(end).map(Pod), known.place(end));
        Some(Between { source: placed(source), destination: placed(destination?) })
    });
    fill(workloads, saved.workloads, now, |source, destination| {
        let workload = |end: &End| known.owner(end).map(Workload);
        Some(Between { source: workload(source), destination: workload(destination?) })
    });
    fill(senders, saved.senders, now, |source, _| known.owner(source).map(Pod));
    let Some(interval) = &mut accounting.interval else { return };
    for line in saved.interval {
        let (Some(source), Some(destination)) = (&line.source, &line.destination) else { continue };
        let party = |end: &End| {
            let party = match (end.other, known.owner(end), address(&end.address)) {
                (true, ..) => Party::Other,
                (_, Some(owner), _) => Party::Pod(Pod(owner)),
                (.., Some(address)) => Party::Address(address),
                _ => Party::Other,
            };
            (party, known.place(end))
        };
        let locality = Locality::ALL.get(line.locality as usize).copied();
        let (Some(locality), Some(counter)) = (locality, line.counters.first()) else { continue };
        let pair = Between { source: party(source), destination: party(destination) };
        interval.restore(pair, locality, (*counter).into());
    }
}

/// Numbers for owners and zones that are named again and again.
#[derive(Default)]
struct Names {
    owners: Vec<Owner>,
    by_owner: AHashMap<(Arc<str>, Arc<str>), u32>,
    zones: Vec<SavedZone>,
}

impl Names {
    fn end(&mut self, owner: Option<&Arc<Endpoint>>, place: &Place) -> End {
        let owner = owner.map_or(0, |owner| self.owner(owner));
        End { owner, zone: self.zone(place), ..End::default() }
    }

    fn owner(&mut self, owner: &Endpoint) -> u32 {
        let Self { owners, by_owner, .. } = self;
        let (_, kind, name) = owner.workload_id();
        // A node has neither namespace nor pod.
        let id = (Arc::clone(&owner.namespace), if owner.is_node() { name.into() } else { Arc::clone(&owner.pod) });
        *by_owner.entry(id).or_insert_with(|| {
            let has_workload = owner.workload.is_some();
            owners.push(Owner {
                namespace: owner.namespace.to_string(),
                pod: owner.pod.to_string(),
                workload_kind: if has_workload { kind.to_owned() } else { String::new() },
                workload_name: if has_workload { name.to_owned() } else { String::new() },
            });
            owners.len() as u32
        })
    }

    fn zone(&mut self, place: &Place) -> u32 {
        let zone = match place {
            Place::Unknown => return UNKNOWN,
            Place::Internet => return INTERNET,
            Place::Zone(zone) => SavedZone { name: zone.name.clone(), region: zone.region.clone() },
        };
        let at = self.zones.iter().position(|known| *known == zone).unwrap_or_else(|| {
            self.zones.push(zone);
            self.zones.len() - 1
        });
        at as u32 + FIRST_ZONE
    }
}

/// The same, read.
struct Known {
    owners: Vec<Arc<Endpoint>>,
    zones: Vec<Arc<zones::Zone>>,
}

impl Known {
    fn new(saved: &v1::SavedCounters) -> Self {
        let owner = |owner: &Owner| {
            let Owner { workload_kind: kind, workload_name: name, .. } = owner.clone();
            let workload = (!kind.is_empty()).then(|| Arc::new(identity::Workload { kind, name }));
            let (namespace, pod) = (owner.namespace.as_str().into(), owner.pod.as_str().into());
            Arc::new(Endpoint { namespace, pod, workload, ..Endpoint::default() })
        };
        let zone = |zone: &SavedZone| Arc::new(zones::Zone { name: zone.name.clone(), region: zone.region.clone() });
        Self { owners: saved.owners.iter().map(owner).collect(), zones: saved.zones.iter().map(zone).collect() }
    }

    fn owner(&self, end: &End) -> Option<Arc<Endpoint>> {
        self.owners.get((end.owner as usize).checked_sub(1)?).cloned()
    }

    fn place(&self, end: &End) -> Place {
        match end.zone {
            INTERNET => Place::Internet,
            zone => {
                let zone = zone.checked_sub(FIRST_ZONE).and_then(|zone| self.zones.get(zone as usize));
                zone.map_or(Place::Unknown, |zone| Place::Zone(Arc::clone(zone)))
            }
        }
    }
}

fn series<K: Clone + Eq + Hash>(top: &Top<K>, mut ends: impl FnMut(&K) -> (End, Option<End>)) -> Series {
    let line = |(key, total): (&K, ByLocality)| {
        let (source, destination) = ends(key);
        Line { source: Some(source), destination, counters: counters(total), locality: 0 }
    };
    Series { lines: top.series().map(line).collect(), other: counters(top.other()), ended: counters(top.ended()) }
}

fn fill<K: Clone + Eq + Hash>(
    top: &mut Top<K>,
    saved: Option<Series>,
    now: Instant,
    key: impl Fn(&End, Option<&End>) -> Option<K>,
) {
    let Some(Series { lines, other, ended }) = saved else { return };
    let keyed = lines.iter().filter_map(|line| {
        let key = key(line.source.as_ref()?, line.destination.as_ref())?;
        Some((key, by_locality(&line.counters)))
    });
    top.restore(keyed, by_locality(&other), by_locality(&ended), now);
}

fn counters(by_locality: ByLocality) -> Vec<v1::Counter> {
    by_locality.iter().map(|(_, counter)| counter.into()).collect()
}

fn by_locality(counters: &[v1::Counter]) -> ByLocality {
    let mut sum = ByLocality::default();
    Locality::ALL.into_iter().zip(counters).for_each(|(locality, counter)| sum.add(locality, (*counter).into()));
    sum
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

impl From<Counter> for v1::Counter {
    fn from(Counter { bytes, packets }: Counter) -> Self {
        Self { bytes, packets }
    }
}

impl From<v1::Counter> for Counter {
    fn from(v1::Counter { bytes, packets }: v1::Counter) -> Self {
        Self { bytes, packets }
    }
}
