//! Reads flow logs into the ring, in the order of their time.
//!
//! Files are read to the end before anything is served. A pipe may never end, so its flows are sorted and served
//! whenever it is idle for a moment.

use super::super::Failure;
use crate::{
    flows::{Record, Sink},
    replay::{Line, Order, Reader, Reason},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

/// A pipe without data for this long is idle.
const IDLE: Duration = Duration::from_millis(250);
/// The limit of lines that are read ahead.
const AHEAD: usize = 1024;

/// The open flow logs.
pub(super) struct Inputs(Vec<Input>);

struct Input {
    path: PathBuf,
    from: Box<dyn Read + Send>,
    is_pipe: bool,
    /// A device, such as /dev/null, may be empty.
    may_be_empty: bool,
}

impl Inputs {
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self, Failure> {
        paths.iter().map(|path| Input::open(path)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them may never end.
    pub(super) fn is_endless(&self) -> bool {
        self.0.iter().any(|input| input.is_pipe)
    }

    fn name(&self) -> String {
        match &*self.0 {
            [one] => one.path.display().to_string(),
            several => format!("{} files", several.len()),
        }
    }
}

impl Input {
    fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            let from = Box::new(io::stdin());
            return Ok(Self { path: "stdin".into(), from, is_pipe: true, may_be_empty: false });
        }
        let unreadable = |error| Failure::Usage(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(unreadable)?;
        let kind = file.metadata().map_err(unreadable)?.file_type();
        if kind.is_dir() {
            let path = path.display();
            return Err(Failure::Usage(format!(
                "{path}: it is a directory: name the files in it, for example {path}/*"
            )));
        }
        let may_be_empty = kind.is_char_device();
        let is_pipe = may_be_empty || kind.is_fifo() || kind.is_socket();
        Ok(Self { path: path.to_owned(), from: Box::new(file), is_pipe, may_be_empty })
    }
}

/// A message from the reading thread.
enum ReaderMessage {
    File(PathBuf),
    Line(u64, Box<Line>),
    Failed(PathBuf, io::Error),
    /// The end, with the names of unknown fields.
    End(String),
}

fn read(inputs: Inputs, to: &SyncSender<ReaderMessage>) {
    let mut reader = Reader::new();
    for Input { path, from, .. } in inputs.0 {
        // The receiver is gone once the command ends.
        if to.send(ReaderMessage::File(path.clone())).is_err() {
            return;
        }
        if let Err(error) = reader.read(from, |number, line| drop(to.send(ReaderMessage::Line(number, Box::new(line)))))
        {
            let _ = to.send(ReaderMessage::Failed(path, error));
            return;
        }
    }
    let _ = to.send(ReaderMessage::End(reader.unknown().to_string()));
}

/// The state of the loading.
pub(super) struct Loading {
    order: Order,
    sink: Sink,
    rate: u32,
    ended: Arc<AtomicBool>,
    start: Instant,
    /// The number of flows passed on to the ring.
    handed: u64,
    newest: Option<(i64, i32)>,
    count: Count,
    left: BTreeMap<Reason, Left>,
}

#[derive(Debug, Default)]
struct Count {
    flows: u64,
    /// The number of flows that are too old to be kept.
    older: u64,
    lost: u64,
    agent_events: u64,
    debug_events: u64,
}

/// The number of entries left out for one reason.
#[derive(Debug)]
struct Left {
    count: u64,
    /// The place of the first one, and its text.
    at: String,
    text: String,
}

impl Loading {
    pub(super) fn new(capacity: usize, rate: u32, sink: Sink, ended: Arc<AtomicBool>) -> Self {
        let (order, count, left) = (Order::new(capacity), Count::default(), BTreeMap::new());
        Self { order, sink, rate, ended, start: Instant::now(), handed: 0, newest: None, count, left }
    }

    /// Reads all inputs; calls `read` before the first flow is passed on.
    ///
    /// # Errors
    /// A file can't be read, or no file has a flow.
    pub(super) fn load(mut self, inputs: Inputs, read: impl FnOnce()) -> Result<(), Failure> {
        let (name, is_endless) = (inputs.name(), inputs.is_endless());
        let may_be_empty = inputs.0.iter().any(|input| input.may_be_empty);
        let (sender, found) = mpsc::sync_channel(AHEAD);
        thread::spawn(move || self::read(inputs, &sender));
        let mut read = Some(read);
        if is_endless {
            read.take().into_iter().for_each(|read| read());
        }
        let unknown = self.take_all(&found, is_endless)?;
        if self.count.is_empty() && !(may_be_empty && self.left.is_empty()) {
            return Err(Failure::failed(self.nothing(&name)));
        }
        read.into_iter().for_each(|read| read());
        self.hand_on();
        self.report(&unknown);
        Ok(())
    }

    /// Handles all messages of the reading thread; returns the names of unknown fields.
    fn take_all(&mut self, found: &Receiver<ReaderMessage>, is_endless: bool) -> Result<String, Failure> {
        let mut path = PathBuf::new();
        loop {
            let next = if is_endless { found.recv_timeout(IDLE) } else { found.recv().map_err(Into::into) };
            match next {
                Err(RecvTimeoutError::Timeout) => self.hand_on(),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::failed("reading the flow logs has failed")),
                Ok(ReaderMessage::End(unknown)) => return Ok(unknown),
                Ok(ReaderMessage::Failed(path, error)) => {
                    return Err(Failure::failed(format!("{}: {error}", path.display())));
                }
                Ok(ReaderMessage::File(next)) => {
                    self.order.begin_file();
                    path = next;
                }
                Ok(ReaderMessage::Line(number, line)) => self.take(*line, || match number {
                    // 0 stands for no line.
                    0 => path.display().to_string(),
                    number => format!("{}:{number}", path.display()),
                }),
            }
        }
    }

    fn take(&mut self, line: Line, at: impl FnOnce() -> String) {
        match line {
            Line::Record(record) => {
                match &record {
                    Record::Flow(_) => self.count.flows += 1,
                    Record::Lost(lost) => self.count.lost = self.count.lost.saturating_add(lost.count),
                }
                if let Some(oldest) = self.order.push(record) {
                    self.count.older += 1;
                    self.sink.pass_recorded(&oldest);
                }
            }
            Line::Agent(event) => {
                self.count.agent_events += 1;
                self.sink.agent_events.push(event.time, event);
            }
            Line::Debug(event) => {
                self.count.debug_events += 1;
                self.sink.debug_events.push(event.time, event);
            }
            Line::Left(reason, text) => {
                let first = || Left { count: 0, at: at(), text };
                self.left.entry(reason).or_insert_with(first).count += 1;
            }
        }
    }

    /// Passes the waiting records on to the ring.
    fn hand_on(&mut self) {
        let mut is_late = false;
        for record in self.order.take() {
            if let Record::Flow(_) = record {
                self.wait();
                self.handed += 1;
            }
            let time = record.time().map(|time| (time.seconds, time.nanos));
            is_late |= time.is_some() && time < self.newest;
            self.newest = self.newest.max(time);
            self.sink.take_recorded(record, Instant::now());
        }
        if is_late {
            self.sink.ring.sort();
        }
    }

    /// Waits until the next flow is due.
    fn wait(&self) {
        if self.rate > 0 && !self.ended.load(Ordering::Relaxed) {
            let due = Duration::from_secs_f64(self.handed as f64 / f64::from(self.rate));
            thread::sleep(due.saturating_sub(self.start.elapsed()));
        }
    }

    fn report(&self, unknown: &str) {
        for (reason, Left { count, at, text }) in &self.left {
            match count {
                1 => tracing::warn!("{at}: the line is left out: {text}"),
                _ => tracing::warn!("{at}: the line is left out: {text}; {count} are left out as {reason}"),
            }
        }
        if !unknown.is_empty() {
            tracing::warn!(fields = unknown, "fields unknown to this version are left out of flows");
        }
        let Count { flows, older, lost, agent_events, debug_events } = self.count;
        if older > 0 {
            let kept = flows - older;
            tracing::warn!(kept, older, "there are more flows than are kept: --capacity keeps more of them");
        }
        let left_out: u64 = self.left.values().map(|left| left.count).sum();
        tracing::info!(flows, left_out, lost, agent_events, debug_events, "loaded");
    }

    /// The reason why there is nothing to serve, in one line.
    fn nothing(&self, name: &str) -> String {
        if self.left.is_empty() {
            return format!("{name}: there is nothing in it");
        }
        let reasons = self
            .left
            .iter()
            .map(|(reason, left)| format!("{} {reason}, the first {}: {}", left.count, left.at, left.text));
        format!("{name}: no flow in it: {}", reasons.collect::<Vec<_>>().join("; "))
    }
}

impl Count {
    const fn is_empty(&self) -> bool {
        self.flows == 0 && self.lost == 0 && self.agent_events == 0 && self.debug_events == 0
    }
}
