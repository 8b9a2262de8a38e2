//! Writes traffic into a block of the history: workloads get their labels, places their provider, and services the
//! end that serves them. Pure.

use crate::{
    accounting::{GrowthKey, NodeAt, Service, TrafficDelta},
    history::{Builder, Ends, Server, TransferService, Workload},
    identity::Endpoint,
    zones::{Class, Location, Place, Provider},
};
use meridian_abi::flow::ServiceSide;
use std::collections::BTreeMap;

/// Facts beside the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The providers of zones, by the zone's name.
    pub providers: BTreeMap<String, Provider>,
    /// The labels that are kept.
    pub labels: Vec<String>,
}

impl Directory {
    /// A place with its provider.
    pub fn location(&self, place: &Place, class: Option<Class>) -> Location {
        let provider = place.zone().and_then(|zone| self.providers.get(&zone.name)).cloned();
        Location { provider, place: place.clone(), class }
    }

    fn workload(&self, endpoint: Option<&Endpoint>) -> Workload {
        let Some(endpoint) = endpoint else { return Workload::default() };
        let (namespace, kind, name) = endpoint.workload_id();
        let kept = |label: &String| Some((label.clone(), endpoint.label(label)?.to_owned()));
        Workload {
            namespace: namespace.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            labels: self.labels.iter().filter_map(kept).collect(),
        }
    }

    /// Adds traffic to a block.
    pub fn record(&self, grown: &TrafficDelta, block: &mut Builder) {
        for (GrowthKey { ends, service }, counter) in &grown.transfers {
            let endpoints = [&ends.source, &ends.destination].map(|(workload, _)| workload.as_ref().map(|of| &*of.0));
            let places = [&ends.source.1, &ends.destination.1];
            let workloads = endpoints.map(|endpoint| self.workload(endpoint));
            let class = |at: usize| endpoints[at].and_then(Endpoint::class);
            let sites = [0, 1].map(|at| self.location(places[at], class(at)));
            let name = service_name(*service, endpoints);
            let serving = TransferService {
                service: &name,
                port: service.port,
                protocol: service.protocol,
                server: match service.side {
                    ServiceSide::None => Server::Unknown,
                    ServiceSide::Source => Server::Source,
                    ServiceSide::Destination => Server::Destination,
                },
            };
            block.add(Ends { workloads: workloads.each_ref(), sites: sites.each_ref() }, serving, *counter);
        }
        for (ends, counter) in &grown.nodes {
            let nodes = [&ends.source, &ends.destination];
            let sites = nodes.map(|NodeAt { place, class, .. }| self.location(place, *class));
            block.add_nodes(nodes.map(|node| &*node.name), sites.each_ref(), *counter);
        }
        for (places, counter) in &grown.others {
            let sites = [&places.source, &places.destination].map(|place| self.location(place, None));
            let other = Workload::default();
            block.add(Ends { workloads: [&other; 2], sites: sites.each_ref() }, TransferService::default(), *counter);
            block.add_nodes([""; 2], sites.each_ref(), *counter);
        }
    }
}

/// The service of the end that serves, as `namespace/name`; of several, the first.
fn service_name(service: Service, [source, destination]: [Option<&Endpoint>; 2]) -> String {
    let server = match service.side {
        ServiceSide::None => None,
        ServiceSide::Source => source,
        ServiceSide::Destination => destination,
    };
    let name = server.and_then(|server| Some((server, server.services.first()?)));
    name.map(|(server, name)| format!("{}/{name}", server.namespace)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounting::{Accounting, Transfer, TransferEnd},
        history::Span,
        identity::Workload,
        zones::Zone,
    };
    use meridian_abi::Counter;
    use std::{sync::Arc, time::Instant};

    fn end(kind: &str, name: &str, pod: &str, zone: &str) -> TransferEnd {
        let endpoint = Endpoint {
            namespace: if pod.is_empty() { "" } else { "shop" }.into(),
            pod: pod.into(),
            workload: Some(Arc::new(Workload { kind: kind.into(), name: name.into() })),
            labels: Arc::new(BTreeMap::from([("team".into(), "a".into()), ("hash".into(), "1".into())])),
            services: [name.to_owned()].into(),
            node: format!("node-{zone}").into(),
            ..Endpoint::default()
        };
        let place = Place::Zone(Arc::new(Zone { name: zone.into(), region: "r".into() }));
        let is_external = endpoint.pod.is_empty();
        let (endpoint, external) = (Arc::new(endpoint.clone()), is_external.then(|| Arc::new(endpoint)));
        TransferEnd { address: None, endpoint: (!is_external).then_some(endpoint), place, external }
    }

    #[test]
    fn a_transfer_is_recorded_with_provider_class_labels_and_service() {
        let (web, db) = (end("Deployment", "web", "web-1", "a"), end("database", "orders", "", "b"));
        let mut accounting = Accounting::new(10, false).with_growth();
        let (new, service) = (Counter { bytes: 100, packets: 1 }, Service::new(5432, 6, ServiceSide::Destination));
        accounting.add(&Transfer { source: &web, destination: &db, service }, new, Instant::now());
        let growth = accounting.growth_mut().unwrap();
        growth.add_matrix(&web.place, &db.place, Counter { bytes: 130, packets: 2 });
        let directory = Directory {
            providers: BTreeMap::from([("a".to_owned(), Provider::new("aws").unwrap())]),
            labels: vec!["team".into()],
        };
        let mut builder = Builder::new(Span::hour_of(0), 100);
        directory.record(&growth.take(true), &mut builder);
        let block = builder.block();
        assert_eq!(block.total(), Counter { bytes: 130, packets: 2 });
        let (other, named) = (&block.transfers[0], &block.transfers[1]);
        assert_eq!((other.counter.bytes, named.counter.bytes, named.key.port), (30, 100, 5432));
        let [from, to] = named.key.workloads.map(|workload| &block.workloads[workload as usize]);
        assert_eq!((from.name.as_str(), from.labels.len(), to.kind.as_str()), ("web", 1, "database"));
        let [from, to] = named.key.sites.map(|site| &block.sites[site as usize]);
        assert_eq!((from.provider.as_ref().map(Provider::name), to.class), (Some("aws"), Some(Class::Database)));
        assert_eq!(block.services[named.key.service as usize], "/orders");
        let sent: u64 = block.nodes.iter().filter(|row| !row.is_receiver).map(|row| row.counter.bytes).sum();
        assert_eq!(sent, 130);
    }
}
