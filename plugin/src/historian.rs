//! Keeps the history: sums the open hour, writes it every few minutes and at its end, and answers queries over all
//! blocks.
//!
//! A fault of the disk stops neither the hour in memory nor anything else: a block that can't be written is written
//! later, and the coverage lacks the time of a lost block.

mod copies;
mod recording;
mod reloaded_value;
#[cfg(test)]
pub(crate) mod sample;
mod store;
mod unwritten;

pub use copies::CopyOutcome;
pub use recording::{Recording, TICK};

use crate::{
    accounting::TrafficDelta,
    archive::{self, Limits, Tally},
    budget::Budgets,
    cost::PriceTable,
    history::{Block, Builder, Span},
    recorder::Directory,
    statement::{
        BudgetState, BudgetSums, Comparison, Query, Samples, Series, Statement, StatementRequest, Step, Summary,
    },
};
use reloaded_value::ReloadedValue;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use store::{Reader, Store};
use unwritten::Unwritten;

/// How often the open hour is written.
const SAVED_EVERY: Duration = Duration::from_secs(300);
/// How often the budgets are compared with the history.
const REVIEWED_EVERY: u64 = 300;
/// The longest time between two ticks that counts as recorded: a process that was frozen for longer saw nothing.
const LONGEST_TICK: Duration = Duration::from_secs(60);

/// How a history is kept.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The folder; `None`: none is kept.
    pub dir: Option<PathBuf>,
    /// How much is kept.
    pub limits: Limits,
    /// The prices.
    pub prices: PriceTable,
    /// The file of the prices, which is read again when it changes.
    pub prices_file: Option<PathBuf>,
    /// The budgets.
    pub budgets: Budgets,
    /// The file of the budgets, which is read again when it changes.
    pub budgets_file: Option<PathBuf>,
    /// The keys of labels that the history keeps of workloads, beside those of budgets.
    pub labels: Vec<String>,
}

impl Settings {
    /// Opens the history. A folder that can't be used is logged, and no history is kept.
    pub fn open(&self) -> Option<Arc<Historian>> {
        match Historian::open(self.dir.as_ref()?, self.limits, self.prices.clone(), second()) {
            Ok(historian) => Some(Arc::new(historian.following(self))),
            Err(error) => {
                tracing::error!(%error, "no history is kept");
                None
            }
        }
    }
}

/// Now, in seconds since 1970.
pub fn second() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A node in a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its `spec.providerID`, or nothing.
    pub provider_id: String,
    /// Whether its counters are current.
    pub is_heard: bool,
}

/// Traffic since the last tick.
#[derive(Debug)]
pub struct Tick<'a> {
    /// The time, in seconds since 1970.
    pub now: u64,
    /// How long ago the last one was.
    pub elapsed: Duration,
    /// The traffic.
    pub grown: &'a TrafficDelta,
    /// Facts about places and workloads.
    pub directory: &'a Directory,
    /// The nodes.
    pub nodes: &'a [NodeSeen],
}

/// The history of a process.
#[derive(Debug)]
pub struct Historian {
    prices: ReloadedValue<PriceTable>,
    budgets: ReloadedValue<Budgets>,
    labels: Vec<String>,
    review: Mutex<Review>,
    tally: Arc<Tally>,
    inner: Mutex<Inner>,
}

/// The budgets beside the history of the month.
#[derive(Debug, Default)]
struct Review {
    /// When they were compared, in seconds since 1970; `None` before the first time.
    at: Option<u64>,
    states: Vec<BudgetState>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    open: Builder,
    unwritten: Unwritten,
    rows: usize,
    unsaved: Duration,
}

impl Historian {
    /// Opens the folder, and continues the hour of `now` if its block is there.
    ///
    /// # Errors
    /// The folder can't be made, read or locked.
    pub fn open(path: &Path, limits: Limits, prices: PriceTable, now: u64) -> Result<Self, archive::Error> {
        let tally = Arc::new(Tally::default());
        let store = Store::open(path, limits, Arc::clone(&tally))?;
        Ok(Self::with(store, prices, tally, limits.rows, now))
    }

    /// A history of the last two days that is kept in memory alone.
    pub fn in_memory(prices: PriceTable, now: u64) -> Self {
        Self::with(Store::Memory(Default::default()), prices, Arc::default(), Limits::default().rows, now)
    }

    fn with(mut store: Store, prices: PriceTable, tally: Arc<Tally>, rows: usize, now: u64) -> Self {
        let hour = Span::hour_of(now);
        // A process before has begun it.
        let open = begin(store.read(hour), hour, rows);
        Self {
            prices: ReloadedValue::new(prices, None),
            budgets: ReloadedValue::default(),
            labels: Vec::new(),
            review: Mutex::default(),
            tally,
            inner: Mutex::new(Inner { store, open, unwritten: Unwritten::default(), rows, unsaved: Duration::ZERO }),
        }
    }

    /// The same with the files and labels of the settings.
    #[must_use]
    pub fn following(self, settings: &Settings) -> Self {
        Self {
            prices: ReloadedValue::new(settings.prices.clone(), settings.prices_file.as_deref()),
            budgets: ReloadedValue::new(settings.budgets.clone(), settings.budgets_file.as_deref()),
            labels: settings.labels.clone(),
            ..self
        }
    }

    /// The price table in force.
    pub fn prices(&self) -> Arc<PriceTable> {
        self.prices.get()
    }

    /// The keys of labels that the history keeps of workloads.
    pub fn labels(&self) -> Vec<String> {
        let mut labels = self.labels.clone();
        for key in self.budgets.get().label_keys() {
            if !labels.iter().any(|known| known == key) {
                labels.push(key.to_owned());
            }
        }
        labels
    }

    /// Reads prices and budgets again if their files have changed, and compares the budgets with the history now and
    /// then. `now` is in seconds since 1970.
    pub fn attend(&self, now: u64) {
        let new_prices = self.prices.look(PriceTable::read, "prices");
        let new_budgets = self.budgets.look(Budgets::read, "budgets");
        let mut review = self.review.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = review.at.is_some_and(|at| now.abs_diff(at) < REVIEWED_EVERY);
        if !new_prices && !new_budgets && is_fresh {
            return;
        }
        match self.reviewed(now) {
            Ok(states) => *review = Review { at: Some(now), states },
            Err(error) => tracing::error!(%error, "the budgets can't be compared with the history"),
        }
    }

    fn reviewed(&self, now: u64) -> Result<Vec<BudgetState>, archive::Error> {
        let (prices, budgets) = (self.prices.get(), self.budgets.get());
        if budgets.is_empty() {
            return Ok(Vec::new());
        }
        let mut sums = BudgetSums::new(&budgets, &prices, now);
        let (from, to) = sums.range();
        self.read(from, to, |block| sums.add(block))?;
        Ok(sums.finish())
    }

    /// The budgets as they were last compared with the history.
    pub fn budgets(&self) -> Vec<BudgetState> {
        self.review.lock().unwrap_or_else(PoisonError::into_inner).states.clone()
    }

    /// The files that are followed, with how often each was taken and refused since the start.
    pub fn reloads(&self) -> impl Iterator<Item = (&'static str, [u64; 2])> {
        [("prices", self.prices.reloads()), ("budgets", self.budgets.reloads())]
            .into_iter()
            .filter_map(|(file, reloads)| Some((file, reloads?)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A block is whole or not there, and the open one is only added to.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the traffic since the last tick. Writes the open hour if it is over or if it is time.
    pub fn tick(&self, tick: &Tick<'_>) {
        let mut inner = self.lock();
        let hour = Span::hour_of(tick.now);
        if inner.open.span() != hour {
            inner.seal(hour, tick.now);
        }
        let seconds = tick.elapsed.min(LONGEST_TICK).as_secs() as u32;
        inner.open.add_recorded(seconds);
        // Before its traffic: a node may be another machine than the last one of that name.
        for NodeSeen { name, provider_id, is_heard } in tick.nodes {
            inner.open.cover(name, provider_id, if *is_heard { seconds } else { 0 });
        }
        tick.directory.record(tick.grown, &mut inner.open);
        inner.unsaved += tick.elapsed;
        if inner.unsaved >= SAVED_EVERY {
            inner.save();
        }
    }

    /// Writes the open hour now.
    pub fn save(&self) {
        self.lock().save();
    }

    /// The answer to a question, with the open hour. A comparison is of what is on disk.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn answer(&self, question: StatementRequest) -> Result<Statement, archive::Error> {
        let StatementRequest { query, from, to, compare, .. } = question;
        let comparison = match compare {
            Some(before) => {
                let ranges = [before, (from, to)];
                let readers = ranges.map(|(from, to)| self.lock().store.reader(from, to));
                comparison(readers, &query, &self.prices(), ranges)?
            }
            None => None,
        };
        Ok(Statement { comparison, budgets: self.budgets(), ..self.statement(query, from, to)? })
    }

    /// The traffic of a range, with the open hour.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn statement(&self, query: Query, from: u64, to: u64) -> Result<Statement, archive::Error> {
        let prices = self.prices();
        let mut summary = Summary::new(query, &prices);
        self.read(from, to, |block| summary.add(block))?;
        summary.ask(from, to);
        Ok(summary.finish())
    }

    /// The same over time, as JSON.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn series(&self, question: StatementRequest, step: Step) -> Result<Value, archive::Error> {
        let StatementRequest { query, from, to, .. } = question;
        let statement = self.statement(query, from, to)?;
        let prices = self.prices();
        let mut series = Series::new(&statement, &prices, step);
        self.read(from, to, |block| series.add(block))?;
        Ok(series.json(from, to))
    }

    /// Reads the blocks of a range, with the open hour and those that are not on disk yet.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn read(&self, from: u64, to: u64, mut each: impl FnMut(&Block)) -> Result<(), archive::Error> {
        let (newer, reader) = {
            let inner = self.lock();
            let span = inner.open.span();
            let open = (span.start >= from && span.start < to).then(|| inner.open.block());
            (inner.unwritten.of(from, to).cloned().chain(open).collect::<Vec<_>>(), inner.store.reader(from, to))
        };
        reader.read(from, to, |block| {
            // The block in memory is newer.
            if newer.iter().all(|newer| newer.span != block.span) {
                each(block);
            }
        })?;
        newer.iter().for_each(each);
        Ok(())
    }

    /// Counts of written and damaged blocks.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Blocks on disk, and their bytes.
    pub fn size(&self) -> (usize, u64) {
        self.lock().store.size()
    }
}

/// The change between two ranges of a folder; `None` if they have no hour of the week in common.
///
/// # Errors
/// The folder can't be read.
pub fn compared(
    path: &Path,
    query: &Query,
    prices: &PriceTable,
    ranges: [(u64, u64); 2],
) -> Result<Option<Comparison>, archive::Error> {
    comparison([(), ()].map(|()| Reader::Folder(path.to_owned())), query, prices, ranges)
}

fn comparison(
    readers: [Reader; 2],
    query: &Query,
    prices: &PriceTable,
    ranges: [(u64, u64); 2],
) -> Result<Option<Comparison>, archive::Error> {
    let mut both = ranges.map(|range| Samples::new(query, prices, range));
    for ((samples, reader), (from, to)) in both.iter_mut().zip(readers).zip(ranges) {
        reader.read(from, to, |block| samples.add(block))?;
    }
    let [before, after] = both;
    Ok(after.compared_with(&before))
}

fn begin(block: Option<Block>, hour: Span, rows: usize) -> Builder {
    let mut open = Builder::new(hour, rows);
    if let Some(block) = block {
        open.absorb(&block);
    }
    open
}

impl Inner {
    fn seal(&mut self, hour: Span, now: u64) {
        if !self.save() {
            self.unwritten.keep(self.open.block());
        }
        // The hour was begun before if the clock was set back.
        let block = self.unwritten.take(hour).or_else(|| self.store.read(hour));
        self.open = begin(block, hour, self.rows);
        // A day that is made now would lack these hours, and hold older parts of them.
        if !self.unwritten.is_empty() {
            return;
        }
        if let Err(error) = self.store.maintain(now) {
            tracing::error!(%error, "the history can't be kept within its limits");
        }
    }

    /// Writes the open hour, and those before it that could not be written. Whether the open hour is on disk, or empty.
    fn save(&mut self) -> bool {
        self.unsaved = Duration::ZERO;
        self.unwritten.write_to(&mut self.store);
        let block = self.open.block();
        if block.transfers.is_empty() && block.coverage.recorded_seconds == 0 {
            return true;
        }
        let written = self.store.write(&block);
        if let Err(error) = &written {
            tracing::error!(%error, "the history can't be written: it is tried again");
        }
        written.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounting::{Accounting, Service, Transfer, TransferEnd},
        statement::Dimension,
        zones::{Place, Zone},
    };
    use meridian_abi::Counter;
    use std::{fs, time::Instant};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("meridian-historian-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn open(&self, now: u64) -> Historian {
            Historian::open(&self.0, Limits::default(), PriceTable::default(), now).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn grown(bytes: u64) -> TrafficDelta {
        let place = |name: &str| Place::Zone(Arc::new(Zone { name: name.into(), region: "r".into() }));
        let end = |zone| TransferEnd { address: None, endpoint: None, place: place(zone), external: None };
        let mut accounting = Accounting::new(10, false).with_growth();
        let transfer = Transfer { source: &end("a"), destination: &end("b"), service: Service::default() };
        accounting.add(&transfer, Counter { bytes, packets: 1 }, Instant::now());
        accounting.growth_mut().unwrap().take(false)
    }

    fn tick(historian: &Historian, now: u64, bytes: u64) {
        let nodes = [NodeSeen { name: "n".into(), provider_id: String::new(), is_heard: true }];
        let (grown, directory, elapsed) = (grown(bytes), Directory::default(), Duration::from_secs(10));
        historian.tick(&Tick { now, elapsed, grown: &grown, directory: &directory, nodes: &nodes });
    }

    fn seen(historian: &Historian) -> (u64, u64) {
        let query = Query { by: Dimension::ZonePair, ..Query::default() };
        let statement = historian.statement(query, 0, 1 << 40).unwrap();
        (statement.total.counter.bytes, statement.coverage.recorded_seconds())
    }

    #[test]
    fn an_hour_is_sealed_when_the_next_begins_and_continues_after_a_restart() {
        let scratch = Scratch::new("hours");
        let historian = scratch.open(3590);
        tick(&historian, 3595, 1);
        tick(&historian, 3605, 2);
        assert_eq!((historian.size().0, seen(&historian)), (1, (3, 20)));
        historian.save();
        drop(historian);
        let historian = scratch.open(3620);
        assert_eq!(seen(&historian), (3, 20));
        tick(&historian, 3630, 4);
        assert_eq!(seen(&historian), (7, 30));
    }

    #[test]
    fn after_a_kill_the_unwritten_part_is_missing_from_bytes_and_coverage() {
        let scratch = Scratch::new("killed");
        let historian = scratch.open(0);
        tick(&historian, 10, 1);
        historian.save();
        tick(&historian, 20, 2);
        drop(historian);
        assert_eq!(seen(&scratch.open(30)), (1, 10));
    }

    #[test]
    fn changed_prices_and_budgets_are_in_force_and_bad_ones_are_refused() {
        let scratch = Scratch::new("followed");
        fs::create_dir_all(&scratch.0).unwrap();
        let (prices, budgets) = (scratch.0.join("prices.yaml"), scratch.0.join("budgets.yaml"));
        let price =
            |dollars: &str| fs::write(&prices, format!("rules: [{{id: own, sender: \"{dollars}\"}}]\n")).unwrap();
        let limit = |text: &str| fs::write(&budgets, text).unwrap();
        price("0.5");
        limit("budgets: [{name: all, namespace: \"\", usd_per_month: \"1\"}]\n");
        assert!(Budgets::read(&budgets).is_err(), "no namespace has no name");
        limit("budgets: [{namespace: shop, usd_per_month: \"1\"}]\n");
        let settings = Settings {
            prices: PriceTable::read(&prices).unwrap(),
            prices_file: Some(prices.clone()),
            budgets: Budgets::read(&budgets).unwrap(),
            budgets_file: Some(budgets.clone()),
            labels: vec!["team".into(), "app".into()],
            ..Settings::default()
        };
        let historian = scratch.open(0).following(&settings);
        let usd = |historian: &Historian| historian.statement(Query::default(), 0, 1 << 40).unwrap().total.cost.exact();
        let reloads = |historian: &Historian| historian.reloads().map(|(_, counts)| counts).collect::<Vec<_>>();
        tick(&historian, 10, 1_000_000_000);
        historian.attend(10);
        assert_eq!((usd(&historian).as_str(), reloads(&historian)), ("0.5", vec![[0, 0]; 2]));
        assert_eq!(historian.budgets()[0].budget.name, "shop");
        price("0.25");
        limit("budgets: [{label: team=a, usd_per_month: \"2\"}, {label: tier=b, usd_per_month: \"2\"}]\n");
        historian.attend(20);
        assert_eq!((usd(&historian).as_str(), reloads(&historian)), ("0.25", vec![[1, 0]; 2]));
        assert_eq!(historian.labels(), ["team", "app", "tier"]);
        assert_eq!(historian.budgets()[0].budget.limit.exact(), "2");
        price("much");
        limit("budgets: 7\n");
        historian.attend(30);
        assert_eq!((usd(&historian).as_str(), reloads(&historian)), ("0.25", vec![[1, 1]; 2]));
        assert_eq!(historian.budgets().len(), 2);
        fs::remove_file(&prices).unwrap();
        historian.attend(40);
        assert_eq!((usd(&historian).as_str(), reloads(&historian)), ("0.25", vec![[1, 1]; 2]));
    }

    #[test]
    fn a_clock_that_is_set_back_an_hour_counts_nothing_twice() {
        let scratch = Scratch::new("clock");
        let historian = scratch.open(7200);
        tick(&historian, 7210, 1);
        tick(&historian, 3610, 2);
        tick(&historian, 3620, 4);
        tick(&historian, 7220, 8);
        assert_eq!(seen(&historian), (15, 40));
    }

    #[test]
    fn a_disk_that_fails_holds_nobody_and_the_hour_is_written_later() {
        let scratch = Scratch::new("disk");
        let historian = scratch.open(0);
        tick(&historian, 10, 1);
        let in_the_way = scratch.0.join("1970-01-01T00.new");
        fs::create_dir(&in_the_way).unwrap();
        historian.save();
        tick(&historian, 20, 2);
        assert_eq!((historian.size().0, seen(&historian)), (0, (3, 20)));
        fs::remove_dir(&in_the_way).unwrap();
        historian.save();
        drop(historian);
        assert_eq!(seen(&scratch.open(30)), (3, 20));
    }

    #[test]
    fn hours_that_end_while_the_disk_fails_are_in_reports_and_written_later() {
        let scratch = Scratch::new("disk-hours");
        let historian = scratch.open(0);
        let in_the_way = |hour: u64| scratch.0.join(format!("1970-01-01T{hour:02}.new"));
        (0..9).for_each(|hour| fs::create_dir(in_the_way(hour)).unwrap());
        tick(&historian, 10, 1);
        tick(&historian, 3610, 2);
        assert_eq!((historian.size().0, seen(&historian)), (0, (3, 20)));
        // Six hours are kept beside the open one.
        (2..9).for_each(|hour| tick(&historian, hour * 3600 + 10, 1 << hour));
        assert_eq!((historian.size().0, seen(&historian)), (0, (0b1_1111_1100, 70)));
        (0..9).for_each(|hour| fs::remove_dir(in_the_way(hour)).unwrap());
        historian.save();
        assert_eq!((historian.size().0, seen(&historian)), (7, (0b1_1111_1100, 70)));
        drop(historian);
        assert_eq!(seen(&scratch.open(9 * 3600)), (0b1_1111_1100, 70));
    }
    #[test]
    fn a_day_is_made_once_all_of_its_hours_are_written() {
        let scratch = Scratch::new("disk-day");
        let historian = scratch.open(0);
        let midnight = 24 * 3600;
        tick(&historian, midnight - 3600, 1);
        historian.save();
        let in_the_way = scratch.0.join("1970-01-01T23.new");
        fs::create_dir(&in_the_way).unwrap();
        tick(&historian, midnight - 10, 2);
        // The hour on disk is a part of the one in memory; every further hour can be written.
        tick(&historian, midnight + 10, 4);
        tick(&historian, midnight + 2 * 3600, 8);
        assert_eq!(seen(&historian), (15, 40));
        fs::remove_dir(&in_the_way).unwrap();
        tick(&historian, midnight + 3 * 3600, 16);
        assert_eq!(seen(&historian), (31, 50));
        let (mut days, mut blocks) = (0, 0);
        let range = (0, 2 * midnight);
        historian
            .read(range.0, range.1, |block| {
                days += usize::from(block.span.seconds == Span::DAY);
                blocks += 1;
            })
            .unwrap();
        assert_eq!((days, blocks), (1, 4));
    }
}
