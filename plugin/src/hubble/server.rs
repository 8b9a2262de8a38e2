//! Hubble's gRPC service Observer.

use super::{
    events::{self, EventQuery},
    filter::Filters,
    get_flows::{self, StreamContext},
    reply::Reply,
    services::observer_server::Observer,
    turn::CostlyTurn,
};
use crate::{
    flows::{Encoded, Sink},
    link::Budget,
    proto::{
        number,
        observer::{
            GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
            GetFlowsRequest, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse, Namespace,
            Node, ServerStatusRequest, ServerStatusResponse, Tls,
        },
        relay::NodeState,
    },
};
use ahash::AHashSet;
use futures_util::stream::{BoxStream, StreamExt};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Request, Response, Status};

/// The period over which the rate of flows is measured.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// The memory for the filters of all requests.
const FILTER_BYTES: usize = 48 << 20;

/// Hubble's Observer for the flows of one or more nodes.
#[derive(Debug)]
pub struct Server {
    sink: Sink,
    nodes: Vec<String>,
    /// Whether the flows are recorded: the node names then come from the flows.
    is_recorded: bool,
    /// Empty for the default cluster.
    cluster: String,
    /// The name in the certificate, if the server uses TLS.
    tls: Option<String>,
    started: Instant,
    costly: CostlyTurn,
    filters: Arc<Budget>,
    /// One request compiles large filters at a time, because that takes memory, too.
    compiling: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Server {
    /// Serves the flows of these nodes from `sink`. Streams end with `shutdown`.
    pub fn new(sink: Sink, nodes: Vec<String>, shutdown: CancellationToken) -> Self {
        let (cluster, started) = (String::new(), Instant::now());
        let (costly, filters) = (CostlyTurn::default(), Arc::new(Budget::new(FILTER_BYTES)));
        let compiling = Arc::new(Semaphore::new(1));
        Self { sink, nodes, is_recorded: false, cluster, tls: None, started, costly, filters, compiling, shutdown }
    }

    /// The memory for the filters of all requests.
    pub fn filters(&self) -> Arc<Budget> {
        Arc::clone(&self.filters)
    }

    /// Sets the cluster's name, which is shown beside namespaces.
    #[must_use]
    pub fn in_cluster(self, cluster: String) -> Self {
        Self { cluster, ..self }
    }

    /// Announces TLS with this name in the certificate.
    #[must_use]
    pub fn with_tls(self, server_name: String) -> Self {
        Self { tls: Some(server_name), ..self }
    }

    /// Serves recorded flows, which name their nodes.
    #[must_use]
    pub fn recorded(self) -> Self {
        Self { is_recorded: true, ..self }
    }

    /// The nodes whose flows are served; this node, if recorded flows name none.
    fn nodes(&self) -> Vec<String> {
        let named = || self.sink.ring.flows_by_node().into_keys().filter(|name| !name.is_empty());
        let recorded: Vec<String> = if self.is_recorded { named().collect() } else { Vec::new() };
        if recorded.is_empty() { self.nodes.clone() } else { recorded }
    }

    /// The namespaces of the last hour, and those of flows still in the ring.
    fn namespaces(&self) -> BTreeSet<String> {
        let mut namespaces = BTreeSet::from_iter(self.sink.namespaces.list(Instant::now()));
        let mut known = AHashSet::new();
        for batch in self.sink.ring.batches() {
            for end in batch.flows().flat_map(|flow| [flow.source(), flow.destination()]).flatten() {
                if known.insert(end.id()) {
                    namespaces.insert(end.message().string(number::endpoint::NAMESPACE).to_owned());
                }
            }
        }
        namespaces.remove("");
        namespaces
    }

    fn uptime_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Flows a second over the last minute, or since the oldest flow of a younger ring.
    fn flows_rate(&self) -> f64 {
        let ring = &self.sink.ring;
        let now = SystemTime::now();
        let age = |time: Option<prost_types::Timestamp>| {
            let time = SystemTime::try_from(time?).ok()?;
            Some(now.duration_since(time).unwrap_or_default())
        };
        let Range { start, end } = ring.range();
        let (mut count, mut before) = (0u64, end);
        while before > start {
            let batch = ring.read_back(before);
            let recent = |flow: &&Encoded| age(flow.time()).is_some_and(|age| age <= RATE_WINDOW);
            let recent = batch.flows().rev().take_while(recent).count();
            count += recent as u64;
            // The flows before these are older still.
            before = if recent == batch.flows().count() { batch.next - batch.records().len() as u64 } else { start };
            if batch.records().is_empty() {
                break;
            }
        }
        let oldest = ring.read(start, end).flows().next().and_then(|oldest| age(oldest.time()));
        let window = oldest.map_or(RATE_WINDOW, |age| age.min(RATE_WINDOW));
        let (count, seconds) = (count as f64, window.as_secs_f64());
        if seconds > 0.0 { count / seconds } else { 0.0 }
    }
}

fn version() -> String {
    format!("meridian v{}", env!("CARGO_PKG_VERSION"))
}

#[tonic::async_trait]
impl Observer for Server {
    type GetFlowsStream = BoxStream<'static, Result<Reply, Status>>;
    type GetAgentEventsStream = BoxStream<'static, Result<GetAgentEventsResponse, Status>>;
    type GetDebugEventsStream = BoxStream<'static, Result<GetDebugEventsResponse, Status>>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        let server = self.nodes.first().cloned().unwrap_or_default();
        let ring = Arc::clone(&self.sink.ring);
        let place = get_flows::place(&ring)?;
        let (costly, filters, shutdown) = (self.costly.clone(), Arc::clone(&self.filters), self.shutdown.clone());
        let serving = StreamContext { server, costly, filters, shutdown };
        let takes_long = Filters::take_long_to_compile(&request.whitelist, &request.blacklist);
        // The semaphore is never closed.
        let turn = if takes_long { Arc::clone(&self.compiling).acquire_owned().await.ok() } else { None };
        // Compiling many filters takes a while, so it runs off the async threads.
        let started = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            get_flows::stream(&ring, &request, serving, place)
        });
        // A request that its client gives up is not compiled any more.
        let stream = AbortOnDropHandle::new(started).await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(stream.boxed()))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        // Cilium's agent has these events; only recorded ones are served.
        let asked = EventQuery::try_from(request.into_inner())?;
        Ok(Response::new(events::stream(&self.sink.agent_events, asked, self.shutdown.clone()).boxed()))
    }

    async fn get_debug_events(
        &self,
        request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        let asked = EventQuery::try_from(request.into_inner())?;
        Ok(Response::new(events::stream(&self.sink.debug_events, asked, self.shutdown.clone()).boxed()))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let ring = &self.sink.ring;
        let flows = ring.flows_by_node();
        let nodes = self.nodes();
        // A single node serves only its own flows.
        let alone = nodes.len() == 1;
        let mut held: BTreeMap<String, u64> = BTreeMap::new();
        for batch in ring.batches() {
            for flow in batch.flows() {
                let name = if alone { nodes[0].as_str() } else { flow.node_name() };
                match held.get_mut(name) {
                    Some(held) => *held += 1,
                    None => drop(held.insert(name.to_owned(), 1)),
                }
            }
        }
        let node = |name: &String| Node {
            name: name.clone(),
            version: version(),
            state: NodeState::NodeConnected.into(),
            tls: Some(Tls { enabled: self.tls.is_some(), server_name: self.tls.clone().unwrap_or_default() }),
            uptime_ns: self.uptime_ns(),
            num_flows: held.get(name).copied().unwrap_or_default(),
            max_flows: ring.capacity(),
            seen_flows: if alone { ring.flows_ever() } else { flows.get(name).copied().unwrap_or_default() },
            ..Node::default()
        };
        Ok(Response::new(GetNodesResponse { nodes: nodes.iter().map(node).collect() }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let namespaces = self.namespaces();
        // The default cluster's name is left out.
        let namespace = |namespace| Namespace { cluster: self.cluster.clone(), namespace };
        Ok(Response::new(GetNamespacesResponse { namespaces: namespaces.into_iter().map(namespace).collect() }))
    }

    async fn server_status(&self, _: Request<ServerStatusRequest>) -> Result<Response<ServerStatusResponse>, Status> {
        let ring = &self.sink.ring;
        Ok(Response::new(ServerStatusResponse {
            num_flows: ring.len(),
            max_flows: ring.capacity(),
            seen_flows: ring.flows_ever(),
            uptime_ns: self.uptime_ns(),
            num_connected_nodes: Some(u32::try_from(self.nodes().len()).unwrap_or(u32::MAX)),
            num_unavailable_nodes: Some(0),
            unavailable_nodes: Vec::new(),
            version: version(),
            flows_rate: self.flows_rate(),
        }))
    }
}
