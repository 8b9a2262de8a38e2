//! The agent of one node: reads the kernel's counters and makes flow events of them.

use crate::{
    datapath::{Datapath, Error},
    flows::{Entry, Namespaces, Node, Observer, Ring, Tracker},
    identity::Index,
    zones::{Matrix, Pair, Slots, Table, TooManyZones},
};
use meridian_abi::{Counter, stats::Stat};
use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

/// Where an agent's flow events go; several agents may share it.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The flow events.
    pub ring: Arc<Ring>,
    /// The namespaces that they named.
    pub namespaces: Arc<Namespaces>,
}

/// A node's programs with what userspace knows of them.
pub struct Agent {
    datapath: Datapath,
    slots: Slots,
    tracker: Tracker,
    observer: Observer,
    sink: Sink,
}

impl Agent {
    /// An agent over programs that are loaded. `index` says who has an address.
    pub fn new(node: Node, datapath: Datapath, index: Arc<Index>, sink: Sink) -> Self {
        let observer = Observer::new(node, index);
        Self { datapath, slots: Slots::default(), tracker: Tracker::default(), observer, sink }
    }

    /// The programs.
    pub const fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Classifies by this table from now on.
    ///
    /// # Errors
    /// The kernel's answer; the old table stays in force then. `Ok(Err(_))`: the table is in force,
    /// but some of its zones count as unknown.
    pub fn apply_zones(&mut self, table: &Table) -> Result<Result<(), TooManyZones>, Error> {
        let assigned = self.slots.assign(table);
        self.datapath.apply_zones(table, &self.slots)?;
        Ok(assigned)
    }

    /// Makes the flow events that are due.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn drain(&mut self, now: Instant, time: SystemTime) -> Result<(), Error> {
        self.report(now, time, Tracker::update)
    }

    /// Makes flow events of all that was not yet told, due or not.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn flush(&mut self, now: Instant, time: SystemTime) -> Result<(), Error> {
        self.report(now, time, Tracker::flush)
    }

    fn report(
        &mut self,
        now: Instant,
        time: SystemTime,
        due: impl Fn(&mut Tracker, &Entry, Instant) -> Option<Counter>,
    ) -> Result<(), Error> {
        let Self { datapath, slots, tracker, observer, sink } = self;
        datapath.flows(|entry| {
            let Some(new) = due(tracker, &entry, now) else { return };
            let (source, destination) = (slots.place(entry.verdict.source), slots.place(entry.verdict.destination));
            let flow = observer.update(&entry, &source, &destination, new, time);
            for endpoint in [&flow.source, &flow.destination].into_iter().flatten() {
                sink.namespaces.see(&endpoint.namespace, now);
            }
            sink.ring.push(flow);
        })
    }

    /// What the kernel counted, by zone pair.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn matrix(&self) -> Result<Matrix, Error> {
        let mut matrix = Matrix::default();
        for cell in self.datapath.matrix()? {
            let (source, destination) = (self.slots.place(cell.source), self.slots.place(cell.destination));
            matrix.add(Pair { source, destination, version: cell.version }, cell.counter);
        }
        Ok(matrix)
    }

    /// What the kernel counted in flow entries, and what it could not attribute to one.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn attribution(&self) -> Result<Attribution, Error> {
        let mut attributed = Counter::default();
        self.datapath.flows(|entry| {
            attributed.bytes += entry.counter.bytes;
            attributed.packets += entry.counter.packets;
        })?;
        Ok(Attribution { attributed, unattributed: self.datapath.stat(Stat::Unattributed)? })
    }
}

/// How much of the traffic is known by address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// In flow entries.
    pub attributed: Counter,
    /// In the matrix only: the flow map was full.
    pub unattributed: Counter,
}
