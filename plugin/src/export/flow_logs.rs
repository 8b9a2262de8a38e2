//! Flow logs: flows as lines of JSON, as Hubble's exporter writes them, to any number of outputs.
//!
//! Each output has its own thread, which reads the flow ring as any client does. A slow or stuck output delays
//! nothing else: flows that it can't write in time are lost, and the log and a counter report the loss.

mod config;

pub use config::{FlowLog, FlowLogs as FlowLogsConfig};

use super::{
    lines::{Lines, Target},
    rotated::Rotated,
};
use crate::{
    flows::{Lost, Record, Ring},
    hubble::{Exported, InvalidExport},
    proto::{flow::LostEventSource, json::Unwritable},
};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

/// The interval at which an idle output checks for new flows.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The outputs.
#[derive(Debug)]
pub struct FlowLogs {
    ring: Arc<Ring>,
    /// The node named in reports of lost flows.
    node: String,
    running: BTreeMap<String, Running>,
    outputs: Arc<Outputs>,
}

/// The state of the outputs, for metrics.
#[derive(Debug, Default)]
pub struct Outputs(Mutex<BTreeMap<String, Arc<Output>>>);

/// The public state of an output.
#[derive(Debug)]
pub struct Output {
    /// The configuration.
    pub log: FlowLog,
    /// Lines written.
    pub written: AtomicU64,
    /// Flows not written, because the output was too slow or failed.
    pub lost: AtomicU64,
}

impl Output {
    /// Whether the output's end time has not come yet.
    pub fn is_active(&self) -> bool {
        self.log.is_active(SystemTime::now())
    }
}

#[derive(Debug)]
struct Running {
    output: Arc<Output>,
    /// The sequence number at which the output ends.
    end: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// An output can't be started.
#[derive(Debug, thiserror::Error)]
#[error("the flow log {name}: {reason}")]
pub struct Refused {
    name: String,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Export(#[from] InvalidExport),
    #[error(transparent)]
    File(#[from] io::Error),
}

impl Outputs {
    /// All outputs, by name.
    pub fn all(&self) -> Vec<Arc<Output>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Output>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FlowLogs {
    /// No outputs yet; they read from this ring.
    pub fn new(ring: Arc<Ring>, node: String) -> Self {
        Self { ring, node, running: BTreeMap::new(), outputs: Arc::default() }
    }

    /// The state of the outputs, now and later.
    pub fn outputs(&self) -> Arc<Outputs> {
        Arc::clone(&self.outputs)
    }

    /// Sets the outputs. Unchanged outputs continue; changed ones start with the next flow.
    ///
    /// # Errors
    /// An output can't be started: it is absent or keeps its earlier configuration, and all others are applied.
    pub fn apply(&mut self, logs: &[FlowLog]) -> Result<(), Refused> {
        let gone: Vec<String> =
            self.running.keys().filter(|name| !logs.iter().any(|log| log.name == **name)).cloned().collect();
        let end = self.ring.range().end;
        gone.iter().for_each(|name| self.stop(name, end));
        let mut refused = Ok(());
        for log in logs {
            if self.running.get(&log.name).is_some_and(|running| running.output.log == *log) {
                continue;
            }
            if let Err(error) = self.start(log) {
                refused = Err(error);
            }
        }
        refused
    }

    fn start(&mut self, log: &FlowLog) -> Result<(), Refused> {
        let refused = |reason: Reason| Refused { name: log.name.clone(), reason };
        let exported = Exported::new(&log.include_filters, &log.exclude_filters, &log.field_mask);
        let exported = exported.map_err(|error| refused(error.into()))?;
        let failed = |error: io::Error| refused(error.into());
        let mut file = log.rotation().map(Rotated::new);
        // A file that can't be written is refused now instead of at the first flow.
        if let Some(file) = file.as_mut().filter(|_| log.is_active(SystemTime::now())) {
            file.open().map_err(failed)?;
        }
        let from = self.ring.range().end;
        self.stop(&log.name, from);
        let (written, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        let output = Arc::new(Output { log: log.clone(), written, lost });
        let end = Arc::new(AtomicU64::new(u64::MAX));
        let writer = Writer {
            ring: Arc::clone(&self.ring),
            node: self.node.clone(),
            next: from,
            exported,
            output: Arc::clone(&output),
            end: Arc::clone(&end),
            fails: false,
            has_unwritable: false,
        };
        let thread = thread::spawn(move || match file {
            None => writer.run(Lines::new(io::stdout())),
            Some(file) => writer.run(Lines::new(file)),
        });
        self.outputs.lock().insert(log.name.clone(), Arc::clone(&output));
        self.running.insert(log.name.clone(), Running { output, end, thread });
        Ok(())
    }

    /// Ends an output before this sequence number; the output may be stuck.
    fn stop(&mut self, name: &str, from: u64) {
        if let Some(Running { end, .. }) = self.running.remove(name) {
            end.store(from, Ordering::Relaxed);
            self.outputs.lock().remove(name);
        }
    }

    /// Writes the remaining flows and ends, within `timeout`. Returns whether everything was written.
    pub fn finish(self, timeout: Duration) -> bool {
        let start = Instant::now();
        let end = self.ring.range().end;
        self.running.values().for_each(|running| running.end.store(end, Ordering::Relaxed));
        let ended = || self.running.values().all(|running| running.thread.is_finished());
        while !ended() && start.elapsed() < timeout {
            thread::sleep(POLL_INTERVAL);
        }
        ended()
    }
}

/// Writes the ring's flows to an output.
struct Writer {
    ring: Arc<Ring>,
    node: String,
    /// The sequence number to continue from.
    next: u64,
    exported: Exported,
    output: Arc<Output>,
    end: Arc<AtomicU64>,
    fails: bool,
    has_unwritable: bool,
}

impl Writer {
    fn run(mut self, mut lines: Lines<impl Target>) {
        let mut line = String::new();
        loop {
            let end = self.end.load(Ordering::Relaxed);
            let mut batch = self.ring.read(self.next, end);
            // Records after the output's end are not its own.
            let overtaken = batch.lost.min(end.saturating_sub(self.next));
            self.next = batch.next;
            if overtaken > 0 {
                self.lose(overtaken);
                self.ring.overtook(overtaken);
                let (node, source) = (self.node.clone(), LostEventSource::HubbleRingBuffer);
                let now = Some(SystemTime::now().into());
                let lost = Lost { node, source, count: overtaken, cpu: None, first: now, last: now, time: now };
                line.clear();
                if self.exported.write_lost(&lost, &mut line).is_ok() {
                    let _ = self.write(&mut lines, &line);
                }
            }
            if batch.records().is_empty() {
                if self.next >= end {
                    return;
                }
                thread::sleep(POLL_INTERVAL);
                continue;
            }
            let is_active = self.output.log.is_active(SystemTime::now());
            while let Some(record) = batch.take(|flow| self.exported.wants(flow)) {
                if !is_active {
                    continue;
                }
                line.clear();
                let is_flow = matches!(&*record, Record::Flow(_));
                if let Err(error) = self.exported.write(record, &mut line) {
                    self.lose(1);
                    self.log_unwritable(&error);
                    continue;
                }
                let result = self.write(&mut lines, &line);
                if result.is_err() && is_flow {
                    self.lose(1);
                }
                self.log_result(result);
            }
        }
    }

    fn write(&self, lines: &mut Lines<impl Target>, line: &str) -> io::Result<()> {
        lines.write(line.as_bytes())?;
        self.output.written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn lose(&self, count: u64) {
        self.output.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// Logs the first flow without a JSON form; the counter has the number.
    fn log_unwritable(&mut self, error: &Unwritable) {
        if !std::mem::replace(&mut self.has_unwritable, true) {
            tracing::warn!(name = self.output.log.name, %error, "a flow has no JSON form and is left out of the flow log");
        }
    }

    /// Logs the first failure, and the first success after it; the counter has the number.
    fn log_result(&mut self, result: io::Result<()>) {
        let name = &self.output.log.name;
        match &result {
            Err(error) if !self.fails => tracing::error!(name, %error, "the flow log can't be written; flows are lost"),
            Ok(()) if self.fails => tracing::info!(name, "the flow log is written again"),
            _ => {}
        }
        self.fails = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flow::Flow;
    use std::{fs, path::PathBuf};

    const TIMEOUT: Duration = Duration::from_secs(60);

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("meridian-flow-logs-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn log(&self, name: &str) -> FlowLog {
            let file_path = self.0.join(name).display().to_string();
            FlowLog { name: name.into(), file_path, ..FlowLog::default() }
        }

        fn lines(&self, name: &str) -> Vec<String> {
            fs::read_to_string(self.0.join(name)).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn push(ring: &Ring, uuids: std::ops::Range<u32>) {
        uuids.for_each(|n| ring.push(Flow { uuid: n.to_string(), ..Flow::default() }.into()));
    }

    #[test]
    fn outputs_come_and_go_and_change() {
        let (folder, ring) = (Folder::new("change"), Arc::new(Ring::new(63)));
        let mut logs = FlowLogs::new(Arc::clone(&ring), "node-a".into());
        push(&ring, 0..1);
        logs.apply(&[folder.log("a"), folder.log("b")]).unwrap();
        push(&ring, 1..3);
        let only = FlowLog { field_mask: vec!["verdict".into()], ..folder.log("b") };
        let written = |name: &str| {
            let outputs = logs.outputs().all();
            let output = outputs.iter().find(|output| output.log.name == name).unwrap();
            output.written.load(Ordering::Relaxed)
        };
        while written("a") < 2 || written("b") < 2 {
            thread::sleep(POLL_INTERVAL);
        }
        logs.apply(&[folder.log("c"), only]).unwrap();
        push(&ring, 3..4);
        assert!(logs.finish(TIMEOUT));
        assert_eq!(folder.lines("a"), [r#"{"flow":{"uuid":"1"}}"#, r#"{"flow":{"uuid":"2"}}"#]);
        assert_eq!(folder.lines("b").last().unwrap(), r#"{"flow":{}}"#);
        assert_eq!(folder.lines("c"), [r#"{"flow":{"uuid":"3"}}"#]);
    }

    #[test]
    fn one_that_can_not_be_leaves_the_others() {
        let (folder, ring) = (Folder::new("refused"), Arc::new(Ring::new(63)));
        let mut logs = FlowLogs::new(Arc::clone(&ring), "node-a".into());
        let bad = FlowLog { field_mask: vec!["colour".into()], ..folder.log("bad") };
        let refused = logs.apply(&[bad, folder.log("good")]).unwrap_err().to_string();
        assert_eq!(refused, "the flow log bad: invalid fieldmask: `colour` is no field of a flow");
        push(&ring, 0..1);
        assert!(logs.finish(TIMEOUT));
        assert_eq!(folder.lines("good").len(), 1);
    }

    #[test]
    fn failed_writes_are_counted_and_overtaken_flows_are_reported() {
        let (folder, ring) = (Folder::new("lost"), Arc::new(Ring::new(63)));
        let mut logs = FlowLogs::new(Arc::clone(&ring), "node-a".into());
        let full = FlowLog { name: "full".into(), file_path: "/dev/full".into(), ..FlowLog::default() };
        logs.apply(&[full, folder.log("late")]).unwrap();
        let outputs = logs.outputs();
        // More flows than the ring holds, faster than the output reads.
        push(&ring, 0..100_000);
        assert!(logs.finish(TIMEOUT));
        let lost = |name: &str| {
            let all = outputs.all();
            let output = all.iter().find(|output| output.log.name == name).unwrap();
            (output.lost.load(Ordering::Relaxed), output.written.load(Ordering::Relaxed))
        };
        assert_eq!(lost("full"), (100_000, 0));
        let (lost, written) = lost("late");
        let lines = folder.lines("late");
        let reported: u64 = lines
            .iter()
            .filter_map(|line| {
                serde_json::from_str::<serde_json::Value>(line)
                    .unwrap()
                    .pointer("/lost_events/num_events_lost")?
                    .as_str()?
                    .parse::<u64>()
                    .ok()
            })
            .sum();
        let flows = lines.iter().filter(|line| line.contains("\"flow\"")).count() as u64;
        assert_eq!((reported, flows + lost, lines.len() as u64), (lost, 100_000, written));
    }
}
