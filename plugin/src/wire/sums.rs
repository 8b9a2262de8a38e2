//! The sums as messages, for disk and for reports, and back.

use super::NameStore;
use crate::{
    accounting::{
        Accounting, ByLocality, Directed, EndKey, EndpointKey, Interval, IntervalKey, LocatedPod, Pod, Service, Top,
        Totals, TransferKey, Workload,
    },
    identity::{self, Endpoint},
    proto::v1::{self, End, EndpointName, Line, Series, Sums, Zone as SavedZone},
    zones::{self, Locality, Place},
};
use ahash::AHashMap;
use meridian_abi::{Counter, flow::ServiceSide};
use std::{hash::Hash, net::IpAddr, sync::Arc, time::Instant};

/// Zone numbers: unknown, the internet, then the named zones.
const UNKNOWN: u32 = 0;
const INTERNET: u32 = 1;
const FIRST_ZONE: u32 = 2;
/// Services of an endpoint that are named.
const SERVICES: usize = 8;

/// The message for the sums.
pub fn sums(accounting: &Accounting) -> Sums {
    let mut names = Names::default();
    let Totals { pods, transfers, workloads, senders, namespaces } = accounting.totals();
    let pods = series(pods, |Directed { source, destination }| {
        let mut end = |(pod, place): &LocatedPod| names.end(pod.as_ref().map(|pod| &*pod.0), place);
        (end(source), Some(end(destination)), None)
    });
    let transfers = series(transfers, |TransferKey { ends: Directed { source, destination }, service }| {
        let mut end = |(endpoint, place): &(Option<EndpointKey>, Place)| {
            names.end(endpoint.as_ref().map(|endpoint| &*endpoint.0), place)
        };
        (end(source), Some(end(destination)), service_message(*service))
    });
    let workloads = series(workloads, |Directed { source, destination }| {
        let mut end =
            |workload: &Option<Workload>| names.end(workload.as_ref().map(|endpoint| &*endpoint.0), &Place::Unknown);
        (end(source), Some(end(destination)), None)
    });
    let senders = series(senders, |pod| (names.end(Some(&pod.0), &Place::Unknown), None, None));
    let namespaces = series(namespaces, |Directed { source, destination }| {
        let mut end = |namespace: &Arc<str>| {
            let endpoint = Endpoint { namespace: Arc::clone(namespace), ..Endpoint::default() };
            names.end((!namespace.is_empty()).then_some(&endpoint), &Place::Unknown)
        };
        (end(source), Some(end(destination)), None)
    });
    let line = |(key, counter): (&IntervalKey, Counter)| {
        let mut end = |(end_key, place): &(EndKey, Place)| match end_key {
            EndKey::Pod(pod) => names.end(Some(&pod.0), place),
            EndKey::Address(address) => End { address: octets(*address), ..names.end(None, place) },
            EndKey::Other => End { other: true, ..names.end(None, place) },
        };
        Line {
            source: Some(end(&key.ends.source)),
            destination: Some(end(&key.ends.destination)),
            counters: vec![counter.into()],
            locality: key.locality as u32,
            service: service_message(key.service),
        }
    };
    let interval = accounting.interval().into_iter().flat_map(Interval::pairs).map(line).collect();
    Sums {
        pods: Some(pods),
        workloads: Some(workloads),
        senders: Some(senders),
        namespaces: Some(namespaces),
        interval,
        transfers: Some(transfers),
        names: Some(names.into()),
    }
}

/// Restores saved sums. Lines that make no sense are left out.
pub fn restore(accounting: &mut Accounting, saved: Sums, now: Instant) {
    let known = DecodedNames::new(&saved.names.unwrap_or_default(), &mut ());
    let Totals { pods, transfers, workloads, senders, namespaces } = accounting.totals_mut();
    fill(pods, saved.pods, now, |source, destination, _| {
        let placed = |end: &End| (known.endpoint(end).map(Pod), known.place(end));
        Some(Directed { source: placed(source), destination: placed(destination?) })
    });
    fill(transfers, saved.transfers, now, |source, destination, service| {
        let named = |end: &End| (known.endpoint(end).map(EndpointKey), known.place(end));
        let ends = Directed { source: named(source), destination: named(destination?) };
        Some(TransferKey { ends, service: service_of(service) })
    });
    fill(workloads, saved.workloads, now, |source, destination, _| {
        let workload = |end: &End| known.endpoint(end).map(Workload);
        Some(Directed { source: workload(source), destination: workload(destination?) })
    });
    fill(senders, saved.senders, now, |source, _, _| known.endpoint(source).map(Pod));
    fill(namespaces, saved.namespaces, now, |source, destination, _| {
        let namespace =
            |end: &End| known.endpoint(end).map(|endpoint| Arc::clone(&endpoint.namespace)).unwrap_or_default();
        Some(Directed { source: namespace(source), destination: namespace(destination?) })
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
        let ends = Directed { source: end_key(source), destination: end_key(destination) };
        let key = IntervalKey { ends, service: service_of(line.service.as_ref()), locality };
        interval.restore(key, (*counter).into());
    }
}

/// A service as a message; nothing where it is not known.
pub fn service_message(Service { port, protocol, side }: Service) -> Option<v1::Service> {
    let message = v1::Service { port: port.into(), protocol: protocol.into(), side: side as u32 };
    (message != v1::Service::default()).then_some(message)
}

/// The service of a message; what makes no sense is not known.
pub fn service_of(message: Option<&v1::Service>) -> Service {
    let Some(v1::Service { port, protocol, side }) = message else { return Service::default() };
    let side = match side {
        1 => ServiceSide::Destination,
        2 => ServiceSide::Source,
        _ => ServiceSide::None,
    };
    let small = (u16::try_from(*port), u8::try_from(*protocol));
    if let (Ok(port), Ok(protocol)) = small { Service::new(port, protocol, side) } else { Service::default() }
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
        // Nodes and external prefixes have neither namespace nor pod. No pod's name has a space.
        let has_pod = !endpoint.pod.is_empty();
        let id = if has_pod { Arc::clone(&endpoint.pod) } else { format!("{kind} {name}").into() };
        let id = (Arc::clone(&endpoint.namespace), id);
        *by_endpoint.entry(id).or_insert_with(|| {
            let has_workload = endpoint.workload.is_some();
            endpoints.push(EndpointName {
                namespace: endpoint.namespace.to_string(),
                pod: endpoint.pod.to_string(),
                workload_kind: if has_workload { kind.to_owned() } else { String::new() },
                workload_name: if has_workload { name.to_owned() } else { String::new() },
                node: endpoint.node.to_string(),
                services: endpoint.services.iter().take(SERVICES).cloned().collect(),
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
    /// Decodes the names, which go to `store`.
    pub fn new(names: &v1::Names, store: &mut impl NameStore) -> Self {
        let endpoint = |endpoint: &EndpointName| {
            let EndpointName { workload_kind: kind, workload_name: name, .. } = endpoint.clone();
            let workload = (!kind.is_empty()).then(|| Arc::new(identity::Workload { kind, name }));
            let (namespace, pod) = (endpoint.namespace.as_str().into(), endpoint.pod.as_str().into());
            let services = endpoint.services.iter().take(SERVICES).cloned().collect();
            let node = endpoint.node.as_str().into();
            store.endpoint(Endpoint { namespace, pod, workload, services, node, ..Endpoint::default() })
        };
        let endpoints = names.endpoints.iter().map(endpoint).collect();
        let zone = |zone: &SavedZone| store.zone(zones::Zone { name: zone.name.clone(), region: zone.region.clone() });
        Self { endpoints, zones: names.zones.iter().map(zone).collect() }
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

/// The ends of a line, and the service.
type Ends = (End, Option<End>, Option<v1::Service>);

fn series<K: Clone + Eq + Hash>(top: &Top<K>, mut ends: impl FnMut(&K) -> Ends) -> Series {
    let line = |(key, total): (&K, ByLocality)| {
        let (source, destination, service) = ends(key);
        Line { source: Some(source), destination, counters: total.into(), locality: 0, service }
    };
    Series { lines: top.series().map(line).collect(), other: top.other().into(), ended: top.ended().into() }
}

fn fill<K: Clone + Eq + Hash>(
    top: &mut Top<K>,
    saved: Option<Series>,
    now: Instant,
    key: impl Fn(&End, Option<&End>, Option<&v1::Service>) -> Option<K>,
) {
    let Some(Series { lines, other, ended }) = saved else { return };
    let keyed = lines.iter().filter_map(|line| {
        let key = key(line.source.as_ref()?, line.destination.as_ref(), line.service.as_ref())?;
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
