//! Clusters and traffic in few words: `Deployment shop/web@a` is a workload in zone us-east-1a, `shop/cart:8080` a port
//! of a service.

use super::*;
use crate::{
    catalogue::{CiliumVersion, DataPlane, Kind, Kubernetes, Service, ServiceTopology, WorkloadName},
    history::{Builder, Ends, Server, Span, TransferService, Workload},
    zones::{Class, Location, Place, Provider, Zone},
};
use meridian_abi::Counter;
use std::{path::Path, sync::Arc};

const GB: u64 = 1_000_000_000;
/// The month of all estimates.
const MONTH: Duration = Duration::from_secs(730 * 3600);

/// A cluster with its traffic of a month.
pub(super) struct Cluster {
    provider: Option<&'static str>,
    pub(super) catalogue: Catalogue,
    hours: Vec<Builder>,
    pub(super) recorded: Duration,
    pub(super) prices: PriceTable,
}

/// A change of a service.
pub(super) type Set = fn(&mut Service);

impl Cluster {
    pub(super) fn new(version: &str, data_plane: DataPlane) -> Self {
        let catalogue = Catalogue { kubernetes: Kubernetes::parse(version), data_plane, ..Catalogue::default() };
        let hours = vec![Builder::new(Span::hour_of(0), Builder::MAX_ROOM)];
        Self { provider: Some("aws"), catalogue, hours, recorded: MONTH, prices: PriceTable::default() }
    }

    pub(super) fn of(mut self, provider: &'static str) -> Self {
        self.provider_of(provider);
        self
    }

    pub(super) fn provider_of(&mut self, provider: &'static str) {
        self.provider = (!provider.is_empty()).then_some(provider);
    }

    /// The same provider without traffic, at an hour.
    pub(super) fn empty_at(&self, hour: u64) -> Self {
        let hours = vec![Builder::new(Span::hour_of(hour * 3600), Builder::MAX_ROOM)];
        let (catalogue, prices) = (Catalogue::default(), self.prices.clone());
        Self { provider: self.provider, catalogue, hours, recorded: Duration::ZERO, prices }
    }

    /// Another hour: what follows is sent in it.
    pub(super) fn next_hour(mut self) -> Self {
        let hour = self.hours.len() as u64 * 3600;
        self.hours.push(Builder::new(Span::hour_of(hour), Builder::MAX_ROOM));
        self
    }

    /// A service with ready endpoints by zone, each hinted for its own if the service prefers it.
    pub(super) fn service(mut self, name: &str, endpoints: &[(&str, u32)], set: Set) -> Self {
        let mut service = Service { selector: [("app".to_owned(), "x".to_owned())].into(), ..Service::default() };
        service.endpoints.ready = endpoints.iter().map(|(zone, count)| (zone_name(zone), *count)).collect();
        service.endpoints.unhinted = service.endpoints.count();
        set(&mut service);
        self.catalogue.services.insert(name.to_owned(), service);
        self
    }

    pub(super) fn pods(mut self, workload: &str, pods: &[(&str, u32)]) -> Self {
        let workload = parse_workload(workload);
        let name = WorkloadName { namespace: workload.namespace, kind: workload.kind, name: workload.name };
        let pods = pods.iter().map(|(zone, count)| (zone_name(zone), *count)).collect();
        self.catalogue.workloads.insert(name, pods);
        self
    }

    /// Gigabytes that a client sends and gets.
    pub(super) fn sent(self, client: &str, server: &str, service: &str, [requests, answers]: [u64; 2]) -> Self {
        self.exact(client, server, service, [requests * GB, answers * GB])
    }

    pub(super) fn exact(mut self, client: &str, server: &str, service: &str, [requests, answers]: [u64; 2]) -> Self {
        let provider = self.provider;
        let ends = [client, server].map(|end| {
            let (name, zone) = end.split_once('@').unwrap();
            let workload = parse_workload(name);
            let site = site(provider, zone, Class::of_name(&workload.kind));
            (workload, site)
        });
        let (name, port) = service.split_once(':').unwrap();
        let serving = |server| TransferService { service: name, port: port.parse().unwrap(), protocol: 6, server };
        let hour = self.hours.last_mut().unwrap();
        let mut add = |[from, to]: [usize; 2], server, bytes| {
            let workloads = [&ends[from].0, &ends[to].0];
            let sites = [&ends[from].1, &ends[to].1];
            hour.add(Ends { workloads, sites }, serving(server), Counter { bytes, packets: bytes / 1000 });
        };
        add([0, 1], Server::Destination, requests);
        add([1, 0], Server::Source, answers);
        self
    }

    pub(super) fn own_prices(mut self, yaml: &str) -> Self {
        self.prices = PriceTable::parse(Path::new("prices.yaml"), yaml.as_bytes()).unwrap();
        self
    }

    pub(super) fn blocks(&self) -> Vec<crate::history::Block> {
        self.hours.iter().map(Builder::block).collect()
    }

    pub(super) fn traffic(&self) -> Traffic {
        // The last hour is the recent part.
        let mut traffic = Traffic::recent_from((self.hours.len() as u64 - 1) * 3600);
        self.blocks().iter().for_each(|block| traffic.add(block));
        traffic.set_recorded(self.recorded);
        traffic
    }

    pub(super) fn advice(&self, options: &Options) -> Advice {
        let traffic = self.traffic();
        Advice::new(&Snapshot { traffic: &traffic, catalogue: &self.catalogue, prices: &self.prices }, options)
    }
}

/// `a` is us-east-1a, `w` is us-west-2a; nothing is no zone.
pub(super) fn zone_name(zone: &str) -> String {
    match zone {
        "" => String::new(),
        "w" => "us-west-2a".to_owned(),
        zone => format!("us-east-1{zone}"),
    }
}

pub(super) fn site(provider: Option<&str>, zone: &str, class: Option<Class>) -> Location {
    let place = match zone {
        "?" => Place::Unknown,
        "*" => Place::Internet,
        zone => {
            let region = if zone == "w" { "us-west-2" } else { "us-east-1" };
            Place::Zone(Arc::new(Zone { name: zone_name(zone), region: region.to_owned() }))
        }
    };
    Location { provider: provider.and_then(Provider::new), place, class }
}

pub(super) fn parse_workload(text: &str) -> Workload {
    let (kind, name) = text.split_once(' ').unwrap();
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    Workload { namespace: namespace.to_owned(), kind: kind.to_owned(), name: name.to_owned(), ..Workload::default() }
}

pub(super) const fn cilium(minor: u16, topology: ServiceTopology) -> DataPlane {
    DataPlane::Cilium { version: Some(CiliumVersion { major: 1, minor }), topology }
}

pub(super) fn plain(_: &mut Service) {}

/// Every endpoint hinted for its own zone.
pub(super) fn hinted(service: &mut Service) {
    service.endpoints.hinted = service.endpoints.ready.clone();
    service.endpoints.unhinted = 0;
}

pub(super) fn close(service: &mut Service) {
    service.distribution = Some("PreferClose".to_owned());
    hinted(service);
}

pub(super) fn same_zone(service: &mut Service) {
    service.distribution = Some("PreferSameZone".to_owned());
    hinted(service);
}

pub(super) fn headless(service: &mut Service) {
    service.is_headless = true;
}

pub(super) fn node_port(service: &mut Service) {
    close(service);
    service.kind = Kind::NodePort;
}
