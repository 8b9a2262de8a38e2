//! The pair log: one line of JSON for each pair with cross-zone traffic in an interval.
//!
//! A separate thread writes. It may be slow or stuck, and its disk full: lines that it can't write in time are
//! counted as lost, and nothing waits for them.

use super::lines::{Lines, Reopened, Target};
use crate::{
    accounting::{EndKey, Line, Service},
    zones::Place,
};
use jiff::Timestamp;
use meridian_abi::flow::ServiceSide;
use serde::Serialize;
use std::{
    fmt, io,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

/// The limit of intervals that wait for the writer.
const QUEUE: usize = 2;
/// A difference between the wall clock and the monotonic one that is no step of the wall clock.
const DRIFT: Duration = Duration::from_millis(100);
/// The interval at which the end of the writer is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The destination of the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file, opened for appending. It is opened again after it was renamed.
    File(PathBuf),
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Counts of lines written and lost.
#[derive(Debug, Default)]
pub struct PairLogTally {
    /// Lines written.
    pub lines: AtomicU64,
    /// Lines lost.
    pub lost_lines: AtomicU64,
    /// Bytes of traffic in lost lines.
    pub lost_bytes: AtomicU64,
    /// Bytes of traffic that an earlier agent may have logged, and that are not logged again.
    pub unknown_bytes: AtomicU64,
}

/// The period in which pairs were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: SystemTime,
    end: SystemTime,
}

impl Span {
    /// The period between two moments, as long as the monotonic clock has it. It begins where the one before it ended,
    /// unless the wall clock was set meanwhile.
    fn new(began: (Instant, SystemTime), (now, end): (Instant, SystemTime)) -> Self {
        let elapsed = now.saturating_duration_since(began.0);
        let start = end.checked_sub(elapsed).unwrap_or(end);
        let drift = start.duration_since(began.1).unwrap_or_else(|ahead| ahead.duration());
        Self { start: if drift <= DRIFT { began.1.min(end) } else { start }, end }
    }
}

/// The pairs of an interval, by node.
pub type Pairs = Vec<(String, Vec<Line>)>;

/// The writing end of the log.
#[derive(Debug)]
pub struct PairLog {
    queue: SyncSender<Interval>,
    writer: JoinHandle<()>,
    tally: Arc<PairLogTally>,
    every: Duration,
    /// The start of the interval.
    began: (Instant, SystemTime),
}

#[derive(Debug)]
struct Interval {
    span: Span,
    pairs: Pairs,
}

impl PairLog {
    /// Opens the output for intervals of this length. `tally` counts lines written and lost.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn start(output: &Output, every: Duration, tally: Arc<PairLogTally>) -> io::Result<Self> {
        Ok(match output {
            Output::Stdout => Self::write_to(io::stdout(), every, tally),
            Output::File(path) => Self::write_to(Reopened::new(path)?, every, tally),
        })
    }

    fn write_to(to: impl Target + Send + 'static, every: Duration, tally: Arc<PairLogTally>) -> Self {
        let (queue, intervals) = sync_channel(QUEUE);
        let counted = Arc::clone(&tally);
        let writer = thread::spawn(move || Writer { lines: Lines::new(to), fails: false }.run(&intervals, &counted));
        Self { queue, writer, tally, every, began: (Instant::now(), SystemTime::now()) }
    }

    /// At the end of an interval, hands its pairs to the writer. Never waits.
    pub fn tick(&mut self, take: impl FnOnce() -> Pairs) {
        if self.is_due() {
            self.write(take());
        }
    }

    /// Whether the interval is over.
    pub fn is_due(&self) -> bool {
        self.began.0.elapsed() >= self.every
    }

    /// Counts traffic that an earlier agent may have logged.
    pub fn leave_out(&self, lines: &[Line]) {
        lines.iter().for_each(|line| add(&self.tally.unknown_bytes, line.counter.bytes));
    }

    /// Counts the interval's pairs as lost, where they must not be written.
    pub fn lose(&mut self, pairs: &Pairs) {
        self.began = (Instant::now(), SystemTime::now());
        pairs.iter().flat_map(|(_, lines)| lines).for_each(|line| lose(&self.tally, line));
    }

    /// Hands the interval's pairs to the writer. Never waits.
    pub fn write(&mut self, pairs: Pairs) {
        let now = (Instant::now(), SystemTime::now());
        let span = Span::new(std::mem::replace(&mut self.began, now), now);
        if let Err(TrySendError::Full(Interval { pairs, .. }) | TrySendError::Disconnected(Interval { pairs, .. })) =
            self.queue.try_send(Interval { span, pairs })
        {
            pairs.iter().flat_map(|(_, lines)| lines).for_each(|line| lose(&self.tally, line));
        }
    }

    /// Writes the last interval and ends, within `timeout`; lines that a stuck reader does not accept are lost.
    pub fn end(self, pairs: Pairs, timeout: Duration) {
        if !self.finish(pairs, timeout) {
            tracing::warn!("the pair log can't be written in time: its last lines are lost");
        }
    }

    /// Hands over the last pairs and waits until everything is written, at most for `timeout`. Returns whether
    /// everything was written.
    pub fn finish(mut self, pairs: Pairs, timeout: Duration) -> bool {
        self.write(pairs);
        drop(self.queue);
        let start = Instant::now();
        while !self.writer.is_finished() && start.elapsed() < timeout {
            thread::sleep(POLL_INTERVAL);
        }
        self.writer.is_finished()
    }
}

fn lose(tally: &PairLogTally, line: &Line) {
    add(&tally.lost_lines, 1);
    add(&tally.lost_bytes, line.counter.bytes);
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

struct Writer<T> {
    lines: Lines<T>,
    fails: bool,
}

impl<T: Target> Writer<T> {
    fn run(mut self, intervals: &Receiver<Interval>, tally: &PairLogTally) {
        while let Ok(Interval { span, pairs }) = intervals.recv() {
            self.lines.to.prepare();
            let mut error = None;
            for (node, line) in pairs.iter().flat_map(|(node, lines)| lines.iter().map(move |line| (node, line))) {
                match self.line(node, span, line) {
                    Ok(()) => add(&tally.lines, 1),
                    Err(why) => {
                        lose(tally, line);
                        error = Some(why);
                    }
                }
            }
            // Logged once, not for every line: the counters have the number.
            match &error {
                Some(error) if !self.fails => tracing::error!(%error, "the pair log can't be written; lines are lost"),
                None if self.fails => tracing::info!("the pair log is written again"),
                _ => {}
            }
            self.fails = error.is_some();
        }
    }

    fn line(&mut self, node: &str, span: Span, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(&Json::new(node, span, line))?;
        text.push(b'\n');
        self.lines.write(&text)
    }
}

/// A line of the log.
#[derive(Serialize)]
struct Json<'a> {
    start: String,
    end: String,
    node: &'a str,
    source: JsonParty<'a>,
    destination: JsonParty<'a>,
    locality: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<JsonService>,
    bytes: u64,
    packets: u64,
}

/// The service that is used.
#[derive(Serialize)]
struct JsonService {
    port: u16,
    protocol: &'static str,
    /// The end that serves: `source` or `destination`.
    server: &'static str,
}

impl JsonService {
    fn new(service: Service) -> Option<Self> {
        let server = match service.side {
            ServiceSide::None => return None,
            ServiceSide::Source => "source",
            ServiceSide::Destination => "destination",
        };
        let protocol = match service.protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => return None,
        };
        Some(Self { port: service.port, protocol, server })
    }
}

#[derive(Default, Serialize)]
struct JsonParty<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<JsonWorkload<'a>>,
    /// The address of an end without a known pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    /// The sum of all ends beyond the limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    other: bool,
    zone: &'a str,
    region: &'a str,
}

#[derive(Serialize)]
struct JsonWorkload<'a> {
    kind: &'a str,
    name: &'a str,
}

impl<'a> Json<'a> {
    fn new(node: &'a str, span: Span, line: &'a Line) -> Self {
        let time = |time: SystemTime| {
            // The clock of this machine stays within the calendar's range.
            Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
        };
        Self {
            start: time(span.start),
            end: time(span.end),
            node,
            source: JsonParty::new(&line.source),
            destination: JsonParty::new(&line.destination),
            locality: line.locality.name(),
            service: JsonService::new(line.service),
            bytes: line.counter.bytes,
            packets: line.counter.packets,
        }
    }
}

impl<'a> JsonParty<'a> {
    fn new((end_key, place): &'a (EndKey, Place)) -> Self {
        let (zone, region) = place.zone().map_or(("", ""), |zone| (&zone.name, &zone.region));
        let placed = Self { zone, region, ..Self::default() };
        match end_key {
            EndKey::Pod(pod) => Self {
                namespace: Some(&pod.0.namespace),
                pod: Some(&pod.0.pod),
                workload: pod.0.workload.as_ref().map(|it| JsonWorkload { kind: &it.kind, name: &it.name }),
                ..placed
            },
            EndKey::Address(address) => Self { ip: Some(*address), ..placed },
            EndKey::Other => Self { other: true, ..placed },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounting::Pod,
        demo::topology::place,
        identity::{Endpoint, Workload},
        zones::Locality,
    };
    use meridian_abi::Counter;
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    fn lines(count: u64) -> Pairs {
        let workload = Some(Arc::new(Workload { kind: "StatefulSet".into(), name: "cart".into() }));
        let endpoint = Endpoint { namespace: "shop".into(), pod: "cart-0".into(), workload, ..Endpoint::default() };
        let source = (EndKey::Pod(Pod(Arc::new(endpoint))), place(0));
        let line = |bytes| Line {
            source: source.clone(),
            destination: (EndKey::Address([10, 9, 8, 7].into()), place(2)),
            service: Service::new(6379, 6, ServiceSide::Source),
            locality: Locality::CrossZone,
            counter: Counter { bytes, packets: 2 },
        };
        vec![("node-a".into(), (1..=count).map(line).collect())]
    }

    fn to_file(path: &Path, tally: &Arc<PairLogTally>) -> PairLog {
        PairLog::start(&Output::File(path.to_owned()), Duration::ZERO, Arc::clone(tally)).unwrap()
    }

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn counts(tally: &PairLogTally) -> (u64, u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (get(&tally.lines), get(&tally.lost_lines), get(&tally.lost_bytes))
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("meridian-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_line_has_the_pair_its_bytes_and_the_interval() {
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis);
        let span = Span { start: at(0), end: at(10_250) };
        let pairs = lines(1);
        let line = serde_json::to_string(&Json::new(&pairs[0].0, span, &pairs[0].1[0])).unwrap();
        let expected = r#"{"start":"2023-11-14T22:13:20.000Z","end":"2023-11-14T22:13:30.250Z","node":"node-a","source":{"namespace":"shop","pod":"cart-0","workload":{"kind":"StatefulSet","name":"cart"},"zone":"eu-1a","region":"eu-1"},"destination":{"ip":"10.9.8.7","zone":"eu-1b","region":"eu-1"},"locality":"cross-zone","service":{"port":6379,"protocol":"TCP","server":"source"},"bytes":1,"packets":2}"#;
        assert_eq!(line, expected);
    }

    #[test]
    fn an_interval_is_as_long_as_it_was_however_the_clock_is_set() {
        let second = Duration::from_secs(1);
        let (began, wall) = (Instant::now(), UNIX_EPOCH + 1_700_000_000 * second);
        let span = |after: Duration, end| {
            let Span { start, end } = Span::new((began, wall), (began + after, end));
            (start, end.duration_since(start).unwrap())
        };
        assert_eq!(span(10 * second, wall + 10 * second), (wall, 10 * second));
        // The clock runs a little slower or faster.
        let millis = Duration::from_millis;
        assert_eq!(span(10 * second, wall + millis(9_990)), (wall, millis(9_990)));
        assert_eq!(span(Duration::ZERO, wall - millis(50)), (wall - millis(50), Duration::ZERO));
        for end in [wall + 86_400 * second, wall - 86_400 * second, UNIX_EPOCH + 20 * second] {
            assert_eq!(span(10 * second, end), (end - 10 * second, 10 * second));
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let tally = Arc::new(PairLogTally::default());
        let log = to_file(Path::new("/dev/full"), &tally);
        assert!(log.finish(lines(3), TIMEOUT));
        assert_eq!(counts(&tally), (0, 3, 6));
    }

    impl Target for io::PipeWriter {}

    #[test]
    fn a_stuck_reader_blocks_nobody_and_its_missed_lines_are_counted() {
        let tally = Arc::new(PairLogTally::default());
        let (reader, writer) = io::pipe().unwrap();
        let mut log = PairLog::write_to(writer, Duration::ZERO, Arc::clone(&tally));
        // One interval fills the pipe, and two wait. The rest is lost at once.
        for _ in 0..10 {
            log.tick(|| lines(2000));
        }
        let (_, lost, bytes) = counts(&tally);
        assert!(lost >= 2000 * 7 && bytes >= 2001 * 1000 * 7, "{lost}");
        assert!(!log.finish(Vec::new(), Duration::ZERO), "it is stuck");
        // The reader gets complete lines when it continues.
        let text = io::read_to_string(reader).unwrap();
        let whole = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
        assert_eq!(whole, text.lines().count());
        assert_eq!(whole as u64 + counts(&tally).1, 20_000);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let (folder, tally) = (Folder::new("rotated"), Arc::new(PairLogTally::default()));
        let (file, moved) = (folder.0.join("pairs.json"), folder.0.join("pairs.json.1"));
        let mut log = to_file(&file, &tally);
        log.tick(|| lines(2));
        while counts(&tally).0 < 2 {
            thread::sleep(POLL_INTERVAL);
        }
        std::fs::rename(&file, &moved).unwrap();
        assert!(log.finish(lines(3), TIMEOUT));
        let count = |path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((count(&moved), count(&file)), (2, 3));
        assert_eq!(counts(&tally), (5, 0, 0));
    }

    #[test]
    fn an_unfinished_interval_continues() {
        let (folder, tally) = (Folder::new("interval"), Arc::new(PairLogTally::default()));
        let output = Output::File(folder.0.join("pairs.json"));
        let mut log = PairLog::start(&output, Duration::from_secs(3600), Arc::clone(&tally)).unwrap();
        log.tick(|| panic!("it has only begun"));
        assert!(log.finish(lines(1), TIMEOUT));
        assert_eq!(counts(&tally).0, 1);
    }
}
