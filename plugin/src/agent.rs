//! The agent of one node: reads the kernel's counters and makes flow events of them.

use crate::{
    datapath::{Datapath, Error},
    flows::{Entry, Namespaces, Node, Observer, Ring, Tracker},
    identity::Index,
    metrics::{Sample, TableState},
    proto::flow::Flow,
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

impl Sink {
    /// Takes flow events in the order of their time; they come from several CPUs or nodes.
    pub fn take_all(&self, mut flows: Vec<Flow>, now: Instant) {
        flows.sort_by_key(|flow| flow.time.map(|time| (time.seconds, time.nanos)));
        flows.into_iter().for_each(|flow| self.take(flow, now));
    }

    fn take(&self, flow: Flow, now: Instant) {
        for endpoint in [&flow.source, &flow.destination].into_iter().flatten() {
            self.namespaces.see(&endpoint.namespace, now);
        }
        self.ring.push(flow);
    }
}

/// A node's programs with what userspace knows of them.
pub struct Agent {
    datapath: Datapath,
    slots: Slots,
    tracker: Tracker,
    observer: Observer,
    sink: Sink,
    table: TableState,
    /// Entries that the last drain saw, and the seconds that it took.
    drained: (u64, f64),
}

impl Agent {
    /// An agent over programs that are loaded. `index` says who has an address.
    pub fn new(node: Node, datapath: Datapath, index: Arc<Index>, sink: Sink) -> Self {
        let observer = Observer::new(node, index);
        let table = TableState { prefixes: 0, loaded: SystemTime::UNIX_EPOCH, reloads: (0, 0) };
        let (slots, tracker) = (Slots::default(), Tracker::default());
        Self { datapath, slots, tracker, observer, sink, table, drained: (0, 0.0) }
    }

    /// The programs.
    pub const fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Classifies by this table from now on. Returns what it says of zones for which there is no
    /// room: the table is in force without them.
    ///
    /// # Errors
    /// The kernel's answer; the old table stays in force then.
    pub fn apply_zones(&mut self, table: &Table, now: SystemTime) -> Result<Option<TooManyZones>, Error> {
        self.slots.assign(table);
        self.datapath.apply_zones(table, &self.slots)?;
        self.table.prefixes = table.prefixes().count() as u64;
        self.table.loaded = now;
        Ok(self.slots.fit(table, self.datapath.matrix_slots()).err())
    }

    /// Remembers that a table was read after the first one, and whether it was taken.
    pub const fn reloaded(&mut self, taken: bool) {
        if taken {
            self.table.reloads.0 += 1;
        } else {
            self.table.reloads.1 += 1;
        }
    }

    /// What is known of the node now.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn sample(&self) -> Result<Sample, Error> {
        let stats = Stat::ALL.into_iter().map(|stat| self.datapath.stat(stat).map(|counter| (stat, counter)));
        let ring = &self.sink.ring;
        Ok(Sample {
            node: self.observer.node().name.clone(),
            hook: self.datapath.hook().name(),
            matrix: self.matrix()?,
            stats: stats.collect::<Result<_, _>>()?,
            flow_entries: (self.drained.0, self.datapath.flow_limit()),
            ring: (ring.len() as u64, ring.capacity() as u64, ring.seen()),
            table: self.table.clone(),
            drain_seconds: self.drained.1,
        })
    }

    /// Flow events of the packets that the kernel has announced since the last time.
    pub fn announced(&mut self) -> Vec<Flow> {
        let Self { datapath, slots, observer, .. } = self;
        let mut flows = Vec::new();
        datapath.events(|event| {
            let (source, destination) = (slots.place(event.verdict.source), slots.place(event.verdict.destination));
            flows.push(observer.packet(&event, &source, &destination));
        });
        flows
    }

    /// Makes the updates of flow entries that are due.
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
        let Self { datapath, slots, tracker, observer, sink, drained, .. } = self;
        let (start, mut entries) = (Instant::now(), 0);
        datapath.flows(|entry| {
            entries += 1;
            let Some(new) = due(tracker, &entry, now) else { return };
            let (source, destination) = (slots.place(entry.verdict.source), slots.place(entry.verdict.destination));
            sink.take(observer.update(&entry, &source, &destination, new, time), now);
        })?;
        *drained = (entries, start.elapsed().as_secs_f64());
        Ok(())
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
            attributed += entry.counter;
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
