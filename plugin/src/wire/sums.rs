//! The sums as messages, for disk and for reports, and back.

use crate::{
    accounting::{Accounting, Between, ByLocality, EndKey, Interval, Placed, Pod, Top, Totals, Workload},
    identity::{self, Endpoint},
    proto::v1::{self, End, EndpointName, Line, Series, Sums, Zone as SavedZone},
    zones::{self, Locality, Place},
};
use ahash::AHashMap;
use meridian_abi::Counter;
use std::{hash::Hash, net::IpAddr, sync::Arc, time::Instant};

/// Zone numbers: unknown, the internet, then the named zones.
const UNKNOWN: u32 = 0;
const INTERNET: u32 = 1;
const FIRST_ZONE: u32 = 2;

/// The message for the sums.
pub fn sums(accounting: &Accounting) -> Sums {
    let mut names = Names::default();
    let Totals { pods, workloads, senders, namespaces } = accounting.totals();
    let pods = series(pods, |Between { source, destination }| {
        let mut end = |(pod, place): &Placed| names.end(pod.as_ref().map(|pod| &*pod.0), place);
        (end(source), Some(end(destination)))
    });
    let workloads = series(workloads, |Between { source, destination }| {
        let mut end =
            |workload: &Option<Workload>| names.end(workload.as_ref().map(|endpoint| &*endpoint.0), &Place::Unknown);
        (end(source), Some(end(destination)))
    });
    let senders = series(senders, |pod| (names.end(Some(&pod.0), &Place::Unknown), None));
    let namespaces = series(namespaces, |Between { source, destination }| {
        let mut end = |namespace: &Arc<str>| {
            let endpoint = Endpoint { namespace: Arc::clone(namespace), ..Endpoint::default() };
            names.end((!namespace.is_empty()).then_some(&endpoint), &Place::Unknown)
        };
        (end(source), Some(end(destination)))
    });
    let line = |(pair, locality, counter): (&Between<(EndKey, Place)>, Locality, Counter)| {
        let mut end = |(end_key, place): &(EndKey, Place)| match end_key {
            EndKey::Pod(pod) => names.end(Some(&pod.0), place),
            EndKey::Address(address) => End { address: octets(*address), ..names.end(None, place) },
            EndKey::Other => End { other: true, ..names.end(None, place) },
        };
        let (source, destination) = (Some(end(&pair.source)), Some(end(&pair.destination)));
        Line { source, destination, counters: vec![counter.into()], locality: locality as u32 }
    };
    let interval = accounting.interval().into_iter().flat_map(Interval::pairs).map(line).collect();
    Sums {
        pods: Some(pods),
        workloads: Some(workloads),
        senders: Some(senders),
        namespaces: Some(namespaces),
        interval,
        names: Some(names.into()),
    }
}

/// Restores saved sums. Lines that make no sense are left out.
pub fn restore(accounting: &mut Accounting, saved: Sums, now: Instant) {
    let known = DecodedNames::new(&saved.names.unwrap_or_default(), |endpoint| endpoint);
    let Totals { pods, workloads, senders, namespaces } = accounting.totals_mut();
    fill(pods, saved.pods, now, |source, destination| {
        let placed = |end: &End| (known.endpoint(end).map(Pod), known.place(end));
        Some(Between { source: placed(source), destination: placed(destination?) })
    });
    fill(workloads, saved.workloads, now, |source, destination| {
        let workload = |end: &End| known.endpoint(end).map(Workload);
        Some(Between { source: workload(source), destination: workload(destination?) })
    });
    fill(senders, saved.senders, now, |source, _| known.endpoint(source).map(Pod));
    fill(namespaces, saved.namespaces, now, |source, destination| {
        let namespace =
            |end: &End| known.endpoint(end).map(|endpoint| Arc::clone(&endpoint.namespace)).unwrap_or_default();
        Some(Between { source: namespace(source), destination: namespace(destination?) })
    });
    let Some(interval) = accounting.interval_mut() else { return };
    for line in saved.interval {
        let (Some(source), Some(destination)) = (&line.source, &line.destination) else { continue };
        let end_key = |end: &End| {
            let end_key = match (end.other, known.endpoint(end), address(&end.address)) {
                (true, ..) => EndKey::Other,
                (_, Some(endpoint), _) => EndKey::Pod(Pod(endpoint)),
                (.., Some(address)) => EndKey::Address(address),
                _ => EndKey::Other,
            };
            (end_key, known.place(end))
        };
        let locality = Locality::ALL.get(line.locality as usize).copied();
        let (Some(locality), Some(counter)) = (locality, line.counters.first()) else { continue };
        let pair = Between { source: end_key(source), destination: end_key(destination) };
        interval.restore(pair, locality, (*counter).into());
    }
}

/// Numbers for the names of endpoints and zones, each of which is sent once.
#[derive(Debug, Default)]
pub struct Names {
    endpoints: Vec<EndpointName>,
    by_endpoint: AHashMap<(Arc<str>, Arc<str>), u32>,
    zones: Vec<SavedZone>,
}

impl Names {
    /// The end as numbers.
    pub fn end(&mut self, endpoint: Option<&Endpoint>, place: &Place) -> End {
        let endpoint = endpoint.map_or(0, |endpoint| self.endpoint(endpoint));
        End { endpoint, zone: self.zone(place), ..End::default() }
    }

    fn endpoint(&mut self, endpoint: &Endpoint) -> u32 {
        let Self { endpoints, by_endpoint, .. } = self;
        let (_, kind, name) = endpoint.workload_id();
        // A node has neither a namespace nor a pod name.
        let id =
            (Arc::clone(&endpoint.namespace), if endpoint.is_node() { name.into() } else { Arc::clone(&endpoint.pod) });
        *by_endpoint.entry(id).or_insert_with(|| {
            let has_workload = endpoint.workload.is_some();
            endpoints.push(EndpointName {
                namespace: endpoint.namespace.to_string(),
                pod: endpoint.pod.to_string(),
                workload_kind: if has_workload { kind.to_owned() } else { String::new() },
                workload_name: if has_workload { name.to_owned() } else { String::new() },
            });
            endpoints.len() as u32
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

impl From<Names> for v1::Names {
    fn from(Names { endpoints, zones, .. }: Names) -> Self {
        Self { endpoints, zones }
    }
}

/// Names by number, decoded.
#[derive(Debug)]
pub struct DecodedNames {
    endpoints: Vec<Arc<Endpoint>>,
    zones: Vec<Arc<zones::Zone>>,
}

impl DecodedNames {
    /// Decodes the names. `shared` may replace an endpoint by an equal one that is in memory already.
    pub fn new(names: &v1::Names, mut shared: impl FnMut(Arc<Endpoint>) -> Arc<Endpoint>) -> Self {
        let endpoint = |endpoint: &EndpointName| {
            let EndpointName { workload_kind: kind, workload_name: name, .. } = endpoint.clone();
            let workload = (!kind.is_empty()).then(|| Arc::new(identity::Workload { kind, name }));
            let (namespace, pod) = (endpoint.namespace.as_str().into(), endpoint.pod.as_str().into());
            shared(Arc::new(Endpoint { namespace, pod, workload, ..Endpoint::default() }))
        };
        let zone = |zone: &SavedZone| Arc::new(zones::Zone { name: zone.name.clone(), region: zone.region.clone() });
        Self {
            endpoints: names.endpoints.iter().map(endpoint).collect(),
            zones: names.zones.iter().map(zone).collect(),
        }
    }

    /// The endpoint of an end, if it is known.
    pub fn endpoint(&self, end: &End) -> Option<Arc<Endpoint>> {
        self.endpoints.get((end.endpoint as usize).checked_sub(1)?).cloned()
    }

    /// The place of an end.
    pub fn place(&self, end: &End) -> Place {
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
        Line { source: Some(source), destination, counters: total.into(), locality: 0 }
    };
    Series { lines: top.series().map(line).collect(), other: top.other().into(), ended: top.ended().into() }
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
        Some((key, line.counters.as_slice().into()))
    });
    top.restore(keyed, other.as_slice().into(), ended.as_slice().into(), now);
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
