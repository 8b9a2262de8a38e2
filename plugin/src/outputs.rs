//! A process's outputs of flows besides its streams: Hubble's own metrics, and flow logs. Changed configuration files
//! are applied at run time; a file with an error is refused, and the configuration before it stays in force.

use crate::{
    export::{FlowLog, FlowLogs, FlowLogsConfig, Refused},
    flows::{Listener, Ring},
    hubble::{
        Exported, InvalidExport,
        metrics::{Config, ConfigError, FlowMetrics},
    },
    identity::Index,
    metrics::{self, Reloads},
    watched::{FileChange, Watched},
    yaml,
};
use serde::de::DeserializeOwned;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// The name of the flow log that flags configure.
pub const FLAGS: &str = "flags";
/// The default metrics, used unless a cilium-agent serves its own: those of Hubble's dashboard.
const METRICS: &str = "flow drop tcp icmp port-distribution";
/// The interval at which the series of removed pods are dropped.
const PODS: Duration = Duration::from_secs(60);

/// The choice of metrics.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// The metrics of Hubble's dashboard, unless a cilium-agent serves its own.
    Auto,
    /// These.
    These(Config),
}

/// The configuration of the outputs.
#[derive(Debug)]
pub struct Settings {
    /// Hubble's own metrics.
    pub metrics: Wanted,
    /// The file that configures these metrics, instead.
    pub metrics_file: Option<PathBuf>,
    /// A flow log is refused.
    pub log: Option<FlowLog>,
    /// The file that configures further flow logs.
    pub logs_file: Option<PathBuf>,
}

/// The configuration of an output is invalid.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] yaml::Error),
    /// The metrics are invalid.
    #[error(transparent)]
    Metrics(#[from] ConfigError),
    /// The metrics in a file are invalid.
    #[error("{}: {source}", path.display())]
    MetricsFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ConfigError,
    },
    /// A flow log is refused.
    #[error(transparent)]
    Log(#[from] Refused),
    /// A flow log in a file is refused.
    #[error("{}: {name}: {reason}", path.display())]
    LogsFile {
        /// The file.
        path: PathBuf,
        /// The flow log.
        name: String,
        /// The reason.
        reason: InvalidExport,
    },
    /// Two flow logs have one name.
    #[error("the flow log {name}: the name is that of the one of the flags")]
    NameTaken {
        /// The name.
        name: String,
    },
}

/// A valid file, and the number of its metrics or flow logs.
#[derive(Debug)]
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// The number of entries.
    pub count: usize,
    /// The kind of the entries.
    pub what: &'static str,
}

impl Settings {
    /// Reads the configured files.
    ///
    /// # Errors
    /// A file can't be read, or is invalid.
    pub fn check(&self) -> Result<Vec<Checked>, Error> {
        let mut checked = Vec::new();
        if let Some(path) = &self.metrics_file {
            let config = read::<Config>(path)?;
            FlowMetrics::new(&config).map_err(|source| Error::MetricsFile { path: path.clone(), source })?;
            checked.push(Checked { path: path.clone(), count: config.metrics.len(), what: "metrics" });
        }
        if let Some(path) = &self.logs_file {
            let logs = read::<FlowLogsConfig>(path)?.flow_logs;
            for log in &logs {
                let refused = |reason| Error::LogsFile { path: path.clone(), name: log.name.clone(), reason };
                Exported::new(&log.include_filters, &log.exclude_filters, &log.field_mask).map_err(refused)?;
            }
            checked.push(Checked { path: path.clone(), count: logs.len(), what: "flow logs" });
        }
        Ok(checked)
    }
}

/// The running outputs.
pub struct Outputs {
    ring: Arc<Ring>,
    metrics: Option<Arc<FlowMetrics>>,
    metrics_file: Option<Watched>,
    logs: Option<FlowLogs>,
    log: Option<FlowLog>,
    logs_file: Option<Watched>,
    reloads: Arc<Reloads>,
    looked_for_pods: Instant,
}

impl Outputs {
    /// Starts with the next flow of the ring. `node` is named in reports of lost flows; `auto` replaces
    /// [`Wanted::Auto`].
    ///
    /// # Errors
    /// The configuration is invalid.
    pub fn start(settings: &Settings, ring: &Arc<Ring>, node: String, auto: bool) -> Result<Self, Error> {
        let config = match (&settings.metrics_file, &settings.metrics) {
            (Some(file), _) => Some(read(file)?),
            (None, Wanted::These(config)) => Some(config.clone()).filter(|config| !config.metrics.is_empty()),
            (None, Wanted::Auto) if auto => Some(METRICS.parse::<Config>()?),
            (None, Wanted::Auto) => None,
        };
        let metrics = config.map(|config| FlowMetrics::new(&config)).transpose()?;
        let mut outputs = Self {
            ring: Arc::clone(ring),
            metrics: metrics.map(Arc::new),
            metrics_file: settings.metrics_file.as_deref().map(Watched::new),
            logs: None,
            log: settings.log.clone(),
            logs_file: settings.logs_file.as_deref().map(Watched::new),
            reloads: Arc::default(),
            looked_for_pods: Instant::now(),
        };
        if outputs.log.is_some() || outputs.logs_file.is_some() {
            let mut logs = FlowLogs::new(Arc::clone(ring), node);
            logs.apply(&outputs.wanted_logs()?)?;
            outputs.logs = Some(logs);
        }
        Ok(outputs)
    }

    /// The listener that counts flows.
    pub fn listener(&self) -> Option<Arc<dyn Listener>> {
        self.metrics.clone().map(|metrics| metrics as _)
    }

    /// The state of the outputs, for metrics.
    pub fn shown(&self) -> metrics::Outputs {
        metrics::Outputs {
            ring: Arc::clone(&self.ring),
            metrics: self.metrics.clone(),
            logs: self.logs.as_ref().map(FlowLogs::outputs),
            reloads: Arc::clone(&self.reloads),
        }
    }

    /// The configured flow logs.
    fn wanted_logs(&self) -> Result<Vec<FlowLog>, Error> {
        let file = self.logs_file.as_ref().map(|file| read::<FlowLogsConfig>(&file.path)).transpose()?;
        let of_file = file.unwrap_or_default().flow_logs;
        if let Some(log) = of_file.iter().find(|log| log.name == FLAGS && self.log.is_some()) {
            return Err(Error::NameTaken { name: log.name.clone() });
        }
        Ok(self.log.iter().cloned().chain(of_file).collect())
    }

    /// Applies files that have changed. An invalid file leaves the configuration in force.
    pub fn look(&mut self) {
        if let Some(file) = &mut self.metrics_file
            && matches!(file.look(), FileChange::Changed)
        {
            let applied = read::<Config>(&file.path).and_then(|config| match &self.metrics {
                Some(metrics) => Ok(metrics.configure(&config)?),
                None => Ok(()),
            });
            log_reload("metrics", &file.path, &applied);
            self.reloads.metrics[usize::from(applied.is_err())].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(file) = &mut self.logs_file
            && matches!(file.look(), FileChange::Changed)
        {
            let path = file.path.clone();
            let applied = self.wanted_logs().and_then(|wanted| match &mut self.logs {
                Some(logs) => Ok(logs.apply(&wanted)?),
                None => Ok(()),
            });
            log_reload("flow logs", &path, &applied);
            self.reloads.logs[usize::from(applied.is_err())].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Drops the series of pods without a known address.
    pub fn forget_pods(&mut self, index: &Index, now: Instant) {
        let Some(metrics) = &self.metrics else { return };
        if now.duration_since(self.looked_for_pods) < PODS || !metrics.has_pods() {
            return;
        }
        self.looked_for_pods = now;
        let mut pods = ahash::AHashSet::new();
        index.each(|_, endpoint| {
            pods.insert((Arc::clone(&endpoint.namespace), Arc::clone(&endpoint.pod)));
        });
        let lives = |namespace: &str, pod: &str| pods.contains(&(namespace.into(), pod.into()));
        metrics.forget_pods(lives);
    }

    /// Writes the remaining flows and ends.
    pub fn finish(self, timeout: Duration) {
        if self.logs.is_some_and(|logs| !logs.finish(timeout)) {
            tracing::warn!("the flow logs can't be written in time: their last lines are lost");
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = yaml::read(path)?;
    Ok(yaml::parse(&text, "`metrics:` or `flowLogs:`, though it be empty").map_err(|refusal| refusal.of_file(path))?)
}

fn log_reload(what: &str, path: &Path, applied: &Result<(), Error>) {
    let file = path.display();
    match applied {
        Ok(()) => tracing::info!(%file, "new {what} are in force"),
        Err(reason) => tracing::error!(%file, %reason, "new {what} are refused; the old ones stay in force"),
    }
}
