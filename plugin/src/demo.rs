//! Meridian's main job on one machine without a cluster: the kernel programs count real traffic between network
//! namespaces, and the demo compares their counters with the wire, byte by byte.
//!
//! Nothing is pinned, so all of it is gone when the process ends, in whatever way.

mod cost;
mod error;
mod history;
mod report;
pub mod topology;
mod traffic;
mod truth;

pub use cost::Cost;
pub use error::Error;
pub use report::{Report, live, progress};

use crate::{
    accounting::{Accounting, Line},
    advice::{self, Advice, Snapshot},
    catalogue::Catalogue,
    cost::PriceTable,
    counters::Sample,
    datapath::{self, Datapath, Device, Devices, Hook, Options},
    flows::{Node, Sink},
    historian::Historian,
    identity::Index,
    meter::{Attribution, HookState, Meter},
    recorder::Directory,
    statement::{Dimension, Query, Statement},
    zones::{Matrix, Slots, StaticTable},
};
use history::{DemoHistory, lock};
use meridian_abi::{Counter, stats::Stat};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};
use topology::{NODES, NodeNet, Topology};
use traffic::Traffic;
use truth::Tap;

/// The interval and number of comparisons between the wire and the counters after the traffic has ended: late
/// segments and acknowledgements are under way for a while.
const SETTLE: Duration = Duration::from_millis(100);
const SETTLE_TRIES: usize = 100;
/// The limit of series by pod and by workload: more than the demo has.
const SERIES: usize = 1000;

/// The cluster with its meters, and the taps on its wire. Fields are dropped in this order: first the traffic ends,
/// then the programs are detached, then the namespaces go.
pub struct Demo {
    hook: Hook,
    sink: Sink,
    traffic: Option<Traffic>,
    meters: Vec<Mutex<Meter>>,
    taps: Vec<Tap>,
    topology: Topology,
    recording: Mutex<DemoHistory>,
    began: Instant,
}

impl Demo {
    /// Builds the cluster, attaches the programs and starts the traffic. Flow events go to `sink`, sums to the history.
    ///
    /// # Errors
    /// The kernel or this process's rights do not allow it; nothing is left behind.
    pub fn start(hook: Hook, sink: &Sink, historian: Arc<Historian>) -> Result<Self, Error> {
        let table = Self::table()?;
        let index = Arc::new(Index::default());
        index.replace(&table.endpoints);
        let mut topology = Topology::new()?;
        let taps = (0..NODES.len()).map(|node| Tap::new(&topology.wire, node)).collect::<Result<_, _>>()?;
        let meters = topology
            .nodes
            .iter()
            .enumerate()
            .map(|(node, net)| meter(hook, node, net, &table, &index, sink).map(Mutex::new))
            .collect::<Result<_, _>>()?;
        topology.start()?;
        let traffic = Some(Traffic::start(&topology)?);
        let directory = Directory { providers: table.providers, ..Directory::default() };
        let recording = Mutex::new(DemoHistory::new(historian, directory));
        Ok(Self { hook, sink: sink.clone(), traffic, meters, taps, topology, recording, began: Instant::now() })
    }

    /// Makes flow events from the packets that the kernels of all nodes have announced.
    pub fn drain_events(&self) {
        let flows = self.meters.iter().flat_map(|meter| lock(meter).announced()).collect();
        self.sink.take_all(flows, Instant::now());
    }

    /// Makes the due updates of the flow entries of all nodes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn drain(&self) -> Result<(), Error> {
        self.each(|meter| {
            meter.empty_idle();
            meter.drain(Instant::now(), SystemTime::now())
        })
    }

    /// Puts the traffic since the last call into the history.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn record(&self) -> Result<(), Error> {
        lock(&self.recording).record(&self.meters, false)
    }

    /// The zone matrix, summed over all nodes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counted(&self) -> Result<Matrix, Error> {
        let mut sum = Matrix::default();
        self.each(|meter| meter.matrix().map(|matrix| sum.merge(&matrix)))?;
        Ok(sum)
    }

    /// The current sample of every node.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn samples(&self) -> Result<Vec<Sample>, Error> {
        let mut samples = Vec::new();
        self.each(|meter| meter.sample(&HookState::default(), None).map(|sample| samples.push(sample)))?;
        Ok(samples)
    }

    /// Takes the cross-zone pairs of each node since the last call.
    pub fn take_interval(&self) -> Vec<(&'static str, Vec<Line>)> {
        let of_node = |(node, meter): (&topology::NodeSpec, &Mutex<Meter>)| (node.name, lock(meter).take_interval());
        NODES.iter().zip(&self.meters).map(of_node).collect()
    }

    /// The demo's zone table.
    ///
    /// # Errors
    /// The table is invalid.
    pub fn table() -> Result<StaticTable, Error> {
        Ok(StaticTable::parse(Path::new("the demo's zones"), topology::zones_yaml().as_bytes())?)
    }

    /// The nodes' namespaces, in the order of [`NODES`].
    pub fn nodes(&self) -> &[NodeNet] {
        &self.topology.nodes
    }

    /// The ids of the nodes' maps ZONE_MATRIX.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn matrix_ids(&self) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::new();
        self.each(|meter| meter.datapath().matrix_id().map(|id| ids.push(id)))?;
        Ok(ids)
    }

    /// A counter of all nodes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stat(&self, stat: Stat) -> Result<Counter, Error> {
        let mut sum = Counter::default();
        self.each(|meter| {
            sum += meter.datapath().stat(stat)?;
            Ok(())
        })?;
        Ok(sum)
    }

    /// The prices of the demo: its own below those of the user, above the list.
    ///
    /// # Errors
    /// They are not good ones.
    pub fn prices(prices: PriceTable) -> Result<PriceTable, Error> {
        Ok(prices.with_more(Path::new("the demo's prices"), topology::PRICES.as_bytes())?)
    }

    /// Ends the traffic, waits until the wire is quiet, compares, and prices the traffic.
    ///
    /// # Errors
    /// The kernel refuses, or the traffic failed.
    pub fn finish(&mut self) -> Result<Report, Error> {
        if let Some(traffic) = self.traffic.take() {
            traffic.stop()?;
        }
        let elapsed = self.began.elapsed();
        for _ in 0..SETTLE_TRIES {
            if self.is_settled()? {
                break;
            }
            thread::sleep(SETTLE);
        }
        self.drain_events();
        self.each(|meter| meter.flush(Instant::now(), SystemTime::now()))?;
        let mut attribution = Attribution::default();
        self.each(|meter| {
            let of_node = meter.attribution()?;
            attribution.attributed += of_node.attributed;
            attribution.unattributed += of_node.unattributed;
            Ok(())
        })?;
        let cost = Cost::new(&self.statement()?, elapsed);
        let report = Report::new(self.hook.name(), &self.counted()?, &self.sent(), attribution);
        Ok(report.with_cost(cost).with_advice(self.advice(elapsed)?))
    }

    /// Traffic since the start, by workload.
    fn statement(&self) -> Result<Statement, Error> {
        let mut recording = lock(&self.recording);
        recording.record(&self.meters, true)?;
        let query = Query { by: Dimension::Workload, ..Query::default() };
        Ok(recording.historian.statement(query, 0, u64::MAX)?)
    }

    /// The changes that pay at this rate.
    fn advice(&self, elapsed: Duration) -> Result<Advice, Error> {
        let historian = Arc::clone(&lock(&self.recording).historian);
        let mut traffic = advice::Traffic::default();
        historian.read(0, u64::MAX, |block| traffic.add(block))?;
        traffic.set_recorded(elapsed);
        let catalogue = Catalogue::of_static(&Self::table()?);
        let snapshot = Snapshot { traffic: &traffic, catalogue: &catalogue, prices: &historian.prices() };
        Ok(Advice::new(&snapshot, &advice::Options::all()))
    }

    /// Starts the traffic again after [`Self::finish`].
    ///
    /// # Errors
    /// A thread or a port is not available.
    pub fn resume(&mut self) -> Result<(), Error> {
        if self.traffic.is_none() {
            lock(&self.recording).begin();
            self.traffic = Some(Traffic::start(&self.topology)?);
        }
        Ok(())
    }

    /// Whether there is traffic.
    pub const fn is_running(&self) -> bool {
        self.traffic.is_some()
    }

    fn sent(&self) -> Matrix {
        let mut sum = Matrix::default();
        self.taps.iter().for_each(|tap| sum.merge(&tap.carried().matrix));
        sum
    }

    /// Whether the taps have seen every frame on the wire, and the kernel has counted it.
    fn is_settled(&self) -> Result<bool, Error> {
        for tap in &self.taps {
            if !tap.is_complete(&self.topology.wire)? {
                return Ok(false);
            }
        }
        Ok(self.counted()? == self.sent())
    }

    fn each(&self, mut work: impl FnMut(&mut Meter) -> Result<(), datapath::Error>) -> Result<(), Error> {
        Ok(self.meters.iter().try_for_each(|meter| work(&mut lock(meter)))?)
    }
}

/// Loads and attaches the programs in a node's namespace.
fn meter(
    hook: Hook,
    node: usize,
    net: &NodeNet,
    table: &StaticTable,
    index: &Arc<Index>,
    sink: &Sink,
) -> Result<Meter, Error> {
    let mut slots = Slots::default();
    slots.assign(table.zones.placements());
    let options = Options { hook, matrix_slots: slots.matrix_slots(), flow_slots: 16_384, ..Options::default() };
    let identity = Node::new(NODES[node].name, topology::place(node));
    let accounting = Accounting::new(SERIES, true).with_growth();
    let mut meter = Meter::new(identity, Datapath::load(options)?, Arc::clone(index), accounting, sink.clone());
    meter.datapath().set_devices(Devices { devices: vec![Device::uplink(net.uplink)], ..Devices::default() })?;
    // The matrix has room for the demo's three zones.
    meter.apply_zones(&table.zones, SystemTime::now())?;
    meter.place_node(&topology::place(node))?;
    let attached = net.namespace.run(|| meter.datapath().attach())??;
    tracing::debug!(node = NODES[node].name, ?attached, "attached");
    Ok(meter)
}
