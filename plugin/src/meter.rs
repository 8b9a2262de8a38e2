//! The meter of one node: reads the kernel's counters, makes flow events and sums the traffic.

mod externals;
mod hook_state;
mod hook_watch;
mod resolved;

pub use hook_state::HookState;
pub use hook_watch::HookWatch;

use crate::{
    accounting::{self, Accounting, Line, Service},
    atomic_file,
    counters::{self, CounterScope, CounterSnapshot, FeedState, Sample, TableState},
    datapath::{Datapath, Error, Readable, Retiring},
    flows::{Encoded, Entry, FlowBuilder, Growth, Lost, Node, Progress, Record, Sink, SlotId, Tracker},
    identity::Index,
    proto::{
        flow::LostEventSource,
        v1::{SavedCounters, saved_counters},
    },
    wire,
    zones::{Change, Matrix, Pair, Place, SharedTable, Slots, Table, TooManyZones},
};
use ipnetwork::IpNetwork;
use meridian_abi::{Counter, share, stats::Stat, zone};
use prost::Message;
use resolved::{Resolver, Sources};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// The programs of a node, and the userspace state that belongs to them.
pub struct Meter {
    datapath: Datapath,
    slots: Slots,
    index: Arc<Index>,
    tracker: Tracker,
    builder: FlowBuilder,
    accounting: Accounting,
    sink: Sink,
    /// The table in force.
    zones: SharedTable,
    table: TableState,
    /// The number of entries in the last drain, and the seconds that it took.
    drained: (u64, f64),
    /// The events lost up to the last drain, and its time.
    lost: (u64, SystemTime),
    /// Idle entries that are out of use at the next drain.
    retiring: Vec<Retiring>,
    /// Entries that are out of use and were summed. Their slots are emptied once the sums are saved.
    finished: Vec<SlotId>,
    /// The time at which the sums were last saved.
    kept: Option<Instant>,
    /// The external prefixes that have traffic.
    resolver: Resolver,
}

/// The sums of an earlier agent can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is unusable.
    #[error(transparent)]
    File(#[from] atomic_file::Error),
    /// The kernel refuses.
    #[error(transparent)]
    Datapath(#[from] Error),
}

const MAGIC: &atomic_file::Magic = b"mrdncnt1";
/// The interval at which the sums are saved, and the shorter one while slots wait for it.
const SAVED_EVERY: Duration = Duration::from_secs(30);
const SAVED_EVERY_WHEN_IDLE: Duration = Duration::from_secs(5);

/// The idle time after which an entry is removed, and the shorter one while the flow maps are three quarters full.
const IDLE: Duration = Duration::from_secs(300);
const IDLE_WHEN_FULL: Duration = Duration::from_nanos(share::ENTRIES_PERIOD_NS);
/// The most entries that one drain removes.
const RETIRED_AT_ONCE: usize = 8192;

impl Meter {
    /// A meter for loaded programs. `index` resolves addresses to endpoints.
    pub fn new(node: Node, datapath: Datapath, index: Arc<Index>, accounting: Accounting, sink: Sink) -> Self {
        let builder = FlowBuilder::new(node, Arc::clone(&index));
        let (loaded, confirmed) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let (prefixes, zones, reloads) = ((0, 0), (0, 0), (0, 0));
        let table = TableState { prefixes, zones, loaded, confirmed, reloads, addresses: 0, feed: None };
        let tracker = Tracker::default();
        let (drained, lost) = ((0, 0.0), (0, SystemTime::now()));
        let zones = SharedTable::default();
        let (retiring, finished) = (Vec::new(), Vec::new());
        let slots = Slots::restore(datapath.named_zones().to_vec());
        Self {
            datapath,
            slots,
            index,
            tracker,
            builder,
            accounting,
            sink,
            zones,
            table,
            drained,
            lost,
            retiring,
            finished,
            kept: None,
            resolver: Resolver::default(),
        }
    }

    /// Uses a table that other tasks share.
    #[must_use]
    pub fn with_table(self, zones: SharedTable) -> Self {
        Self { zones, ..self }
    }

    /// The programs.
    pub const fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Changes the table in force. Returns the zones that have no room in the matrix; everything else is in force.
    ///
    /// # Errors
    /// The kernel refuses; the old table then stays in force.
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
        self.resolver.table_changed();
        let capacity = self.datapath.matrix_slots();
        self.table.prefixes = (table.len() as u64, self.datapath.prefix_limit()?);
        let room = capacity - u32::from(zone::FIRST_ZONE);
        self.table.zones = (self.slots.len() as u64, room.into());
        (self.table.loaded, self.table.confirmed) = (now, now);
        Ok(self.slots.fit(&table, capacity).err())
    }

    /// Replaces the table in force, as [`Meter::change_zones`] does.
    ///
    /// # Errors
    /// The kernel refuses; the old table then stays in force.
    pub fn apply_zones(&mut self, table: &Table, now: SystemTime) -> Result<Option<TooManyZones>, Error> {
        let changes = self.zones.read().changes_to(table);
        self.change_zones(changes, now)
    }

    /// The table in force, shared with other tasks.
    pub fn zones(&self) -> SharedTable {
        self.zones.clone()
    }

    /// The node's place.
    pub const fn node_place(&self) -> &Place {
        &self.builder.node().place
    }

    /// Sets the node's place.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn place_node(&mut self, place: &Place) -> Result<(), Error> {
        self.builder.place_node(place);
        let slot = self.slots.of(place, self.datapath.matrix_slots());
        self.datapath.set_node(slot, &self.zones.read(), &self.slots)
    }

    /// Records that the table in force still agrees with its source.
    pub const fn confirm_zones(&mut self, now: SystemTime) {
        self.table.confirmed = now;
    }

    /// Records that a further table was read, and whether it was accepted.
    pub const fn reloaded(&mut self, is_accepted: bool) {
        if is_accepted {
            self.table.reloads.0 += 1;
        } else {
            self.table.reloads.1 += 1;
        }
    }

    /// The node's counters now, together with the state of its hook and of its connection to the controller.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sample(&self, hook: &HookState, feed: Option<FeedState>) -> Result<Sample, Error> {
        let boot_id = self.datapath.boot_id()?.into_bytes();
        Ok(Sample {
            counted: CounterSnapshot {
                whose: CounterScope::Node(self.builder.node().name.clone()),
                time: SystemTime::now(),
                began: counters::began(boot_id),
                epoch: 0,
                matrix: self.matrix()?,
                stats: self.datapath.stats()?.all(),
                totals: self.accounting.totals().clone(),
            },
            boot_id,
            hook: self.datapath.hook().name(),
            hook_reason: Arc::clone(&hook.reason),
            hook_changes: hook.changes,
            refused_hook_steps: hook.refused,
            device_bytes: hook.seen,
            foreign_filters: hook.foreign_filters,
            restored_filters: self.datapath.restored_filters(),
            flow_entries: (self.drained.0, self.datapath.flow_limit()),
            table: TableState { addresses: self.index.len() as u64, feed, ..self.table.clone() },
            drain_seconds: self.drained.1,
        })
    }

    /// A handle that waits for announced packets. Must be called inside a runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn announcements(&self) -> Result<Readable, Error> {
        self.datapath.announcements()
    }

    /// The flow events of packets that the kernel announced since the last call.
    pub fn announced(&mut self) -> Vec<Encoded> {
        let Self { datapath, slots, builder, .. } = self;
        let mut flows = Vec::new();
        datapath.events(|event| {
            let (source, destination) = (slots.place(event.verdict.source), slots.place(event.verdict.destination));
            flows.push(builder.packet(&event, &source, &destination));
        });
        flows
    }

    /// Sums the growth of the flow entries, and makes the updates that are due.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn drain(&mut self, now: Instant, time: SystemTime) -> Result<(), Error> {
        self.read(now, time, false)
    }

    /// Drains, and makes the updates that are not due yet, too.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn flush(&mut self, now: Instant, time: SystemTime) -> Result<(), Error> {
        self.read(now, time, true)
    }

    fn read(&mut self, now: Instant, time: SystemTime, flush: bool) -> Result<(), Error> {
        let start = Instant::now();
        let retired = self.datapath.retired(std::mem::take(&mut self.retiring));
        let zones = self.zones.clone();
        let table = zones.read();
        let Self { datapath, slots, index, tracker, builder, accounting, sink, drained, resolver, .. } = self;
        resolver.begin(index);
        let sources = Sources { index, table: &table, slots, time };
        // As full as at the last drain. Only entries that are due are remembered: others would take their room.
        let is_full = drained.0 * 4 >= datapath.flow_limit() * 3 / 2;
        let after = if is_full { IDLE_WHEN_FULL } else { IDLE };
        let (mut entries, mut due) = (0, Vec::new());
        let mut report = |entry: Entry, flush| {
            let Growth { new, update, idle } = tracker.read(&entry, now, flush);
            if new == Counter::default() && update.is_none() {
                return idle;
            }
            let resolved = resolver.resolve(&entry, &sources);
            if new != Counter::default() {
                resolved.add(accounting, Service::new(entry.service_port, entry.protocol, entry.side), new, now);
            }
            if let Some(update) = update {
                let (source, destination) = (&resolved.source.place, &resolved.destination.place);
                sink.take(builder.update(&entry, source, destination, update, time), now);
            }
            idle
        };
        for entry in &retired {
            report(*entry, true);
        }
        datapath.flows(|entry| {
            entries += 1;
            if report(entry, flush) >= after && due.len() < RETIRED_AT_ONCE {
                due.push(entry);
            }
        });
        accounting.expire(now);
        self.finished.extend(retired.into_iter().map(|entry| entry.slot));
        self.retiring = due.iter().filter_map(|entry| self.datapath.retire(entry)).collect();
        self.drained = (entries, start.elapsed().as_secs_f64());
        self.report_losses(time)
    }

    /// Saves the sums in a file for the next agent, if a save is due or with `now`; `None` if it is not. Then empties
    /// the slots of idle entries, whose counters are no longer needed. If the file can't be written, the slots are
    /// emptied after a later save.
    pub fn keep(&mut self, path: &Path, at: Instant, now: bool) -> Option<Result<(), atomic_file::Error>> {
        let every = if self.finished.is_empty() { SAVED_EVERY } else { SAVED_EVERY_WHEN_IDLE };
        if !now && self.kept.is_some_and(|kept| at.duration_since(kept) < every) {
            return None;
        }
        self.kept = Some(at);
        let boot_id = self.datapath.boot_id().map(|id| id.into_bytes().to_vec()).unwrap_or_default();
        let entry = |(SlotId(slot), known): (SlotId, Progress)| saved_counters::Entry {
            slot: slot as u64,
            generation: known.generation.into(),
            read: Some(known.read.into()),
            reported: Some(known.reported.into()),
        };
        let entries = self.tracker.progress().map(entry).collect();
        let saved = SavedCounters { boot_id, entries, sums: Some(wire::sums(&self.accounting)) };
        // No sync: a crash of the machine also ends the counters.
        let kept = atomic_file::write(path, MAGIC, &saved.encode_to_vec(), false);
        if kept.is_ok() {
            self.empty_idle();
        }
        Some(kept)
    }

    /// Restores the sums that an earlier agent saved for the same counters. Returns whether there were any. The table
    /// must be in force.
    ///
    /// # Errors
    /// The file is damaged, or the kernel refuses.
    pub fn restore_sums(&mut self, path: &Path, now: Instant) -> Result<bool, RestoreError> {
        self.datapath.bring_back(&self.zones.read(), &self.slots);
        // The earlier agent has reported its own losses.
        self.lost.0 = self.datapath.stat(Stat::EventLost)?.packets;
        let Some(body) = atomic_file::read(path, MAGIC)? else { return Ok(false) };
        let saved = SavedCounters::decode(body.as_slice()).map_err(|error| atomic_file::damaged(path, error))?;
        if saved.boot_id != self.datapath.boot_id()?.into_bytes() {
            return Ok(false);
        }
        let slots = self.datapath.flow_limit();
        let known = |entry: &saved_counters::Entry| {
            let counter = |counter: Option<_>| counter.map(Counter::from).unwrap_or_default();
            let (read, reported) = (counter(entry.read), counter(entry.reported));
            (SlotId(entry.slot as usize), Progress { generation: entry.generation as u16, read, reported })
        };
        self.tracker.restore(saved.entries.iter().filter(|entry| entry.slot < slots).map(known), now);
        wire::restore(&mut self.accounting, saved.sums.unwrap_or_default(), now);
        Ok(true)
    }

    /// Empties the slots of idle entries. All sums must be saved where the next agent finds them, unless there is no
    /// next agent.
    pub fn empty_idle(&mut self) {
        let finished = std::mem::take(&mut self.finished);
        for slot in &finished {
            self.tracker.forget(*slot);
            self.resolver.forget(*slot);
        }
        self.datapath.empty(finished);
    }

    /// Reports the events that the ring buffer had no room for.
    fn report_losses(&mut self, now: SystemTime) -> Result<(), Error> {
        let lost = self.datapath.stat(Stat::EventLost)?.packets;
        let (known, first) = std::mem::replace(&mut self.lost, (lost, now));
        let count = lost.saturating_sub(known);
        if count > 0 {
            let node = self.builder.node().name.clone();
            let source = LostEventSource::PerfEventRingBuffer;
            let (first, last) = (Some(first.into()), Some(now.into()));
            let lost = Lost { node, source, count, cpu: None, first, last, time: last };
            self.sink.take_recorded(Record::Lost(Box::new(lost)), Instant::now());
        }
        Ok(())
    }

    /// Takes the cross-zone pairs since the last call.
    pub fn take_interval(&mut self) -> Vec<Line> {
        self.accounting.take_interval()
    }

    /// The growth for the history, if it is kept.
    pub const fn growth(&mut self) -> Option<&mut accounting::TrafficAccumulator> {
        self.accounting.growth_mut()
    }

    /// The kernel's counters by zone pair.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn matrix(&self) -> Result<Matrix, Error> {
        let mut matrix = Matrix::default();
        for cell in self.datapath.matrix()? {
            let (source, destination) = (self.slots.place(cell.source), self.slots.place(cell.destination));
            matrix.add(Pair { source, destination, version: cell.version, direction: cell.direction }, cell.counter);
        }
        Ok(matrix)
    }

    /// Whether the kernel's counters have counted anything.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn has_counted(&self) -> Result<bool, Error> {
        Ok(self.datapath.matrix()?.iter().any(|cell| cell.counter != Counter::default()))
    }

    /// The counts in flow entries, and the counts that no flow entry has.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attribution(&self) -> Result<Attribution, Error> {
        Ok(Attribution {
            attributed: self.datapath.attributed(),
            unattributed: self.datapath.stat(Stat::Unattributed)?,
        })
    }
}

/// The traffic that is attributed to addresses, and the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// In flow entries, removed ones included.
    pub attributed: Counter,
    /// Only in the matrix, because the flow map was full.
    pub unattributed: Counter,
}
