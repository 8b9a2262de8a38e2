//! The agent of one node: reads the kernel's counters, makes flow events of them and sums them up.

use crate::{
    accounting::{Accounting, End, Line},
    datapath::{Datapath, Error},
    flows::{Encoded, Lost, Namespaces, News, Node, Observer, Record, Ring, Tracker},
    identity::Index,
    metrics::{FeedState, Sample, TableState},
    proto::{flow::LostEventSource, number},
    zones::{Change, Matrix, Pair, Place, SharedTable, Slots, Table, TooManyZones},
};
use ipnetwork::IpNetwork;
use meridian_abi::{Counter, stats::Stat, zone};
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
    pub fn take_all(&self, mut flows: Vec<Encoded>, now: Instant) {
        flows.sort_by_key(|flow| flow.time().map(|time| (time.seconds, time.nanos)));
        flows.into_iter().for_each(|flow| self.take(flow, now));
    }

    fn take(&self, flow: Encoded, now: Instant) {
        self.see_namespaces(&flow, now);
        self.ring.push(flow);
    }

    /// Takes what was recorded earlier, as it is.
    pub fn take_recorded(&self, record: Record, now: Instant) {
        if let Some(flow) = record.flow() {
            self.see_namespaces(flow, now);
        }
        self.ring.push_record(record);
    }

    fn see_namespaces(&self, flow: &Encoded, now: Instant) {
        for end in [flow.source(), flow.destination()].into_iter().flatten() {
            self.namespaces.see(end.message().string(number::endpoint::NAMESPACE), now);
        }
    }
}

/// A node's programs with what userspace knows of them.
pub struct Agent {
    datapath: Datapath,
    slots: Slots,
    index: Arc<Index>,
    tracker: Tracker,
    observer: Observer,
    accounting: Accounting,
    sink: Sink,
    /// The table in force.
    zones: SharedTable,
    table: TableState,
    /// Entries that the last drain saw, and the seconds that it took.
    drained: (u64, f64),
    /// Events that were lost up to the last drain, and when that was.
    lost: (u64, SystemTime),
}

impl Agent {
    /// An agent over programs that are loaded. `index` says who has an address.
    pub fn new(node: Node, datapath: Datapath, index: Arc<Index>, accounting: Accounting, sink: Sink) -> Self {
        let observer = Observer::new(node, Arc::clone(&index));
        let (loaded, confirmed) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let (prefixes, zones, reloads) = ((0, 0), (0, 0), (0, 0));
        let table = TableState { prefixes, zones, loaded, confirmed, reloads, addresses: 0, feed: None };
        let (slots, tracker) = (Slots::default(), Tracker::default());
        let (drained, lost) = ((0, 0.0), (0, SystemTime::now()));
        let zones = SharedTable::default();
        Self { datapath, slots, index, tracker, observer, accounting, sink, zones, table, drained, lost }
    }

    /// The same, with a table that others know already.
    #[must_use]
    pub fn with_table(self, zones: SharedTable) -> Self {
        Self { zones, ..self }
    }

    /// The programs.
    pub const fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Changes the table in force. Returns what it says of zones for which there is no room: the rest is in
    /// force.
    ///
    /// # Errors
    /// The kernel's answer; the old table stays in force then.
    pub fn change_zones(&mut self, changes: Vec<Change>, now: SystemTime) -> Result<Option<TooManyZones>, Error> {
        let changed: Vec<IpNetwork> = changes.iter().map(|(prefix, _)| *prefix).collect();
        let undo = self.zones.write().apply(changes);
        let table = self.zones.read();
        self.slots.assign(changed.iter().filter_map(|prefix| table.get(prefix)));
        let is_first = self.table.prefixes.0 == 0;
        let whole = is_first.then(|| table.networks()).into_iter().flatten();
        let applied = self.datapath.apply_zones(&table, changed.into_iter().chain(whole), &self.slots);
        if let Err(error) = applied {
            drop(table);
            self.zones.write().apply(undo);
            return Err(error);
        }
        let capacity = self.datapath.matrix_slots();
        self.table.prefixes = (table.len() as u64, self.datapath.prefix_limit()?);
        let room = capacity - u32::from(zone::FIRST_ZONE);
        self.table.zones = (self.slots.len() as u64, room.into());
        (self.table.loaded, self.table.confirmed) = (now, now);
        Ok(self.slots.fit(&table, capacity).err())
    }

    /// Classifies by this table from now on, as [`Agent::change_zones`] does.
    ///
    /// # Errors
    /// The kernel's answer; the old table stays in force then.
    pub fn apply_zones(&mut self, table: &Table, now: SystemTime) -> Result<Option<TooManyZones>, Error> {
        let changes = self.zones.read().changes_to(table);
        self.change_zones(changes, now)
    }

    /// The table in force, for others to read.
    pub fn zones(&self) -> SharedTable {
        self.zones.clone()
    }

    /// Where the node is.
    pub const fn node_place(&self) -> &Place {
        &self.observer.node().place
    }

    /// Remembers how the connection to the controller is.
    pub const fn tell_feed(&mut self, feed: FeedState) {
        self.table.feed = Some(feed);
    }

    /// Says from now on that the node is there.
    pub fn place_node(&mut self, place: &Place) {
        self.observer.place_node(place);
    }

    /// Remembers that the table in force is still what its source says.
    pub const fn confirm_zones(&mut self, now: SystemTime) {
        self.table.confirmed = now;
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
        Ok(Sample {
            node: self.observer.node().name.clone(),
            time: SystemTime::now(),
            hook: self.datapath.hook().name(),
            matrix: self.matrix()?,
            stats: stats.collect::<Result<_, _>>()?,
            totals: self.accounting.totals().clone(),
            flow_entries: (self.drained.0, self.datapath.flow_limit()),
            table: TableState { addresses: self.index.len() as u64, ..self.table.clone() },
            drain_seconds: self.drained.1,
        })
    }

    /// Flow events of the packets that the kernel has announced since the last time.
    pub fn announced(&mut self) -> Vec<Encoded> {
        let Self { datapath, slots, observer, .. } = self;
        let mut flows = Vec::new();
        datapath.events(|event| {
            let (source, destination) = (slots.place(event.verdict.source), slots.place(event.verdict.destination));
            flows.push(observer.packet(&event, &source, &destination));
        });
        flows
    }

    /// Sums up what is new in the flow entries, and makes the updates that are due.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn drain(&mut self, now: Instant, time: SystemTime) -> Result<(), Error> {
        self.read(now, time, false)
    }

    /// The same, and makes the updates that are not due yet, too.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn flush(&mut self, now: Instant, time: SystemTime) -> Result<(), Error> {
        self.read(now, time, true)
    }

    fn read(&mut self, now: Instant, time: SystemTime, flush: bool) -> Result<(), Error> {
        let Self { datapath, slots, index, tracker, observer, accounting, sink, drained, .. } = self;
        let (start, mut entries) = (Instant::now(), 0);
        datapath.flows(|entry| {
            entries += 1;
            let News { new, update } = tracker.read(&entry, now, flush);
            if new == Counter::default() && update.is_none() {
                return;
            }
            let end = |address, slot| End { address, owner: index.at(address, time), place: slots.place(slot) };
            let source = end(entry.source, entry.verdict.source);
            let destination = end(entry.destination, entry.verdict.destination);
            if new != Counter::default() {
                accounting.add(&source, &destination, new, now);
            }
            if let Some(update) = update {
                sink.take(observer.update(&entry, &source.place, &destination.place, update, time), now);
            }
        })?;
        accounting.turn(now);
        *drained = (entries, start.elapsed().as_secs_f64());
        self.say_lost(time)
    }

    /// Tells the clients of events that the ring buffer had no room for.
    fn say_lost(&mut self, now: SystemTime) -> Result<(), Error> {
        let lost = self.datapath.stat(Stat::EventLost)?.packets;
        let (known, first) = std::mem::replace(&mut self.lost, (lost, now));
        let count = lost.saturating_sub(known);
        if count > 0 {
            let node = self.observer.node().name.clone();
            let source = LostEventSource::PerfEventRingBuffer;
            let lost = Lost { node, source, count, first, last: now };
            self.sink.ring.push_record(Record::Lost(Box::new(lost)));
        }
        Ok(())
    }

    /// What crossed zones since the last call, pair by pair.
    pub fn take_interval(&mut self) -> Vec<Line> {
        self.accounting.take_interval()
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
