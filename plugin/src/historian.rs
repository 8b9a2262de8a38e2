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

    /// The answer to a question, with the open hour.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn answer(&self, question: StatementRequest) -> Result<Statement, archive::Error> {
        let StatementRequest { query, from, to, compare, .. } = question;
        let comparison = match compare {
            Some(before) => {
                comparison(&query, &self.prices(), [before, (from, to)], |(from, to), each| self.read(from, to, each))?
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
    comparison(query, prices, ranges, |(from, to), each| Reader::Folder(path.to_owned()).read(from, to, each))
}

fn comparison(
    query: &Query,
    prices: &PriceTable,
    ranges: [(u64, u64); 2],
    read: impl Fn((u64, u64), &mut dyn FnMut(&Block)) -> Result<(), archive::Error>,
) -> Result<Option<Comparison>, archive::Error> {
    let mut both = ranges.map(|range| Samples::new(query, prices, range));
    for (samples, range) in both.iter_mut().zip(ranges) {
        read(range, &mut |block| samples.add(block))?;
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
mod tests;
